"""Reading what people type: `perdure.worker.cli.values`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure.schemas.errors import UsageError
from perdure.worker.cli.values import read_duration, read_headers, read_json


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1.5h", 5_400), ("1h30m", 5_400), ("2min", 120), ("1d", 86_400), ("1w", 604_800)],
)
def test_durations(text: str, seconds: float) -> None:
    """Numbers with units, also several in a row."""
    assert read_duration(text, flag="--delay") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1h!", "99999999999w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The message names the flag."""
    with pytest.raises(UsageError, match="--delay"):
        read_duration(text, flag="--delay")


def test_json_keeps_every_digit() -> None:
    """Large integers are not rounded."""
    assert read_json('{"n": 123456789012345678901234567890}') == {"n": 123456789012345678901234567890}


@pytest.mark.parametrize("text", ["", "  ", "hello", "{", "'a'", "NaN"])
def test_what_is_not_json_is_refused(text: str) -> None:
    """Text without quotes is the usual mistake: the message shows how to write it."""
    with pytest.raises(UsageError, match="not JSON") as refused:
        read_json(text)
    assert ("both quotes" in str(refused.value)) == (text == "hello" or text in ("'a'", "NaN"))


def test_headers() -> None:
    """A value may hold anything; a name comes once."""
    assert read_headers(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match="--header"):
            read_headers(wrong)
