"""What of a journal another invocation can begin with: `perdure.journal.restarting`."""

from __future__ import annotations

import pytest

from perdure.journal.restarting import KEPT_MAX, kept_entries
from perdure.schemas.commands import Awakeable, Call, SignalWait
from perdure.schemas.entries import (
    AttemptFailed,
    AttemptStarted,
    Cancelled,
    Completion,
    Entry,
    Failure,
    Input,
    Output,
    Positioned,
    Run,
    Signalled,
    Sleep,
    StepFailed,
    Success,
)
from perdure.schemas.errors import ConflictError, UsageError
from perdure.schemas.ids import InvocationId

DONE = Success(b"1")
INPUT = Input(1, "w", (), b"")


def journal(*entries: Entry) -> list[Positioned]:
    """A journal that ends."""
    return [Positioned(at, 1, entry) for at, entry in enumerate((INPUT, *entries, Output(9, DONE)), 1)]


def step(index: int) -> Run:
    """A recorded step."""
    return Run(index, f"step {index}", 1, 0, DONE)


def test_results_of_the_first_commands_are_kept_in_their_order() -> None:
    """Not what came of later commands, nor what happened to attempts."""
    sleep, call = Sleep(1, "", 1, 5), Call(2, 1, "S", "h", None, InvocationId("inv_1"), "", (), b"")
    slept, called = Completion(1, 4, DONE), Completion(2, 3, Failure(500, "no"))
    entries = journal(
        step(0),
        AttemptFailed(1, "e", "", "", 0),
        AttemptStarted(2, "w"),
        sleep,
        call,
        StepFailed(3, "step 3", 1, 1, 1, 1, "e"),
        called,
        step(4),
        slept,
        step(3),
    )
    assert kept_entries(entries, 0) == []
    assert kept_entries(entries, 1) == [step(0)]
    assert kept_entries(entries, 3) == [step(0), sleep, call, called, slept]
    assert kept_entries(entries, 4) == [step(0), sleep, call, called, slept, step(3)]
    assert kept_entries(entries, 5) == [step(0), sleep, call, called, step(4), slept, step(3)]


def test_signals_are_kept_that_somebody_took() -> None:
    """As many of each name as kept commands waited for, first come first."""
    first, second, other = Signalled("go", 1, DONE), Signalled("go", 2, DONE), Signalled("stop", 3, DONE)
    entries = journal(first, other, SignalWait(0, 1, "go"), second, SignalWait(1, 2, "go"))
    assert kept_entries(entries, 1) == [first, SignalWait(0, 1, "go")]
    assert kept_entries(entries, 2) == [first, SignalWait(0, 1, "go"), second, SignalWait(1, 2, "go")]


@pytest.mark.parametrize(
    "waiting",
    [
        Sleep(1, "", 1, 5),
        Call(1, 1, "S", "h", None, InvocationId("inv_1"), "", (), b""),
        Awakeable(1, 1),
        SignalWait(1, 1, "go"),
    ],
)
def test_what_still_waits_is_not_kept(waiting: Sleep | Call | Awakeable | SignalWait) -> None:
    """It would be waited for by an invocation that nobody answers; the message says how many can be kept."""
    entries = journal(step(0), waiting, step(2))
    with pytest.raises(ConflictError, match="keep at most 1"):
        kept_entries(entries, 3)
    assert kept_entries(entries, 1) == [step(0)]


def test_what_a_cancellation_led_to_is_not_kept() -> None:
    """The new invocation is not cancelled."""
    entries = journal(step(0), Cancelled(1), step(1))
    assert kept_entries(entries, 1) == [step(0)]
    with pytest.raises(ConflictError, match="was cancelled: keep at most 1"):
        kept_entries(entries, 2)


def test_what_is_not_there_is_not_kept() -> None:
    """Neither fewer than none, nor more than there are, nor more than a script copies."""
    with pytest.raises(UsageError, match="-1 commands"):
        kept_entries(journal(), -1)
    with pytest.raises(UsageError, match="has 1 commands"):
        kept_entries(journal(step(0)), 2)
    many = journal(*map(step, range(KEPT_MAX + 1)))
    assert len(kept_entries(many, KEPT_MAX)) == KEPT_MAX
    with pytest.raises(UsageError, match="keep fewer"):
        kept_entries(many, KEPT_MAX + 1)
