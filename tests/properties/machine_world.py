"""A world for the journal machine: random programs, a journal that others write to, crashes anywhere. No I/O.

A *program* is a list of races over new and earlier commands; what it asks for next depends on who won and on what was
answered, so that a replay which sees anything else diverges. A *schedule* is a list of rolls (0..99), one for each
moment at which the handler is blocked; when it is used up the world does what is next in good order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Interrupt, Ready, Suspend, Wait
from perdure.schemas.codec import decode, encode
from perdure.schemas.commands import GET, Awakeable, Call, Lookup, SignalWait
from perdure.schemas.entries import (
    AttemptStarted,
    CancelChild,
    Cancelled,
    Completion,
    Entry,
    Input,
    Output,
    Positioned,
    Run,
    Signalled,
    Sleep,
    StepFailed,
    Success,
)

from .machine_programs import CANCELLED, Handler, Program, Seen

CANCELLATIONS_MAX = 2
"""Of one invocation; each is seen, and the handler goes on."""

ATTEMPTS_MAX = 100
"""Above what rolls and suspensions together can need."""


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
    cancellations: int = 0

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
        while isinstance(step := machine.poll(deliver=not handler.finished), Ready | Interrupt):
            if isinstance(step, Ready):
                handler.resolve(step)
            else:
                assert step.dropped == (), "what was dropped is recorded as such"
                assert step.children == (), "callees are told once"
                handler.interrupt()
            handler.advance()
        assert not isinstance(step, Execute), "a replay executes no step again"
        if handler.finished:
            machine.finish()
        else:
            machine.check_blocked()
        assert machine.drain() == [], "a replay appends nothing"
        return handler

    def recorded(self, kind: type[Run | Sleep | Call | SignalWait]) -> list[int]:
        """Indexes of the recorded commands of a kind, as they stand."""
        return [entry.command_index for _, _, entry in self.journal if isinstance(entry, kind)]

    def check_outside(self) -> None:
        """Hold what others wrote, and what was written for others, against the laws about them."""
        told = [(entry.cause, entry.invocation_id) for _, _, entry in self.journal if isinstance(entry, CancelChild)]
        assert len(told) == len(set(told)), "a callee is told once of each cancellation"
        sent = [entry.outcome for _, _, entry in self.journal if isinstance(entry, Signalled)]
        taken = self.replay().signals
        assert taken == sent[: len(taken)], "signals are taken in their order, each once"

    def recorded_waits(self) -> list[int]:
        """Indexes of commands whose result somebody outside brings, as they stand."""
        return [entry.command_index for _, _, entry in self.journal if isinstance(entry, Sleep | Call | Awakeable)]

    def signal(self) -> None:
        """Somebody signals."""
        self.answers += 1
        self._append(0, [Signalled("it", 1, Success(b"signal %d" % self.answers))])

    def cancel(self) -> None:
        """Somebody cancels."""
        self.cancellations += 1
        self._append(0, [Cancelled(1)])

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
        if self.number % 2:
            # A driver may start steps before it hands out what is there.
            while isinstance(step := self.machine.poll(deliver=False), Execute):
                self._execute(*step)
        while True:
            engaged = self.machine.engaged
            step = self.machine.poll(deliver=not self.handler.finished)
            assert not engaged or isinstance(step, Wait), "who is engaged need not be asked"
            match step:
                case Ready() as ready:
                    self.handler.resolve(ready)
                    self.handler.advance()
                case Interrupt() as interrupt:
                    self._interrupt(interrupt)
                case Execute(index, failed):
                    self._execute(index, failed)
                case Suspend() as suspend:
                    assert not self.running, "nothing is suspended while a step runs"
                    assert not self.machine.pending, "nothing is suspended before all of it is appended"
                    return suspend
                case Wait() as wait:
                    return wait

    def _interrupt(self, interrupt: Interrupt) -> None:
        assert not self.running, "a step that runs ends before the handler is told of a cancellation"
        for index in interrupt.dropped:
            self._give_up(index)
        for child in interrupt.children:
            self.machine.propose(CancelChild(1, interrupt.cause, child))
        self.handler.interrupt()
        self.handler.advance()

    def _give_up(self, index: int) -> None:
        if index in self.handler.lookups:
            self.machine.propose(Lookup(GET, index, self.handler.names[index], 1, False, CANCELLED))
        else:
            self.machine.propose(Run(index, self.handler.names[index], 1, 0, CANCELLED))

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
        world, waits = self.world, self.world.recorded_waits()
        if roll is not None and roll < 10:
            if roll < 5:
                world._append(self.number, self.machine.drain())
            return True
        if roll is not None and roll < 35 and waits:
            world.complete(waits[roll % len(waits)])
        elif roll is not None and 35 <= roll < 42:
            world.signal()
        elif roll is not None and 42 <= roll < 50 and world.cancellations < CANCELLATIONS_MAX:
            world.cancel()
        elif roll is not None and 50 <= roll < 60 and self.running:
            self._fail(self.running[roll % len(self.running)])
        elif self.running and (roll is None or 60 <= roll < 80):
            self._succeed(self.running.pop((roll or 0) % len(self.running)))
        elif self.machine.pending:
            self._write(self.machine.drain())
        elif len(world.journal) > self.machine.length:
            self._write([])
        elif suspended:
            # No timer comes to nothing: one that somebody waits for fires, and the next attempt begins.
            assert self.machine.awaiting, "who is suspended waits for something"
            awaited = min(self.machine.awaiting)
            if awaited in waits:
                world.complete(awaited)
            else:
                world.signal()
            return True
        return False

    def _fail(self, index: int) -> None:
        if index in self.handler.lookups:
            return
        if self.machine.cancelling:
            # It would be tried again later, and is given up.
            self.running.remove(index)
            self._give_up(index)
            return
        self.failures += 1
        name = self.handler.names[index]
        self.machine.propose(StepFailed(index, name, 1, self.failures, 10 * self.failures, 5, "boom"))

    def _succeed(self, index: int) -> None:
        self.world.executions += 1
        name, value = self.handler.names[index], Success(b"%d" % self.world.executions)
        if index in self.handler.lookups:
            self.machine.propose(Lookup(GET, index, name, 1, False, value))
        else:
            self.machine.propose(Run(index, name, 1, 2, value))

    def _write(self, entries: list[Entry]) -> None:
        self.world._append(self.number, entries)
        self.machine.receive(self.world.journal[self.machine.length :])
        self.machine.appended()

    def _finish(self) -> None:
        self.world._append(self.number, [*self.machine.drain(), Output(1, Success(b"null"))])
        self.world.stories.append(self.handler.seen)
