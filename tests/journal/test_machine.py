"""The journal machine, one rule a test: what goes in, what is answered, what is to be appended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Ready, Suspend, Wait
from perdure.schemas.commands import Awakeable, Call
from perdure.schemas.entries import (
    AttemptFailed,
    AttemptStarted,
    Completion,
    Entry,
    Failure,
    Input,
    Paused,
    Positioned,
    Run,
    Sleep,
    StepFailed,
    Success,
    Unknown,
)
from perdure.schemas.errors import JournalMismatchError
from perdure.schemas.ids import InvocationId

INPUT = Input(1, "w", (), b"null")
ONE, TWO = Success(b"1"), Success(b"2")


def run(index: int, name: str = "a", outcome: Success | Failure = ONE) -> Run:
    """A step and its result."""
    return Run(index, name, 1, 1, outcome)


def machine_with(*entries: Entry) -> Machine:
    """A machine that has read a journal of these entries."""
    machine = Machine()
    machine.receive(Positioned(place, 1, entry) for place, entry in enumerate((INPUT, *entries), start=1))
    machine.begin()
    return machine


def append(machine: Machine, *others: Entry) -> Sequence[Entry]:
    """Append what is to be appended after what others appended meanwhile; returns the machine's own."""
    own = machine.drain()
    first = machine.length + 1
    machine.receive(Positioned(first + i, 1, entry) for i, entry in enumerate([*others, *own]))
    machine.appended()
    return own


def test_a_step_runs_is_recorded_and_then_seen() -> None:
    """Execute, propose, append: the result is ready when it came back, and costs one entry."""
    machine = machine_with()
    assert machine.issue_run("a") == 0
    assert machine.poll() == Execute(0, None)
    assert machine.poll() == Wait()
    machine.propose(run(0))
    assert machine.pending
    assert machine.poll() == Wait()
    assert append(machine) == [run(0)]
    assert machine.poll() == Ready(0, ONE)
    assert machine.poll() == Suspend(frozenset())


def test_two_results_at_once_are_no_replay() -> None:
    """What this attempt has brought about itself is new, however much of it waits to be handed out."""
    machine = machine_with()
    machine.issue_run("a")
    machine.issue_run("b")
    machine.propose(run(0))
    machine.propose(run(1, "b"))
    append(machine)
    assert machine.poll() == Ready(0, ONE)
    assert not machine.replaying


def test_a_recorded_step_is_seen_and_not_run() -> None:
    """A replay of a step answers at once and appends nothing."""
    machine = machine_with(run(0))
    assert machine.replaying
    assert machine.issue_run("a") == 0
    assert machine.poll() == Ready(0, ONE)
    assert not machine.replaying
    assert machine.drain() == []


def test_a_recorded_failure_is_seen_as_it_was() -> None:
    """A terminal failure of a step is its result like any other."""
    failure = Failure(409, "sold out", {"shelf": "3"})
    machine = machine_with(run(0, outcome=failure))
    machine.issue_run("a")
    assert machine.poll() == Ready(0, failure)


def test_a_result_is_not_ready_before_the_handler_asked_for_it() -> None:
    """The journal is ahead of the handler: completions wait for their commands."""
    machine = machine_with(run(0), run(1, "b", TWO))
    assert not machine.deliverable
    assert isinstance(machine.poll(), Suspend)
    machine.issue_run("a")
    assert machine.deliverable
    assert machine.poll() == Ready(0, ONE)
    assert not machine.deliverable
    machine.issue_run("b")
    assert machine.poll() == Ready(1, TWO)


def test_results_come_in_the_order_of_the_journal() -> None:
    """Not in the order of commands: who won a race wins it again."""
    machine = machine_with(run(1, "b", TWO), run(0))
    machine.issue_run("a")
    assert not machine.deliverable
    machine.issue_run("b")
    ready = [step for step in (machine.poll(), machine.poll()) if isinstance(step, Ready)]
    assert [item.command_index for item in ready] == [1, 0]


def test_what_another_writer_appended_first_is_seen_first() -> None:
    """A timer that stands before the own step in the journal wins, although the step ended here earlier."""
    machine = machine_with()
    machine.issue_sleep("nap", at_ms=1, duration_ms=5)
    append(machine)
    machine.issue_run("a")
    assert machine.poll() == Execute(1, None)
    machine.propose(run(1))
    append(machine, Completion(0, 2, TWO))
    assert [machine.poll(), machine.poll()] == [Ready(0, TWO), Ready(1, ONE)]


def test_the_first_completion_wins() -> None:
    """Timers fire at least once: later completions of the same command are not seen."""
    machine = machine_with(Sleep(0, "", 1, 5), Completion(0, 2, ONE), Completion(0, 3, TWO))
    machine.issue_sleep("", at_ms=9, duration_ms=9)
    assert machine.poll() == Ready(0, ONE)
    assert machine.poll() == Suspend(frozenset())
    assert machine.resolved(0)


def test_a_completion_before_its_command_holds_up_nothing() -> None:
    """A failover lost the step and the awakeable after it, and somebody outside still knows its name."""
    early = Completion(1, 5, TWO)
    machine = machine_with(early)
    machine.issue_run("a")
    assert machine.poll() == Execute(0, None)
    machine.propose(run(0))
    append(machine)
    assert machine.poll() == Ready(0, ONE)
    machine.issue(Awakeable(1, 6))
    append(machine)
    assert machine.poll() == Ready(1, TWO)
    replay = machine_with(early, run(0), Awakeable(1, 6))
    replay.begin()
    replay.issue_run("a")
    assert replay.poll() == Ready(0, ONE)
    assert replay.replaying
    replay.issue(Awakeable(1, 6))
    assert replay.poll() == Ready(1, TWO)
    assert not replay.replaying


def test_a_completion_of_what_is_no_wait_is_not_seen() -> None:
    """Nobody completes a step from outside: its own result counts."""
    machine = machine_with(Completion(0, 5, TWO))
    machine.issue_run("a")
    assert machine.poll() == Execute(0, None)
    machine.propose(run(0))
    append(machine)
    assert machine.poll() == Ready(0, ONE)
    assert isinstance(machine.poll(), Suspend)


def test_a_result_before_a_timer_or_a_call_is_none() -> None:
    """Only an awakeable has a name that somebody may know before it is written: these get their own results."""
    called = Call(1, 6, "S", "h", None, InvocationId("inv_3ff" + "0" * 24), "", (), b"1")
    forged = [Completion(0, 5, TWO), Completion(1, 5, TWO)]
    machine = machine_with(*forged)
    machine.issue_sleep("", at_ms=6, duration_ms=10)
    machine.issue(called)
    append(machine)
    assert isinstance(machine.poll(), Suspend)
    replay = machine_with(*forged, Sleep(0, "", 6, 10), called, Completion(1, 7, ONE))
    replay.begin()
    replay.issue_sleep("", at_ms=9, duration_ms=10)
    replay.issue(called)
    assert replay.poll() == Ready(1, ONE)
    assert replay.poll() == Suspend(frozenset({0}))


def test_a_timer_is_recorded_once_and_waited_for() -> None:
    """Its command is appended once; afterwards only the outside can go on."""
    machine = machine_with()
    assert machine.issue_sleep("nap", at_ms=1, duration_ms=5) == 0
    assert machine.awaiting == {0}
    assert machine.poll() == Wait()
    assert append(machine) == [Sleep(0, "nap", 1, 5)]
    assert machine.poll() == Suspend(frozenset({0}))


def test_a_recorded_timer_keeps_the_time_of_its_first_attempt() -> None:
    """How long is not part of a sleep's identity; what was recorded counts."""
    machine = machine_with(Sleep(0, "nap", 1, 5))
    machine.issue_sleep("nap", at_ms=70, duration_ms=80)
    assert machine.sleeping(0) == Sleep(0, "nap", 1, 5)
    assert machine.drain() == []
    assert machine.poll() == Suspend(frozenset({0}))


def test_nothing_is_suspended_while_something_here_is_under_way() -> None:
    """A step that runs, an entry to append, an append without an answer: each of them is waited for."""
    machine = machine_with()
    machine.issue_sleep("", at_ms=1, duration_ms=5)
    machine.issue_run("a")
    assert machine.poll() == Execute(1, None)
    machine.drain()
    assert machine.poll() == Wait()
    machine.receive_own([Sleep(0, "", 1, 5)])
    machine.appended()
    assert machine.poll() == Wait()
    assert machine.executing == {1}
    machine.propose(run(1))
    machine.receive_own(machine.drain())
    machine.appended()
    assert machine.executing == frozenset()
    assert machine.poll() == Ready(1, ONE)
    assert machine.poll() == Suspend(frozenset({0}))


def test_steps_can_be_started_without_handing_out_results() -> None:
    """While the handler runs, its steps may start; results wait until it is blocked."""
    machine = machine_with(run(0))
    machine.issue_run("a")
    machine.issue_run("b")
    assert machine.poll(deliver=False) == Execute(1, None)
    assert machine.poll(deliver=False) == Wait()
    assert machine.poll() == Ready(0, ONE)


def test_a_step_that_failed_goes_on_with_its_recorded_counters() -> None:
    """The last failure comes with the order to execute; failures are no results."""
    failures = [StepFailed(0, "a", 1, count, count * 10, 5, "boom") for count in (1, 2)]
    machine = machine_with(*failures)
    machine.issue_run("a")
    assert machine.poll() == Execute(0, failures[1])
    machine.propose(StepFailed(0, "a", 2, 3, 30, 5, "boom"))
    append(machine)
    assert machine.poll() == Wait()
    assert machine.executing == {0}


def test_appends_are_bounded() -> None:
    """What is over the limit is left for the next append."""
    machine = machine_with()
    for index in range(5):
        machine.issue_sleep(f"{index}", at_ms=1, duration_ms=5)
    assert [entry.command_index for entry in machine.drain(2) if isinstance(entry, Sleep)] == [0, 1]
    assert machine.pending
    assert len(machine.drain()) == 3
    assert not machine.pending


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (run(0, "other"), 'run "other"'),
        (Sleep(0, "a", 1, 5), 'sleep "a"'),
    ],
)
def test_another_command_at_that_index_is_a_mismatch(recorded: Entry, message: str) -> None:
    """The error tells both sides and where."""
    machine = machine_with(recorded)
    with pytest.raises(JournalMismatchError) as caught:
        machine.issue_run("a")
    assert (caught.value.index, caught.value.recorded, caught.value.issued) == (0, message, 'run "a"')
    assert "command 0" in str(caught.value)


def test_a_handler_that_ends_before_its_journal_is_a_mismatch() -> None:
    """Commands that were recorded and never come: the first of them is named."""
    machine = machine_with(run(0), run(2, "c"))
    machine.issue_run("a")
    with pytest.raises(JournalMismatchError, match="the handler ended") as caught:
        machine.finish()
    assert (caught.value.index, caught.value.recorded) == (2, 'run "c"')


def test_a_handler_that_waits_where_its_journal_goes_on_is_a_mismatch() -> None:
    """An await was added: the journal has a later command although nothing can be handed out any more."""
    machine = machine_with(Sleep(0, "", 1, 5), run(1))
    machine.issue_sleep("", at_ms=1, duration_ms=5)
    with pytest.raises(JournalMismatchError, match="waits for an earlier command") as caught:
        machine.check_blocked()
    assert caught.value.index == 1


def test_a_handler_that_still_gets_results_has_not_diverged() -> None:
    """Neither while something can be handed out, nor when it came to the end of its journal."""
    machine = machine_with(run(0), run(1, "b"))
    machine.issue_run("a")
    machine.check_blocked()
    machine.poll()
    machine.issue_run("b")
    machine.check_blocked()
    machine.finish()


def test_events_are_counted_and_not_seen() -> None:
    """What is told for people moves the length and nothing else."""
    machine = machine_with(
        AttemptStarted(1, "w"), AttemptFailed(1, "boom", "", "", 5), Paused(1, "diverged"), AttemptStarted(2, "w")
    )
    assert machine.length == 5
    assert not machine.replaying
    assert machine.poll() == Suspend(frozenset())


def test_an_entry_of_a_newer_version_stops_the_replay() -> None:
    """What it does to the handler is not known, so it is not guessed at."""
    with pytest.raises(JournalMismatchError, match="hologram"):
        machine_with(Unknown("hologram", b"{}"))


def test_entries_come_in_order_and_each_once() -> None:
    """A driver that feeds an entry twice, or leaves one out, has a bug."""
    machine = machine_with()
    with pytest.raises(AssertionError):
        machine.receive([Positioned(1, 1, INPUT)])
    with pytest.raises(AssertionError):
        machine.receive([Positioned(3, 1, INPUT)])
