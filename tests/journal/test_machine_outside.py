"""What the outside tells the machine, and what it asks the store, one rule a test: calls, signals, lookups, the end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Interrupt, Ready, Suspend, Wait
from perdure.schemas.commands import GET, STATE_KEYS, Awakeable, Call, Lookup, PromiseWait, Send, SetState, SignalWait
from perdure.schemas.entries import (
    CancelChild,
    Cancelled,
    Completion,
    Entry,
    Failure,
    Input,
    PauseAsked,
    Paused,
    Positioned,
    Resumed,
    Run,
    Signalled,
    Success,
)
from perdure.schemas.errors import JournalMismatchError
from perdure.schemas.ids import InvocationId

INPUT = Input(1, "w", (), b"null")
ONE, TWO = Success(b"1"), Success(b"2")
CANCELLED = Failure(409, "cancelled")
CHILD = InvocationId("inv_child")


def call(index: int, name: str = "S", child: InvocationId = CHILD) -> Call:
    """A call of `name`'s handler."""
    return Call(index, 1, name, "h", None, child, "", (), b"1")


def machine_with(*entries: Entry) -> Machine:
    """A machine that has read a journal of these entries."""
    machine = Machine()
    machine.receive(Positioned(place, 1, entry) for place, entry in enumerate((INPUT, *entries), start=1))
    return machine


def append(machine: Machine, *others: Entry) -> Sequence[Entry]:
    """Append what is to be appended after what others appended meanwhile; returns the machine's own."""
    own = machine.drain()
    first = machine.length + 1
    machine.receive(Positioned(first + i, 1, entry) for i, entry in enumerate([*others, *own]))
    machine.appended()
    return own


@pytest.mark.parametrize("command", [call(0), Awakeable(0, 1), PromiseWait(0, 1, "p")], ids=lambda c: c.identity.type)
def test_a_command_that_the_outside_completes(command: Call | Awakeable | PromiseWait) -> None:
    """It is recorded once, waited for, and answered by the first completion, in a replay as at first."""
    machine = machine_with()
    assert machine.issue(command) is None
    assert machine.poll() == Wait()
    assert append(machine) == [command]
    assert machine.poll() == Suspend(frozenset({0}))
    append(machine, Completion(0, 2, ONE), Completion(0, 3, TWO))
    assert machine.poll() == Ready(0, ONE)
    replay = machine_with(command, Completion(0, 2, ONE))
    assert replay.issue(command) is None
    assert replay.poll() == Ready(0, ONE)
    assert replay.drain() == []


@pytest.mark.parametrize("command", [SetState(0, "n", b"1"), Send(0, 1, "S", "h", None, CHILD, "", (), 0, b"1")])
def test_a_command_that_is_done_when_it_is_written(command: SetState | Send) -> None:
    """Nobody waits for it, and a replay does not write it again."""
    machine = machine_with()
    machine.issue(command)
    assert append(machine) == [command]
    assert machine.poll() == Suspend(frozenset())
    replay = machine_with(command)
    replay.issue(command)
    assert replay.drain() == []
    assert replay.replayed(0) == command
    assert replay.replayed(0) is None


def test_arguments_are_no_part_of_what_a_command_is() -> None:
    """Another value is no divergence, another name is."""
    machine_with(SetState(0, "n", b"1")).issue(SetState(0, "n", b"2"))
    with pytest.raises(JournalMismatchError, match=r"(?s)journal: set \"n\".*handler: set \"m\""):
        machine_with(SetState(0, "n", b"1")).issue(SetState(0, "m", b"1"))


def test_signals_are_taken_in_order_each_by_one_wait() -> None:
    """Per name, whether the wait came first or the signal did."""
    machine = machine_with()
    machine.issue(SignalWait(0, 1, "a"))
    machine.issue(SignalWait(1, 1, "b"))
    append(machine, Signalled("a", 1, ONE), Signalled("a", 1, TWO), Signalled("c", 1, ONE))
    assert machine.poll() == Ready(0, ONE)
    assert machine.poll() == Suspend(frozenset({1}))
    assert machine.issue(SignalWait(2, 1, "a")) == TWO
    assert machine.issue(SignalWait(3, 1, "c")) == ONE
    assert machine.issue(SignalWait(4, 1, "a")) is None
    append(machine)
    assert machine.poll() == Suspend(frozenset({1, 4}))


def test_a_signal_is_not_there_before_its_turn() -> None:
    """What stands before it in the journal is seen first: a wait that is asked for before that waits."""
    machine = machine_with(Run(0, "a", 1, 1, ONE), Signalled("s", 1, TWO))
    machine.issue_run("a")
    assert machine.issue(SignalWait(1, 1, "s")) is None
    assert machine.poll() == Ready(0, ONE)
    assert machine.poll() == Ready(1, TWO)


def test_a_lookup_is_executed_and_recorded_with_its_answer() -> None:
    """One entry holds what was asked and what was answered."""
    machine = machine_with()
    assert machine.issue_lookup(GET, "n", at_ms=1, known=None) == (0, None)
    assert machine.poll() == Execute(0, None)
    machine.propose(answer := Lookup(GET, 0, "n", 2, False, ONE))
    assert append(machine) == [answer]
    assert machine.poll() == Ready(0, ONE)
    replay = machine_with(answer)
    assert replay.issue_lookup(GET, "n", at_ms=9, known=TWO) == (0, None)
    assert replay.poll() == Ready(0, ONE)


def test_what_is_known_is_answered_at_the_call() -> None:
    """In each replay, too, with what was recorded and not with what is known now."""
    machine = machine_with()
    assert machine.issue_lookup(STATE_KEYS, "", at_ms=1, known=ONE) == (0, ONE)
    (recorded,) = append(machine)
    assert recorded == Lookup(STATE_KEYS, 0, "", 1, True, ONE)
    replay = machine_with(recorded)
    assert replay.issue_lookup(STATE_KEYS, "", at_ms=9, known=TWO) == (0, ONE)
    assert replay.poll() == Suspend(frozenset())
    assert replay.drain() == []


def test_a_cancellation_is_handed_out_in_its_turn() -> None:
    """After what stands before it, and before what comes after it."""
    machine = machine_with(Run(0, "a", 1, 1, ONE), Cancelled(1), Run(1, "b", 1, 1, TWO))
    machine.issue_run("a")
    machine.issue_run("b")
    assert machine.poll() == Ready(0, ONE)
    assert machine.cancelling
    assert machine.poll() == Interrupt(3, (), ())
    assert machine.poll() == Ready(1, TWO)


def test_a_cancellation_waits_for_steps_that_run() -> None:
    """Their effects are known before the handler decides what to undo."""
    machine = machine_with()
    machine.issue_run("a")
    assert machine.poll() == Execute(0, None)
    append(machine, Cancelled(1))
    assert machine.cancelling
    assert not machine.deliverable
    assert machine.poll() == Wait()
    machine.propose(Run(0, "a", 1, 1, ONE))
    append(machine)
    assert machine.poll() == Interrupt(2, (), ())
    assert machine.poll() == Ready(0, ONE)


def test_a_cancellation_drops_steps_that_have_not_begun() -> None:
    """The driver proposes their result; they are never executed."""
    machine = machine_with(Cancelled(1))
    machine.issue_run("a")
    machine.issue_lookup(GET, "n", at_ms=1, known=None)
    assert machine.poll() == Interrupt(2, (0, 1), ())
    machine.propose(Run(0, "a", 1, 0, CANCELLED))
    machine.propose(Lookup(GET, 1, "n", 1, False, CANCELLED))
    assert machine.poll() == Wait()
    append(machine)
    assert [machine.poll(), machine.poll()] == [Ready(0, CANCELLED), Ready(1, CANCELLED)]


def test_each_cancellation_goes_on_to_callees_once() -> None:
    """To those without an answer, and not again where the journal says that they were told."""
    other = InvocationId("inv_other")
    machine = machine_with(call(0), call(1, "T", other), Completion(0, 1, ONE), Cancelled(1))
    machine.issue(call(0))
    machine.issue(call(1, "T", other))
    assert machine.poll() == Ready(0, ONE)
    assert machine.poll() == Interrupt(5, (), (other,))
    machine.propose(told := CancelChild(1, 5, other))
    assert append(machine, Cancelled(2)) == [told]
    assert machine.poll() == Interrupt(6, (), (other,))
    replay = machine_with(call(0), call(1, "T", other), Completion(0, 1, ONE), Cancelled(1), told)
    replay.issue(call(0))
    replay.issue(call(1, "T", other))
    assert [replay.poll(), replay.poll()] == [Ready(0, ONE), Interrupt(5, (), ())]


def test_a_pause_is_asked_for_until_it_was_made() -> None:
    """What was asked, made and resumed is over."""
    machine = machine_with(PauseAsked(1))
    assert machine.pause_asked
    append(machine, Paused(2, "paused by an operator"), Resumed(3))
    assert not machine.pause_asked
    append(machine, PauseAsked(4))
    assert machine.pause_asked


def test_a_mismatch_says_what_is_likely() -> None:
    """From what stands next in the journal, and from what the two commands have in common."""
    taken_out = machine_with(Run(0, "a", 1, 1, ONE), Run(1, "b", 1, 1, ONE))
    with pytest.raises(JournalMismatchError, match='run "a" had been taken out'):
        taken_out.issue_run("b")
    with pytest.raises(JournalMismatchError, match="another target"):
        machine_with(call(0)).issue(call(0)._replace(key="k"))
    with pytest.raises(JournalMismatchError, match="another name"):
        machine_with(call(0)).issue(call(0, "T"))
    with pytest.raises(JournalMismatchError, match="put in"):
        machine_with(call(0)).issue_run("a")
