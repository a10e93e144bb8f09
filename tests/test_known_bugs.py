"""docs/known-bugs.md and docs/reliability.md name tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.findall(r"\[(test_\w+)\]\(\.\./([\w/]+\.py)\)", (ROOT / "docs" / "known-bugs.md").read_text())
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()
NAMED += [(name, path) for path, name in re.findall(r"(tests/[\w/]+\.py)::(test_\w+)", RELIABILITY)]


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_each_test_that_is_named_exists(name: str, path: str) -> None:
    """Under that name, in that file."""
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_row_names_a_test() -> None:
    """A bug without a test would only be a worry."""
    rows = [line for line in (ROOT / "docs" / "known-bugs.md").read_text().splitlines() if line.startswith("| ")]
    bugs = [row for row in rows if not row.startswith("| bug elsewhere")]
    assert len(bugs) > 30
    assert [row for row in bugs if "](../tests/" not in row] == []


def test_each_file_that_is_named_exists() -> None:
    """Also where it is named as a whole."""
    paths = set(re.findall(r"`(tests/[\w/]+\.py)", RELIABILITY))
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).is_file()] == []
