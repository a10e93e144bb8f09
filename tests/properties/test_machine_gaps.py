"""A changed handler on a journal with gaps: it is found before it does anything, or fits; planted bugs break that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Interrupt, Ready
from perdure.schemas.entries import Command
from perdure.schemas.errors import JournalMismatchError

from .machine_programs import Handler, Kind, Program, Race, programs, schedules
from .machine_world import World
from .test_machine import BOUND

kinds: st.SearchStrategy[Kind] = st.sampled_from(["run", "sleep", "call", "signal", "get", "known get"])
"""What is put in."""

places = st.integers(0, 200)
"""Where, and where the journal ends: counted round."""


def leave_gaps_alone(
    program: Program, rolls: list[int], length: int, put_in: tuple[Kind, int], kind: type[Machine]
) -> None:
    """Have a program with one command more replay a part of another one's journal, and hold it against the law."""
    world = World(program, Machine, rolls)
    world.run()
    at = put_in[1] % (len(program) + 1)
    changed = (*program[:at], Race((put_in[0],)), *program[at:])
    machine, executed = kind(), list[int]()
    machine.receive(world.journal[: 1 + length % len(world.journal)])
    handler = Handler(changed, machine, attempt=99)
    try:
        replay(handler, machine, executed)
    except JournalMismatchError:
        assert not executed, "a changed handler executes nothing"
        assert not [entry for entry in machine.drain() if isinstance(entry, Command)], "it appends no command"


def replay(handler: Handler, machine: Machine, executed: list[int]) -> None:
    """Go as far as the journal goes; steps are started as early as a driver may."""
    handler.advance()
    while True:
        while isinstance(step := machine.poll(deliver=False), Execute):
            executed.append(step.command_index)
        match machine.poll(deliver=not handler.finished):
            case Ready() as ready:
                handler.resolve(ready)
            case Interrupt():
                handler.interrupt()
            case _:
                break
        handler.advance()
    if handler.finished:
        machine.finish()
    else:
        machine.check_blocked()


@given(programs, schedules, places, st.tuples(kinds, places))
def test_a_changed_handler_leaves_gaps_alone(
    program: Program, rolls: list[int], length: int, put_in: tuple[Kind, int]
) -> None:
    """Whatever was put in, wherever the journal ends: nothing is done before it is known to go on with it."""
    leave_gaps_alone(program, rolls, length, put_in, Machine)


class StepsFillGaps(Machine):
    """Planted bug: a step is executed as soon as it is asked for."""

    def next_step(self) -> int | None:
        """See `Machine`."""
        if not self._to_execute:
            return None
        index = self._to_execute.popleft()
        self._executing.add(index)
        return index


class CommandsFillGaps(Machine):
    """Planted bug: a command is appended as soon as it is made."""

    def _write(self, command: Command) -> None:
        self._outbox.append(command)


@pytest.mark.timeout(300)  # bounded by its examples, not by a machine that others load
@pytest.mark.parametrize("kind", [StepsFillGaps, CommandsFillGaps], ids=lambda kind: kind.__name__)
def test_a_gap_that_is_filled_is_noticed(kind: type[Machine]) -> None:
    """The law has teeth: the generator reaches what each bug needs."""

    @BOUND
    @given(programs, schedules, places, st.tuples(kinds, places))
    def law(program: Program, rolls: list[int], length: int, put_in: tuple[Kind, int]) -> None:
        leave_gaps_alone(program, rolls, length, put_in, kind)

    with pytest.raises(AssertionError):
        law()
