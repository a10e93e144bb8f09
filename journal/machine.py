"""The journal machine: decides what a replay and an execution do. PURE: no I/O, no clock, no randomness.

```
received entries --receive()--> +---------+ --poll()--> Ready | Interrupt | Execute | Wait | Suspend
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
- **First completion wins.** Timers and outside completions are at-least-once. One that stands before its command counts
  from that on: whoever knows an awakeable's name may be faster than the journal, or remember what a failover lost.
- **Nothing new before all that is old.** Of commands made at once a later one may be recorded and an earlier one not, a
  step say. What has no entry is executed and appended when the handler has come to every command that is recorded, for
  which it needs no result of that: a handler that has changed is found before it fills a gap that it does not fit.
- **Identity** is the command's type, name, target and state key, never what was read from the world.

Source: Restate's sdk-shared-core (commands, completions, "propose run completion"); h11 (feed, ask, drain).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from perdure.schemas.commands import Awakeable, Call, Lookup, SignalWait
from perdure.schemas.entries import (
    CancelChild,
    Cancelled,
    Completion,
    Entry,
    Identity,
    Outcome,
    PauseAsked,
    Paused,
    Positioned,
    Resumed,
    Run,
    Signalled,
    Sleep,
    StepFailed,
    Unknown,
    Waiting,
    Written,
)
from perdure.schemas.errors import JournalMismatchError
from perdure.schemas.ids import InvocationId

from .moves import WAIT, Execute, Interrupt, Ready, Step, Suspend
from .outside import Outside
from .pending import Pending


class Machine(Pending):
    """One attempt's view of one journal."""

    __slots__ = (
        "_awaiting",
        "_eager",
        "_early",
        "_executing",
        "_failed",
        "_outside",
        "_ready",
        "_replayed",
        "_resolved",
        "_sleeps",
        "length",
        "pause_asked",
    )

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        """How many entries of the journal are known here."""
        self.pause_asked = False
        """Whether an operator wants the invocation to pause."""
        self._resolved: set[int] = set()
        # What is to be handed out, in the order of the journal; an int is the position of a cancellation.
        self._ready: deque[Ready | Signalled | int] = deque()
        self._eager: dict[int, Outcome] = {}
        # Completions that stand before their command: of none, or of one that the store lost and that comes again.
        self._early: dict[int, Outcome] = {}
        self._outside: Outside | None = None
        self._failed: dict[int, StepFailed] = {}
        self._sleeps: dict[int, Sleep] = {}
        self._executing: set[int] = set()
        self._awaiting: set[int] = set()
        self._replayed = 0

    @property
    def replaying(self) -> bool:
        """Whether the handler has not come yet to all that the journal held when `begin` was called."""
        return self._replayed > 0 or self._issued <= self._last_recorded

    @property
    def cancelled_callees(self) -> frozenset[tuple[int, InvocationId]]:
        """The callees that cancellations went on to, each with where its cancellation stands in the journal."""
        return frozenset() if self._outside is None else frozenset(self._outside.told_of)

    def begin(self) -> None:
        """What was received so far is what this attempt replays."""
        self._replayed = len(self._ready)

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
        if type(entry) is Run:
            # The entry of every step, as the tuple that it is: a pattern asks for each field by its name.
            index, name, _, _, outcome = entry
            self._record(index, self._run_identity(name))
            self._complete(index, outcome)
            return
        match entry:
            case Completion(index, _, outcome):
                if index in self._recorded:
                    self._complete(index, outcome)
                else:
                    self._early.setdefault(index, outcome)
            case Sleep(index):
                self._record(index, entry.identity)
                self._sleeps.setdefault(index, entry)
            case StepFailed(index):
                self._failed[index] = entry
            case Lookup():
                self._receive_lookup(entry)
            case Unknown(kind):
                raise JournalMismatchError(
                    index=self._issued, recorded=f"{kind} (of a newer version)", issued="nothing this version knows"
                )
            case _ if isinstance(entry, Waiting | Written):
                self._record_command(entry)
                if self._early and isinstance(entry, Awakeable):
                    self._complete_early(entry.command_index)
            case _:
                self._receive_word(entry)

    def _receive_word(self, entry: Entry) -> None:
        """Take what the outside says to the handler, or about it."""
        match entry:
            case Signalled():
                self._ready.append(entry)
            case Cancelled():
                self._ready.append(self.length)
            case CancelChild(_, cause, invocation_id):
                self._of_outside.told(cause, invocation_id)
            case PauseAsked():
                self.pause_asked = True
            case Paused() | Resumed():
                self.pause_asked = False
            case _:
                pass

    @property
    def _of_outside(self) -> Outside:
        # Most invocations neither call nor are signalled.
        if self._outside is None:
            self._outside = Outside()
        return self._outside

    def _receive_lookup(self, entry: Lookup) -> None:
        index = entry.command_index
        self._record(index, entry.identity)
        if not entry.eager:
            self._complete(index, entry.outcome)
        elif index not in self._resolved:
            self._resolved.add(index)
            self._eager[index] = entry.outcome

    def _complete(self, index: int, outcome: Outcome) -> None:
        if index in self._resolved:
            return
        self._resolved.add(index)
        self._executing.discard(index)
        self._awaiting.discard(index)
        if self._outside is not None:
            self._outside.answered(index)
        self._ready.append(Ready(index, outcome))

    def _complete_early(self, index: int) -> None:
        # Of awakeables, whose names may be known before they are written; what comes before another command is not its
        # result. From here on it counts, in this attempt and in every replay. Before, it would hold up what the handler
        # waits for until it comes to this command.
        if index in self._early:
            self._complete(index, self._early.pop(index))

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
            self._write(self._sleeps[index])
        if index not in self._resolved:
            self._awaiting.add(index)
        return index

    def issue(self, command: Waiting | Written) -> Outcome | None:
        """The handler makes a command, built for `next_index`; its result where it has one already.

        Only a wait for a signal may have one: the signal was handed out to nobody before the handler asked for it.

        Raises:
            JournalMismatchError: The journal has another command at that index.
        """
        index = command.command_index
        assert index == self._issued, f"command {index} is issued as number {self._issued}"
        self._next(command.identity)
        if index not in self._recorded:
            self._write(command)
        if isinstance(command, Written) or index in self._resolved:
            return None
        if isinstance(command, SignalWait):
            signal = self._of_outside.wait(command.name, index)
            if signal is not None:
                self._resolved.add(index)
                return signal
        elif isinstance(command, Call):
            self._of_outside.call(index, command.invocation_id)
        self._awaiting.add(index)
        return None

    def issue_lookup(self, kind: str, name: str, *, at_ms: int, known: Outcome | None) -> tuple[int, Outcome | None]:
        """The handler asks the store; returns the command index, and the answer where it is there already.

        Args:
            kind: One of `LOOKUPS`.
            name: Of the state or the promise.
            at_ms: Now, for display.
            known: The answer where this attempt knows it without asking. Recorded with the next append, and there at
                once in every replay, too; a recorded answer goes before it.

        Raises:
            JournalMismatchError: The journal has another command at that index.
        """
        index = self._next(Identity(kind, name))
        if index in self._eager:
            return index, self._eager.pop(index)
        if index in self._resolved:
            return index, None
        if known is None:
            self._to_execute.append(index)
            self._asks(kind, index)
        else:
            self._resolved.add(index)
            self._write(Lookup(kind, index, name, at_ms, True, known))
        return index, known

    @property
    def deliverable(self) -> bool:
        """Whether `take` has something to do."""
        if not self._ready:
            return False
        head = self._ready[0]
        if type(head) is Ready:
            return head.command_index < self._issued
        # A step that runs ends first: its effect must be known before the handler is told of a cancellation.
        return not (isinstance(head, int) and self._executing)

    @property
    def cancelling(self) -> bool:
        """Whether a cancellation is what would be handed out next."""
        return bool(self._ready) and isinstance(self._ready[0], int)

    def take(self) -> Ready | Interrupt | None:
        """What to hand to the handler, all of which must be blocked; `None`: nothing.

        A signal that nobody waits for is kept here for who will ask for it.
        """
        while self.deliverable:
            head = self._ready.popleft()
            self._replayed -= 1
            if isinstance(head, Ready):
                return head
            if isinstance(head, int):
                dropped: tuple[int, ...] = ()
                if not self.behind:
                    dropped, self._to_execute = tuple(self._to_execute), deque()
                return self._of_outside.interrupt(head, dropped)
            index = self._of_outside.signal(head.name, head.outcome)
            if index is not None:
                self._resolved.add(index)
                self._awaiting.discard(index)
                return Ready(index, head.outcome)
        return None

    def sleeping(self, index: int) -> Sleep:
        """The timer at `index`, as it was first asked for."""
        return self._sleeps[index]

    @property
    def unfired(self) -> list[int]:
        """Command indices of timers that have not fired."""
        return sorted(index for index in self._awaiting if index in self._sleeps)

    def resolved(self, index: int) -> bool:
        """Whether the journal holds a result for the command at `index`."""
        return index in self._resolved

    def poll(self, *, deliver: bool = True) -> Step:
        """What to do next; see the contract above.

        With `deliver=False` never `Ready` or `Interrupt`: to start steps while the handler may still be running.
        """
        if deliver and self._ready and (handed := self.take()) is not None:
            return handed
        index = self.next_step()
        if index is not None:
            return Execute(index, self._failed.get(index))
        if self._executing or self._outbox or self._in_flight:
            return WAIT
        return Suspend(frozenset(self._awaiting))

    def next_step(self) -> int | None:
        """The command index of the next step to execute, as `poll` would answer it after all that is `Ready`."""
        if not self._to_execute or self._issued <= self._last_recorded:
            return None
        index = self._to_execute.popleft()
        self._executing.add(index)
        return index

    def failed(self, index: int) -> StepFailed | None:
        """The last recorded failure of the step at `index`."""
        return self._failed.get(index)

    @property
    def engaged(self) -> bool:
        """Whether `poll` would answer `Wait` because a step runs, with nothing recorded that is still to come."""
        return bool(self._executing) and not (self._ready or self._to_execute) and self._issued > self._last_recorded

    @property
    def stalled(self) -> bool:
        """Whether `poll(deliver=False)` would answer `Suspend`; asking starts nothing."""
        return not (self.executable or self._executing or self._outbox or self._in_flight)

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
