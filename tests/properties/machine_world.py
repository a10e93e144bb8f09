"""A world for the journal machine: random programs, a journal that others write to, crashes anywhere. No I/O.

A *program* is a list of races over new and earlier commands; what it asks for next depends on who won and on what was
answered, so that a replay which sees anything else diverges. A *schedule* is a list of rolls (0..99), one for each
moment at which the handler is blocked; when it is used up the world does what is next in good order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hypothesis import strategies as st

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Interrupt, Ready, Suspend, Wait
from perdure.schemas.codec import decode, encode
from perdure.schemas.entries import (
    AttemptStarted,
    Completion,
    Entry,
    Input,
    Outcome,
    Output,
    Positioned,
    Run,
    Sleep,
    StepFailed,
    Success,
)

Kind = Literal["run", "sleep"]


ATTEMPTS_MAX = 100
"""Above what rolls and suspensions together can need."""


class Race(NamedTuple):
    """Ask for `new` commands, then wait for one of them and of `earlier` ones (counted back); or for all of them."""

    new: tuple[Kind, ...]
    earlier: tuple[int, ...] = ()
    all_of_them: bool = False


Program = tuple[Race, ...]

programs: st.SearchStrategy[Program] = st.lists(
    st.builds(
        Race,
        st.lists(st.sampled_from(["run", "run", "sleep"]), max_size=3).map(tuple),
        st.lists(st.integers(1, 4), max_size=2).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(tuple)

schedules = st.lists(st.integers(0, 99), max_size=60)


class Seen(NamedTuple):
    """What the handler saw at the end of a race: who won, with what."""

    winner: int
    outcome: Outcome


class Handler:
    """A program in the middle of being run. Indexes are taken when commands are issued, as `ctx` does.

    Args:
        program: What to do.
        machine: Who is asked.
        attempt: The attempt's number, which the world leaks into what must not matter.
        renamed: A command index whose name is another one than in the other attempts: code that was changed.
    """

    def __init__(self, program: Program, machine: Machine, *, attempt: int, renamed: int | None = None) -> None:
        self.seen: list[Seen] = []
        self.finished = False
        self.names: dict[int, str] = {}
        self._machine = machine
        self._attempt = attempt
        self._renamed = renamed
        self._answers: dict[int, Outcome] = {}
        self._running = self._run(program)

    def advance(self) -> None:
        """Run until all of it is blocked."""
        self.finished = next(self._running, "finished") == "finished"

    def resolve(self, ready: Ready) -> None:
        """Hand over one completion."""
        assert ready.command_index not in self._answers, "a command completed twice"
        self._answers[ready.command_index] = ready.outcome

    def _run(self, program: Program) -> Iterator[str]:
        issued: list[int] = []
        story = ""
        for number, race in enumerate(program):
            new = [self._issue(kind, len(issued) + i, f"{kind} {number} {story}") for i, kind in enumerate(race.new)]
            issued += new
            runners = {*new, *(issued[-back] for back in race.earlier if back <= len(issued))}
            while runners and not self._decided(runners, race):
                yield "blocked"
            # A dict keeps the order in which completions were handed over: the first of the runners in it won.
            winner = next((index for index in self._answers if index in runners), None)
            if winner is not None:
                self.seen.append(Seen(winner, self._answers[winner]))
                story = repr(self.seen[-1])[-40:]

    def _decided(self, runners: set[int], race: Race) -> bool:
        done = [index in self._answers for index in runners]
        return all(done) if race.all_of_them else any(done)

    def _issue(self, kind: Kind, index: int, name: str) -> int:
        name += " changed" if index == self._renamed else ""
        self.names[index] = name
        if kind == "run":
            issued = self._machine.issue_run(name)
        else:
            issued = self._machine.issue_sleep(name, at_ms=self._attempt, duration_ms=1000 + self._attempt)
        assert issued == index, "a command's index is its place in program order"
        return issued


@dataclass
class World:
    """One invocation: its journal, and what was done outside."""

    program: Program
    kind: type[Machine]
    rolls: list[int]
    journal: list[Positioned] = field(default_factory=list)
    stories: list[list[Seen]] = field(default_factory=list)
    executions: int = 0
    answers: int = 0

    def run(self) -> None:
        """Attempt after attempt, until one of them finishes."""
        self._append(0, [Input(1, "w", (), b"null")])
        rolls = iter(self.rolls)
        while not isinstance(self.journal[-1].entry, Output):
            assert len(self.stories) < ATTEMPTS_MAX, "every attempt gets further, or was crashed by a roll"
            _Attempt(self, rolls, number=len(self.stories) + 1).run()

    def replay(self, *, renamed: int | None = None, program: Program | None = None) -> Handler:
        """Run the program against the journal alone: nothing may be executed or asked for anew.

        Raises:
            JournalMismatchError: The handler is not the one that wrote this journal.
        """
        machine = self.kind()
        machine.receive(self.journal)
        handler = Handler(self.program if program is None else program, machine, attempt=99, renamed=renamed)
        handler.advance()
        while isinstance(step := machine.poll(), Ready):
            if not handler.finished:
                handler.resolve(step)
                handler.advance()
        assert not isinstance(step, Execute), "a replay executes no step again"
        if handler.finished:
            machine.finish()
        else:
            machine.check_blocked()
        assert machine.drain() == [], "a replay appends nothing"
        return handler

    def recorded(self, kind: type[Run] | type[Sleep]) -> list[int]:
        """Indexes of the recorded commands of a kind, as they stand."""
        return [entry.command_index for _, _, entry in self.journal if isinstance(entry, kind)]

    def complete(self, index: int) -> None:
        """Somebody outside appends a completion; each time with another answer, so that it shows which one counted."""
        self.answers += 1
        self._append(0, [Completion(index, 1, Success(b"%d" % self.answers))])

    def _append(self, epoch: int, entries: list[Entry]) -> None:
        for entry in entries:
            kind, body = encode(entry)
            read = decode(kind, body)
            assert read == entry, "an entry is read as it was written"
            self.journal.append(Positioned(len(self.journal) + 1, epoch, read))


class _Attempt:
    """One attempt: a driver of the machine as simple as it can be."""

    def __init__(self, world: World, rolls: Iterator[int], *, number: int) -> None:
        self.world = world
        self.rolls = rolls
        self.number = number
        self.machine = world.kind()
        world._append(number, [AttemptStarted(1, "w")])
        self.machine.receive(world.journal)
        self.handler = Handler(world.program, self.machine, attempt=number)
        self.running: list[int] = []
        self.failures = 0

    def run(self) -> None:
        """Until it finishes, crashes or is suspended."""
        self.handler.advance()
        while True:
            step = self._pump()
            if not self.handler.finished:
                self.machine.check_blocked()
            elif not self.running:
                self._finish()
                return
            if self._act(next(self.rolls, None), suspended=isinstance(step, Suspend)):
                self.world.stories.append(self.handler.seen)
                return

    def _pump(self) -> Wait | Suspend:
        while True:
            match self.machine.poll():
                case Ready() as ready:
                    if not self.handler.finished:
                        self.handler.resolve(ready)
                        self.handler.advance()
                case Execute(index, failed):
                    self._execute(index, failed)
                case Suspend() as suspend:
                    assert not self.running, "nothing is suspended while a step runs"
                    assert not self.machine.pending, "nothing is suspended before all of it is appended"
                    return suspend
                case Wait() as wait:
                    return wait
                case Interrupt():
                    raise AssertionError("nobody cancels these programs")

    def _execute(self, index: int, failed: StepFailed | None) -> None:
        assert index not in self.world.recorded(Run), "a step whose result is in the journal is never executed again"
        failures = [
            entry
            for _, _, entry in self.world.journal[: self.machine.length]
            if isinstance(entry, StepFailed) and entry.command_index == index
        ]
        assert failed == (failures[-1] if failures else None), "a step goes on with its recorded counters"
        self.running.append(index)

    def _act(self, roll: int | None, *, suspended: bool) -> bool:
        """Let the world do one thing; returns whether the attempt is over."""
        timers = self.world.recorded(Sleep)
        if roll is not None and roll < 10:
            if roll < 5:
                self.world._append(self.number, self.machine.drain())
            return True
        if roll is not None and roll < 50 and timers:
            self.world.complete(timers[roll % len(timers)])
        elif roll is not None and 50 <= roll < 60 and self.running:
            self._fail(self.running[roll % len(self.running)])
        elif self.running and (roll is None or 60 <= roll < 80):
            self._succeed(self.running.pop((roll or 0) % len(self.running)))
        elif self.machine.pending:
            self._write(self.machine.drain())
        elif len(self.world.journal) > self.machine.length:
            self._write([])
        elif suspended:
            # No timer comes to nothing: one that somebody waits for fires, and the next attempt begins.
            self.world.complete(min(self.machine.awaiting))
            return True
        return False

    def _fail(self, index: int) -> None:
        self.failures += 1
        name = self.handler.names[index]
        self.machine.propose(StepFailed(index, name, 1, self.failures, 10 * self.failures, 5, "boom"))

    def _succeed(self, index: int) -> None:
        self.world.executions += 1
        name = self.handler.names[index]
        self.machine.propose(Run(index, name, 1, 2, Success(b"%d" % self.world.executions)))

    def _write(self, entries: list[Entry]) -> None:
        self.world._append(self.number, entries)
        self.machine.receive(self.world.journal[self.machine.length :])
        self.machine.appended()

    def _finish(self) -> None:
        self.world._append(self.number, [*self.machine.drain(), Output(1, Success(b"null"))])
        self.world.stories.append(self.handler.seen)
