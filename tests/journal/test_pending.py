"""What may be appended while reads of state have no answer: `perdure.journal.pending`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Suspend, Wait
from perdure.schemas.commands import (
    GET,
    LOOKUPS,
    PEEK,
    STATE_KEYS,
    Awakeable,
    ClearAll,
    ClearState,
    Lookup,
    Send,
    SetState,
)
from perdure.schemas.entries import Entry, Run, Sleep, Success, Written
from perdure.schemas.ids import InvocationId
from tests.journal.test_machine import append, machine_with

OLD = Success(b"1")
WRITES: dict[str, Callable[[int], Written]] = {
    "set": lambda index: SetState(index, "a", b"2"),
    "clear": lambda index: ClearState(index, "a"),
    "clear_all": ClearAll,
}


def answer(index: int, kind: str = GET) -> Lookup:
    """What the store answered."""
    return Lookup(kind, index, "a", 1, False, OLD)


def ask(machine: Machine, kind: str = GET) -> int:
    """The handler asks the store, which has not answered yet; the command index."""
    index, known = machine.issue_lookup(kind, "a", at_ms=1, known=None)
    assert known is None
    assert machine.poll() == Execute(index, None)
    return index


def write(machine: Machine, kind: str = "set") -> Written:
    """The handler writes state."""
    command = WRITES[kind](machine.next_index)
    machine.issue(command)
    return command


def send(machine: Machine) -> Send:
    """The handler sends something."""
    command = Send(machine.next_index, 1, "S", "h", None, InvocationId("inv_" + "0" * 27), "", (), 0, b"")
    machine.issue(command)
    return command


@pytest.mark.parametrize("kind", [GET, STATE_KEYS])
@pytest.mark.parametrize("change", WRITES)
def test_a_write_waits_for_reads_that_came_before_it(kind: str, change: str) -> None:
    """It is appended behind the answer, which otherwise could hold what was written later in the program."""
    machine = machine_with()
    read = ask(machine, kind)
    written = write(machine, change)
    assert not machine.pending
    assert machine.drain() == []
    assert machine.poll() == Wait()
    machine.propose(answer(read, kind))
    assert append(machine) == [answer(read, kind), written]


@pytest.mark.parametrize("kind", [kind for kind in LOOKUPS if kind not in (GET, STATE_KEYS)])
def test_lookups_of_promises_hold_nothing_back(kind: str) -> None:
    """They are no part of the state."""
    machine = machine_with()
    machine.issue_lookup(kind, "a", at_ms=1, known=None)
    assert append(machine) == []
    written = write(machine)
    assert append(machine) == [written]


def test_what_follows_a_write_that_waits_waits_with_it() -> None:
    """The world sees commands in the program's order: who is sent something may read what was written before."""
    machine = machine_with()
    read = ask(machine)
    before = send(machine)
    written, sent = write(machine), send(machine)
    machine.issue_sleep("s", at_ms=1, duration_ms=5)
    machine.issue_lookup(GET, "a", at_ms=1, known=OLD)
    machine.issue(Awakeable(machine.next_index, 1))
    assert append(machine) == [before]
    machine.propose(answer(read))
    eager = Lookup(GET, 5, "a", 1, True, OLD)
    assert append(machine) == [answer(read), written, sent, Sleep(4, "s", 1, 5), eager, Awakeable(6, 1)]


def test_results_do_not_wait() -> None:
    """Steps that ran meanwhile are recorded at once, since they must not be executed again."""
    machine = machine_with()
    machine.issue_run("step")
    assert machine.poll() == Execute(0, None)
    ask(machine)
    write(machine)
    result = Run(0, "step", 1, 1, OLD)
    machine.propose(result)
    assert append(machine) == [result]


def test_a_write_waits_for_no_later_read() -> None:
    """A handler that always has another read under way gets its writes through all the same."""
    machine = machine_with()
    first = ask(machine)
    one = write(machine)
    second = ask(machine)
    two = write(machine)
    machine.propose(answer(first))
    assert append(machine) == [answer(first), one]
    machine.propose(answer(second))
    assert append(machine) == [answer(second), two]


def test_answers_may_come_in_any_order() -> None:
    """The later one frees nothing that waits for the earlier one."""
    machine = machine_with()
    first, second = ask(machine), ask(machine)
    written = write(machine)
    machine.propose(answer(second))
    assert append(machine) == [answer(second)]
    machine.propose(answer(first))
    assert append(machine) == [answer(first), written]


def test_an_answer_that_is_known_or_recorded_holds_nothing_back() -> None:
    """Only what the store is still to be asked could see a later write."""
    machine = machine_with(Lookup(GET, 0, "a", 1, False, OLD), Lookup(GET, 1, "a", 1, True, OLD))
    for known in (None, None, OLD):
        machine.issue_lookup(GET, "a", at_ms=1, known=known)
    written = write(machine)
    assert append(machine) == [Lookup(GET, 2, "a", 1, True, OLD), written]


def test_a_replay_asks_again_before_it_writes() -> None:
    """Whatever an attempt had appended when it ended: a read without an answer has no later write in the journal."""
    machine = machine_with()
    ask(machine)
    write(machine)
    recorded: list[Entry] = [*machine.drain()]
    again = machine_with(*recorded)
    read = ask(again)
    written = write(again)
    assert append(again) == []
    again.propose(answer(read))
    assert append(again) == [answer(read), written]


def test_what_is_held_back_counts_as_under_way() -> None:
    """An attempt neither suspends nor ends over it."""
    machine = machine_with()
    machine.issue_lookup(GET, "a", at_ms=1, known=None)
    write(machine)
    assert not machine.stalled
    assert machine.poll() == Execute(0, None)
    assert machine.executing == {0}
    assert not machine.stalled
    machine.propose(answer(0))
    append(machine)
    machine.take()
    assert machine.stalled
    assert machine.poll() == Suspend(frozenset())


def test_a_promise_that_is_asked_for_frees_nothing() -> None:
    """Its answer is none of the state's."""
    machine = machine_with()
    read, peek = ask(machine), ask(machine, PEEK)
    written = write(machine)
    machine.propose(answer(peek, PEEK))
    assert append(machine) == [answer(peek, PEEK)]
    machine.propose(answer(read))
    assert append(machine) == [answer(read), written]
