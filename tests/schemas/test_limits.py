"""Cutting text to a limit, and limits that depend on one another."""

from __future__ import annotations

import pytest

from perdure.schemas import limits
from perdure.schemas.limits import shorten


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("", ""),
        ("12345", "12345"),
        ("123456", "12345… (1 characters left out)"),
        ("x" * 105, "xxxxx… (100 characters left out)"),
        ("é☃𝄞", "é☃𝄞"),
        ("a\ud800b", "a?b"),
    ],
)
def test_long_text_is_cut_and_says_so(text: str, short: str) -> None:
    """What fits stays as it is; lone surrogates, which JSON cannot hold, are replaced."""
    assert shorten(text, 5) == short
    shorten(text).encode()


def test_the_usual_limit_is_that_of_failures() -> None:
    """Messages and stacks in the journal are bounded without anybody naming a number."""
    assert len(shorten("x" * 100_000)) < limits.FAILURE_CHARACTERS_MAX + 50


def test_limits_fit_into_each_other() -> None:
    """A payload fits into a record, a record into what Kafka takes, an append into a script's arguments."""
    assert limits.PAYLOAD_BYTES_MAX <= limits.RECORD_BYTES_MAX < 1_048_576
    assert limits.ENTRIES_PER_APPEND_MAX < limits.JOURNAL_ENTRIES_MAX
    # Lua's unpack and Redis's argument count both take a few thousand without question.
    assert 4 * limits.ENTRIES_PER_APPEND_MAX + 20 < 8_000
