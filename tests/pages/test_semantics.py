"""`docs/semantics.md`: the limits that it names are those of the code. Failures have tests of their own."""

from __future__ import annotations

import re

import pytest

from perdure.schemas import limits
from perdure.worker.options import INVOCATION_ATTEMPTS_MAX
from perdure.worker.settings import PREFIX, Settings
from tests.documents import ROOT

TEXT = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [^|]+ \| ([\d,]+)[^|]* \| `(\w+)`[^|]* \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("value", "name"), ROWS, ids=[name for _, name in ROWS])
def test_limits_are_those_of_the_code(value: str, name: str) -> None:
    """Settings by their defaults, fixed ones by their constants."""
    if name == "InvocationRetryPolicy":
        known: float = INVOCATION_ATTEMPTS_MAX
    elif name.startswith(PREFIX):
        known = Settings.model_fields[name.removeprefix(PREFIX).lower()].default
    else:
        known = getattr(limits, name)
    assert float(value.replace(",", "")) == known


def test_there_are_limits() -> None:
    """The table is found."""
    assert len(ROWS) >= 14
