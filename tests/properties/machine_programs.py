"""Random programs for the journal machine, and a handler in the middle of being run. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from hypothesis import strategies as st

from perdure.journal.machine import Machine
from perdure.journal.moves import Ready
from perdure.schemas.commands import GET, Awakeable, Call, SetState, SignalWait
from perdure.schemas.entries import (
    Failure,
    Outcome,
    Success,
)
from perdure.schemas.ids import InvocationId

Kind = Literal["run", "sleep", "call", "awakeable", "signal", "get", "known get", "set"]

CANCELLED = Failure(409, "cancelled")


class Race(NamedTuple):
    """Ask for `new` commands, then wait for one of them and of `earlier` ones (counted back); or for all of them."""

    new: tuple[Kind, ...]
    earlier: tuple[int, ...] = ()
    all_of_them: bool = False


Program = tuple[Race, ...]

programs: st.SearchStrategy[Program] = st.lists(
    st.builds(
        Race,
        st.lists(
            st.sampled_from(
                ["run", "run", "run", "sleep", "sleep", "call", "awakeable", "signal", "get", "known get", "set"]
            ),
            max_size=3,
        ).map(tuple),
        st.lists(st.integers(1, 4), max_size=2).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(tuple)

schedules = st.lists(st.integers(0, 99), max_size=60)


class Seen(NamedTuple):
    """What the handler saw at the end of a race: who won, with what; -1 where it was cancelled meanwhile."""

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
        self.lookups: set[int] = set()
        self.signals: list[Outcome] = []
        """What waits for the signal were answered, in the order in which they were."""
        self._waits: set[int] = set()
        self._interrupted = False
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
        self._answer(ready.command_index, ready.outcome)

    def interrupt(self) -> None:
        """Raise the cancellation where it waits."""
        self._interrupted = True

    def _answer(self, index: int, outcome: Outcome) -> None:
        self._answers[index] = outcome
        if index in self._waits:
            self.signals.append(outcome)

    def _run(self, program: Program) -> Iterator[str]:
        issued: list[int] = []
        written: set[int] = set()
        story = ""
        for number, race in enumerate(program):
            new = [self._issue(kind, len(issued) + i, f"{kind} {number} {story}") for i, kind in enumerate(race.new)]
            issued += new
            writes = {index for index, kind in zip(new, race.new, strict=True) if kind == "set"}
            written |= writes
            runners = {*new, *(issued[-back] for back in race.earlier if back <= len(issued))} - written
            while runners and not self._decided(runners, race) and not self._interrupted:
                yield "blocked"
            if self._interrupted:
                self._interrupted = False
                self.seen.append(Seen(-1, CANCELLED))
                story = f"cancelled {number}"
                continue
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
        machine, outcome = self._machine, None
        assert machine.next_index == index, "a command's index is its place in program order"
        match kind:
            case "run":
                machine.issue_run(name)
            case "sleep":
                machine.issue_sleep(name, at_ms=self._attempt, duration_ms=1000 + self._attempt)
            case "call":
                machine.issue(Call(index, 1, "S", name, None, InvocationId(f"child {index}"), "", (), b"1"))
            case "awakeable":
                # They have no name.
                outcome = machine.issue(Awakeable(index, self._attempt))
                self.names[index] = ""
            case "signal":
                self._waits.add(index)
                outcome = machine.issue(SignalWait(index, 1, "it" if index != self._renamed else "other"))
            case "get" | "known get":
                self.lookups.add(index)
                known = Success(b"known") if kind == "known get" else None
                _, outcome = machine.issue_lookup(GET, name, at_ms=1, known=known)
                assert known is None or outcome is not None, "what is known at the call is answered at the call"
            case "set":
                machine.issue(SetState(index, name, b"%d" % self._attempt))
        if outcome is not None:
            self._answer(index, outcome)
        return index
