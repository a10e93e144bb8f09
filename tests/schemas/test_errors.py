"""The tree of errors: one root, attributes that carry the facts, messages that say what to do."""

from __future__ import annotations

import inspect
from datetime import timedelta

from perdure.schemas import errors
from perdure.schemas.errors import (
    DefinitionError,
    JournalMismatchError,
    PerdureError,
    RetryableError,
    TerminalError,
)


def test_every_error_has_one_root_and_is_in_the_drawing() -> None:
    """The module's docstring is the map that people read; nothing is missing from it."""
    found = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == errors.__name__
    }
    assert all(issubclass(kind, PerdureError) for kind in found.values())
    assert {name for name in found if name not in (errors.__doc__ or "")} == set()
    assert all(name.endswith("Error") for name in found)


def test_a_terminal_error_carries_what_callers_are_told() -> None:
    """Code 500 and no metadata unless given; the metadata is a copy."""
    plain = TerminalError("sold out")
    assert (str(plain), plain.message, plain.status_code, plain.metadata) == ("sold out", "sold out", 500, {})
    given = {"shelf": "3"}
    full = TerminalError("sold out", 409, given)
    given["shelf"] = "4"
    assert (full.status_code, full.metadata) == (409, {"shelf": "3"})


def test_a_retryable_error_may_say_when() -> None:
    """Without a delay the policy in force decides."""
    assert RetryableError("later").retry_after is None
    later = RetryableError("later", 503, retry_after=timedelta(seconds=5))
    assert (str(later), later.status_code, later.retry_after) == ("later", 503, timedelta(seconds=5))


def test_a_wrong_definition_is_a_value_error() -> None:
    """Those who catch what Python raises for bad arguments catch it too."""
    assert issubclass(DefinitionError, ValueError)


def test_a_mismatch_shows_both_sides_and_what_to_do() -> None:
    """The message holds index, journal, handler and the way out; the attributes hold the facts."""
    error = JournalMismatchError(index=3, recorded='run "a"', issued='run "b"')
    text = str(error)
    assert "at command 3" in text
    assert 'journal: run "a"' in text
    assert 'handler: run "b"' in text
    assert "ctx.run" in text
    assert (error.index, error.recorded, error.issued) == (3, 'run "a"', 'run "b"')
