"""What an attempt is given besides its claim: its limits, and who looks at its timers."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from perdure.journal.store import Due, Follow
from perdure.schemas.entries import Entry
from perdure.schemas.errors import UsageError
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import JOURNAL_BYTES_MAX, JOURNAL_ENTRIES_MAX, PAYLOAD_BYTES_MAX

from .options import InvocationRetry
from .sealing import Sealer


class TimerSink(Protocol):
    """Who looks at timers: `timers.Timers`."""

    def expect(self, invocation_id: InvocationId, *, in_ms: float) -> None:
        """A deadline of this invocation falls due about then; look at its slot at that moment."""


class Outward(Protocol):
    """Who sees to what has to reach something beside a journal: `engine.Engine`."""

    def send(self, origin: InvocationId, position: int, entry: Entry, *, target: str) -> None:
        """Send the entry at that position of a journal; see `dispatch.Dispatcher.send`."""

    def act(self, due: Sequence[Due]) -> None:
        """Do what a transition of the store has left to do."""

    async def cancel_callees(self, origin: InvocationId, told: Collection[tuple[int, InvocationId]]) -> None:
        """Return when these callees know of their cancellation; see `cancelling.Cancelling.cancel_callees`."""

    def follow(self) -> Follow | None:
        """How the next invocation of an object is claimed with the outcome of the one before; `None`: not here."""


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """What holds for an attempt.

    Attributes:
        inactivity_ms: How long it waits in memory before it is suspended.
        retention_ms: How long the outcome is kept.
        journal_retention_ms: How long the journal is kept.
        retry: The invocation's policy.
        always_replay: Leave after every result, so that each await is replayed. For tests.
        journal_entries_max: A longer journal pauses the invocation.
        journal_bytes_max: So does one that holds more.
        payload_bytes_max: A longer result is refused.
        strict_arguments: A replayed command with other arguments than before pauses, and is not only told. For tests.
        sealer: Of the application's payload codec.
        mains: The handlers, by service and name, that run once for each key: their runs have ids of their own.
    """

    inactivity_ms: int
    retention_ms: int
    journal_retention_ms: int
    retry: InvocationRetry
    always_replay: bool = False
    journal_entries_max: int = JOURNAL_ENTRIES_MAX
    journal_bytes_max: int = JOURNAL_BYTES_MAX
    payload_bytes_max: int = PAYLOAD_BYTES_MAX
    strict_arguments: bool = False
    sealer: Sealer | None = None
    mains: Set[tuple[str, str]] = frozenset()

    def too_long(self, invocation_id: InvocationId, length: int) -> UsageError:
        """What pauses an invocation whose journal has more entries than it may have."""
        return UsageError(
            f"The journal of {invocation_id} has {length} entries; {self.journal_entries_max} are allowed, since each "
            "attempt replays them all. Split the work into several invocations."
        )

    def too_large(self, invocation_id: InvocationId, held_bytes: int) -> UsageError:
        """What pauses an invocation whose journal holds more than it may."""
        return UsageError(
            f"The journal of {invocation_id} holds {held_bytes} bytes; {self.journal_bytes_max} are allowed, since "
            "each attempt reads them all. Keep large values elsewhere, or split the work into several invocations."
        )
