"""The journal machine: decides what a replay and an execution do. PURE: no I/O, no clock, no randomness.

```
received entries --receive()--> +---------+ --poll()--> Ready | Execute | Wait | Suspend
handler commands --issue()----> | Machine |
run results -----propose()----> +---------+ --drain()-> entries to append
```

The machine's contract with its driver:

1. Feed every entry of the journal to `receive`, in journal order, each once, own appends included.
2. Call `issue` when the handler makes a command, synchronously, in program order.
3. After each of those ask `poll` until it answers `Wait` or `Suspend`. `Ready` hands one completion to the handler:
   let the handler run until all of it is blocked before asking again, or a replay could see two results where the
   first attempt saw one. `Execute` starts a step; `propose` its result.
4. Append what `drain` returns, one append at a time, and feed what the store answers to `receive`.

Laws (tests/properties/test_machine.py tries to break each):

- **Position in the journal is the only order.** Completions reach the handler in the order in which they stand there,
  in this attempt and in every replay, so whoever won a race wins it again.
- **Propose, then learn.** A step's result is invisible until it came back through `receive`. Otherwise this attempt
  could see its own result before a timer that another writer appended first, and every replay the timer first.
- **First completion wins.** Timers and outside completions are at-least-once.
- **Identity** is the command's type, name, target and state key, never what was read from the world.

Source: Restate's sdk-shared-core (commands, completions, "propose run completion"); h11 (feed, ask, drain).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from perdure.schemas.entries import (
    Completion,
    Entry,
    Identity,
    Outcome,
    Output,
    Positioned,
    Run,
    Sleep,
    StepFailed,
    Unknown,
)
from perdure.schemas.errors import JournalMismatchError
from perdure.schemas.limits import ENTRIES_PER_APPEND_MAX


class Ready(NamedTuple):
    """Hand this outcome to the future of the command at that index, then let the handler run until it is blocked."""

    command_index: int
    outcome: Outcome


class Execute(NamedTuple):
    """Run the step at `command_index` now. `failed` is its last recorded failure, whose counters go on."""

    command_index: int
    failed: StepFailed | None


class Wait(NamedTuple):
    """Something here is under way: a step, or entries that have not come back from the store."""


class Suspend(NamedTuple):
    """Nothing here can make progress; only the outside can complete one of these commands."""

    awaiting: frozenset[int]


Step = Ready | Execute | Wait | Suspend

_WAIT = Wait()


class Machine:
    """One attempt's view of one journal."""

    __slots__ = (
        "_awaiting",
        "_executing",
        "_failed",
        "_identities",
        "_in_flight",
        "_issued",
        "_last_recorded",
        "_outbox",
        "_output",
        "_ready",
        "_recorded",
        "_resolved",
        "_sleeps",
        "_to_execute",
        "length",
    )

    def __init__(self) -> None:
        self.length = 0
        """How many entries of the journal are known here."""
        self._identities: dict[str, Identity] = {}
        self._recorded: dict[int, Identity] = {}
        self._resolved: set[int] = set()
        self._ready: deque[Ready] = deque()
        self._failed: dict[int, StepFailed] = {}
        self._sleeps: dict[int, Sleep] = {}
        self._issued = 0
        self._last_recorded = -1
        self._to_execute: deque[int] = deque()
        self._executing: set[int] = set()
        self._awaiting: set[int] = set()
        self._outbox: list[Entry] = []
        self._in_flight = 0
        self._output: Outcome | None = None

    @property
    def replaying(self) -> bool:
        """Whether the journal holds commands or results that the handler has not come to yet."""
        return self._issued <= self._last_recorded or bool(self._ready)

    @property
    def output(self) -> Outcome | None:
        """The recorded outcome, once the journal has one."""
        return self._output

    @property
    def executing(self) -> frozenset[int]:
        """Steps that `Execute` handed out and whose results have not come back yet."""
        return frozenset(self._executing)

    @property
    def awaiting(self) -> frozenset[int]:
        """Issued commands that only the outside can complete and that are not complete yet."""
        return frozenset(self._awaiting)

    def receive(self, entries: Iterable[Positioned]) -> None:
        """Take entries as they stand in the journal, continuing where the last ones ended."""
        for position, _, entry in entries:
            assert position == self.length + 1, f"entry {position} after {self.length}"
            self.receive_next(entry)

    def receive_own(self, entries: Iterable[Entry]) -> None:
        """Take drained entries that the store appended exactly after what was known."""
        for entry in entries:
            self.receive_next(entry)

    def receive_next(self, entry: Entry) -> None:
        """Take the journal's next entry."""
        self.length += 1
        match entry:
            case Run(index, name, _, _, outcome):
                self._record(index, self._run_identity(name))
                self._complete(index, outcome)
            case Completion(index, _, outcome):
                self._complete(index, outcome)
            case Sleep(index):
                self._record(index, entry.identity)
                self._sleeps.setdefault(index, entry)
            case StepFailed(index):
                self._failed[index] = entry
            case Output(_, outcome):
                self._output = outcome
            case Unknown(kind):
                raise JournalMismatchError(
                    index=self._issued, recorded=f"{kind} (of a newer version)", issued="nothing this version knows"
                )
            case _:
                pass

    def _run_identity(self, name: str) -> Identity:
        # Most handlers use few names; building an identity costs more than finding it.
        identity = self._identities.get(name)
        if identity is None:
            identity = self._identities[name] = Identity("run", name)
        return identity

    def _record(self, index: int, identity: Identity) -> None:
        self._recorded.setdefault(index, identity)
        self._last_recorded = max(self._last_recorded, index)

    def _complete(self, index: int, outcome: Outcome) -> None:
        if index in self._resolved:
            return
        self._resolved.add(index)
        self._executing.discard(index)
        self._awaiting.discard(index)
        self._ready.append(Ready(index, outcome))

    def issue_run(self, name: str) -> int:
        """The handler asks for a step; returns its command index.

        Raises:
            JournalMismatchError: The journal has another command at that index.
        """
        index = self._next(self._run_identity(name))
        if index not in self._resolved:
            self._to_execute.append(index)
        return index

    def issue_sleep(self, name: str, *, at_ms: int, duration_ms: int) -> int:
        """The handler asks for a timer; returns its command index.

        Raises:
            JournalMismatchError: The journal has another command at that index.
        """
        index = self._next(Identity("sleep", name))
        if index not in self._recorded:
            self._sleeps[index] = Sleep(index, name, at_ms, duration_ms)
            self._outbox.append(self._sleeps[index])
        if index not in self._resolved:
            self._awaiting.add(index)
        return index

    def _next(self, identity: Identity) -> int:
        index = self._issued
        recorded = self._recorded.get(index)
        if recorded is not None and recorded != identity:
            raise JournalMismatchError(index=index, recorded=str(recorded), issued=str(identity))
        self._issued = index + 1
        return index

    @property
    def deliverable(self) -> bool:
        """Whether `poll` would answer `Ready`."""
        return bool(self._ready) and self._ready[0].command_index < self._issued

    def sleeping(self, index: int) -> Sleep:
        """The timer at `index`, as it was first asked for."""
        return self._sleeps[index]

    def resolved(self, index: int) -> bool:
        """Whether the journal holds a result for the command at `index`."""
        return index in self._resolved

    def poll(self, *, deliver: bool = True) -> Step:
        """What to do next; see the contract above.

        With `deliver=False` never `Ready`: to start steps while the handler may still be running.
        """
        if deliver and self.deliverable:
            return self._ready.popleft()
        index = self.next_step()
        if index is not None:
            return Execute(index, self._failed.get(index))
        if self._executing or self._outbox or self._in_flight:
            return _WAIT
        return Suspend(frozenset(self._awaiting))

    def next_step(self) -> int | None:
        """The command index of the next step to execute, as `poll` would answer it after all that is `Ready`."""
        if not self._to_execute:
            return None
        index = self._to_execute.popleft()
        self._executing.add(index)
        return index

    def failed(self, index: int) -> StepFailed | None:
        """The last recorded failure of the step at `index`."""
        return self._failed.get(index)

    @property
    def stalled(self) -> bool:
        """Whether `poll(deliver=False)` would answer `Suspend`; asking starts nothing."""
        return not (self._to_execute or self._executing or self._outbox or self._in_flight)

    def check_blocked(self) -> None:
        """To be called when all of the handler waits for commands and `poll` has nothing `Ready`.

        Proof that a recorded command which was not issued yet means divergence: when it was issued, the handler had
        been handed only completions that stand before it; all of those have been handed out again now, or the first
        of them belongs to a command that was not issued either, to which the same argument applies.

        Raises:
            JournalMismatchError: The journal goes on, but the handler waits for something else.
        """
        if self._issued <= self._last_recorded and not self.deliverable:
            raise self._skipped("waits for an earlier command")

    def finish(self) -> None:
        """To be called when the handler returned or raised.

        Raises:
            JournalMismatchError: The journal has commands that the handler never came to.
        """
        if self._issued <= self._last_recorded:
            raise self._skipped("ended")

    def _skipped(self, what: str) -> JournalMismatchError:
        index = next(i for i in range(self._issued, self._last_recorded + 1) if i in self._recorded)
        return JournalMismatchError(index=index, recorded=str(self._recorded[index]), issued=f"the handler {what}")

    def propose(self, entry: Run | StepFailed) -> None:
        """A step has a result, or failed and will be tried again; it counts once it came back through `receive`."""
        self._outbox.append(entry)

    def drain(self, entries_max: int = ENTRIES_PER_APPEND_MAX) -> list[Entry]:
        """What to append now, oldest first. One append at a time: `appended` before the next."""
        entries = self._outbox
        if len(entries) > entries_max:
            entries, self._outbox = entries[:entries_max], entries[entries_max:]
        else:
            self._outbox = []
        self._in_flight = len(entries)
        return entries

    def appended(self) -> None:
        """The drained entries are in the journal, and came back through `receive`."""
        self._in_flight = 0

    @property
    def pending(self) -> bool:
        """Whether `drain` has anything to give."""
        return bool(self._outbox)
