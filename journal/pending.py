"""What an attempt has to append, and what of it may not be appended yet. PURE; a part of the machine.

**State is read before what is written after it.** The store answers a read of state while the handler goes on. A write
of state that the handler makes meanwhile is held back until that answer is to be appended, before the write; and so is
each command behind it, since the program's order is the order in which the world sees it. Whatever becomes of the
attempt, a read that has no answer in the journal is asked again by a replay before anything that followed it.

**A gap is filled last.** A command without an entry, in front of one that has one, is held back until the handler has
come to all that is recorded; so is its execution. A handler that never comes so far has changed, and leaves the gap to
the program that fits.
"""

from __future__ import annotations

from collections import deque

from perdure.schemas.commands import GET, STATE_KEYS, ClearAll, ClearState, Lookup, SetState
from perdure.schemas.entries import CancelChild, Command, Entry, Identity, Run, StepFailed
from perdure.schemas.limits import ENTRIES_PER_APPEND_MAX

from .program import Program

_READS = (GET, STATE_KEYS)
_WRITES = (SetState, ClearState, ClearAll)


class Pending(Program):
    """The entries that are on their way into the journal, and the steps whose results will be."""

    __slots__ = ("_in_flight", "_outbox", "_reads", "_to_execute", "_withheld")

    def __init__(self) -> None:
        super().__init__()
        self._outbox: list[Entry] = []
        self._in_flight = 0
        self._to_execute: deque[int] = deque()
        # Reads of state that have no answer, and what waits for them: most attempts have none.
        self._reads: set[int] = set()
        self._withheld: list[Command] = []

    def _next(self, identity: Identity) -> int:
        index = super()._next(identity)
        if self._withheld and index == self._last_recorded:
            self._let_go()
        return index

    def _write(self, command: Command) -> None:
        if self._withheld or self._issued <= self._last_recorded or (self._reads and isinstance(command, _WRITES)):
            self._withheld.append(command)
        else:
            self._outbox.append(command)

    def _asks(self, kind: str, index: int) -> None:
        """The handler has asked the store, and the answer is to be proposed."""
        if kind in _READS:
            self._reads.add(index)

    def propose(self, entry: Run | StepFailed | Lookup | CancelChild) -> None:
        """Something has a result, or failed and will be tried again; it counts once it came back through `receive`."""
        self._outbox.append(entry)
        if self._reads and isinstance(entry, Lookup):
            self._reads.discard(entry.command_index)
            self._let_go()

    def _let_go(self) -> None:
        if self.behind:
            return
        oldest = min(self._reads, default=self._issued)
        held = self._withheld
        free = (
            at for at, command in enumerate(held) if isinstance(command, _WRITES) and command.command_index > oldest
        )
        end = next(free, len(held))
        self._outbox += held[:end]
        del held[:end]

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
    def executable(self) -> bool:
        """Whether there is a step to execute now."""
        return bool(self._to_execute) and not self.behind

    @property
    def deferred(self) -> bool:
        """Whether steps wait for the handler to come to all that is recorded."""
        return bool(self._to_execute) and self.behind

    @property
    def pending_count(self) -> int:
        """How many entries `drain` has to give."""
        return len(self._outbox)

    @property
    def pending(self) -> bool:
        """Whether `drain` has anything to give."""
        return bool(self._outbox)
