"""What makes a command the same command, and what handlers get to see of a failure."""

from __future__ import annotations

import pytest

from perdure.schemas.entries import Failure, Identity, Run, Sleep, Success


def test_a_step_is_known_by_its_name() -> None:
    """Not by its result, nor by when it ran."""
    first, second = Run(0, "charge", 1, 2, Success(b"1")), Run(0, "charge", 8, 9, Failure(500, "no"))
    assert first.identity == second.identity == Identity("run", "charge")
    assert first.identity != Run(0, "refund", 1, 2, Success(b"1")).identity


def test_a_timer_is_known_by_its_name() -> None:
    """Not by how long it is: that may have been read from the world."""
    assert Sleep(0, "nap", 1, 2).identity == Sleep(0, "nap", 8, 9).identity == Identity("sleep", "nap")
    assert Sleep(0, "x", 1, 2).identity != Run(0, "x", 1, 2, Success(b"")).identity


@pytest.mark.parametrize(
    ("identity", "line"),
    [
        (Identity("run", "charge the card"), 'run "charge the card"'),
        (Identity("sleep", ""), "sleep"),
        (Identity("call", "add", "Cart/ada"), 'call "add" Cart/ada'),
        (Identity("get", "", "", "total"), "get total"),
    ],
)
def test_an_identity_is_one_line_for_people(identity: Identity, line: str) -> None:
    """As it stands in the diff of a mismatch."""
    assert str(identity) == line


def test_a_failure_becomes_the_error_that_a_handler_sees() -> None:
    """With its code and metadata, which are the handler's own copy."""
    metadata = {"shelf": "3"}
    error = Failure(409, "sold out", metadata).to_error()
    assert (str(error), error.status_code, error.metadata) == ("sold out", 409, metadata)
    error.metadata["shelf"] = "4"
    assert metadata == {"shelf": "3"}
