"""The attempt's hand on its journal: what the machine wants appended, one append at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from perdure.journal.machine import Machine
from perdure.journal.store import Appended, Claim, Store
from perdure.schemas.commands import Lookup
from perdure.schemas.entries import OUTGOING, Cancelled, Completion, Entry, Run, Signalled, StepFailed
from perdure.schemas.errors import GapError, JournalMismatchError, PerdureError
from perdure.schemas.limits import ENTRIES_PER_APPEND_MAX

logger = logging.getLogger(__name__)


def payload_bytes(entry: Entry) -> int:
    """How many bytes of the author's an entry holds: a result, an argument, a value; no failure."""
    outcome = getattr(entry, "outcome", None)
    return len(getattr(entry if outcome is None else outcome, "value", b""))


LINGER_S = 0.005
"""How long a write of state waits for another append to go with: nobody waits for it."""


_NEWS = (Run, Lookup, Completion, Signalled, Cancelled)
"""What a handler can see."""


class JournalWriter:
    """Appends what the machine drains and feeds it what the store answers.

    All entries that come up in one turn of the loop leave in one append; the next append begins when the last one was
    answered.

    Args:
        claim: What the attempt starts from.
        machine: The attempt's; has received the claim's entries.
        store: Where the journal is.
        on_news: Called when the machine has received something.
        on_loss: Called with the error when an append was refused; nothing is appended after it.
        on_sent: Called with the position of each entry of this attempt that has to reach something beside the journal.
        loop: The running one, where the caller has it at hand.
    """

    # On the class until they are set: most attempts need few of them.
    learned = False
    """Whether this attempt has received a result that it did not start from."""
    progressed = False
    on_progress: Callable[[], None] | None = None
    """Called once, when the first entry of the attempt stands in the journal."""
    """Whether this attempt has appended anything but failures."""
    sends = False
    """Whether this attempt has written anything that has to reach something beside the journal."""
    leaving = False
    """Whether the store is being told to suspend: no action may begin, since its result could not be recorded."""
    _seq = 0
    _scheduled = False
    _closed = False
    _fetching = False
    _in_flight: list[Entry] | None = None
    _lingering: asyncio.TimerHandle | None = None

    def __init__(
        self,
        claim: Claim,
        machine: Machine,
        *,
        store: Store,
        on_news: Callable[[], None],
        on_loss: Callable[[BaseException], None],
        on_sent: Callable[[int, Entry], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.machine = machine
        self.lease = claim.lease
        self._store = store
        self._on_news = on_news
        self._on_loss = on_loss
        self._on_sent = on_sent
        self._loop = loop or asyncio.get_running_loop()
        self._failures = claim.failures
        self.payload_bytes = sum(map(payload_bytes, (row.entry for row in claim.entries)))
        """What the entries of the journal hold, as far as it is known here."""
        self._quiet: list[asyncio.Future[None]] = []

    @property
    def busy(self) -> bool:
        """Whether something is on its way to the store, or has to go there."""
        return self._in_flight is not None or self.machine.pending

    def next_seq(self) -> int:
        """The number of the attempt's next write."""
        self._seq += 1
        return self._seq

    def flush_soon(self) -> None:
        """Append what is pending at the end of this turn of the loop."""
        if not self._scheduled and self._in_flight is None and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def flush_later(self) -> None:
        """Append what is pending with the next append, or in a moment where none comes."""
        if self._lingering is None and not self._closed:
            self._lingering = self._loop.call_later(LINGER_S, self._linger_ended)

    def _linger_ended(self) -> None:
        self._lingering = None
        self.flush_soon()

    @property
    def concludable(self) -> bool:
        """Whether all that is pending can be written with the outcome, and nothing is on its way."""
        return self._in_flight is None and self.machine.pending_count <= ENTRIES_PER_APPEND_MAX - 2

    def flush_now(self) -> None:
        """Append what is pending at once, because nothing else will come up in this turn of the loop."""
        if not self._scheduled:
            self._flush()

    def fetch_soon(self) -> None:
        """Learn what others appended."""
        self._fetching = True
        self.flush_soon()

    async def quiet(self) -> None:
        """Return when nothing is on its way and nothing is pending, or when an append was refused."""
        while self.busy and not self._closed:
            self.flush_soon()
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._quiet.append(waiter)
            await waiter

    def close(self) -> None:
        """Append nothing more."""
        self._closed = True
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._quiet:
            self._wake_waiters()

    def _flush(self) -> None:
        self._scheduled = False
        machine = self.machine
        if self._closed or self._in_flight is not None or not (machine.pending or self._fetching):
            return
        entries = machine.drain()
        resets = False
        for entry in entries:
            if type(entry) is not StepFailed:
                self.progressed = True
                resets, self._failures = self._failures > 0, 0
                break
        self._fetching = False
        self._in_flight = entries
        try:
            self._store.append(
                self.lease, entries, after=machine.length, seq=self.next_seq(), progress=resets
            ).add_done_callback(self._appended)
        except Exception as error:
            # A bug of ours, such as an entry that cannot be encoded: nobody else would end what waits for the answer.
            self._in_flight = None
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        logger.exception("the journal of %s could not be written", self.lease.invocation_id, exc_info=error)
        self.close()
        self._on_loss(error)

    def _appended(self, reply: asyncio.Future[Appended]) -> None:
        entries, self._in_flight = self._in_flight, None
        error = None if reply.cancelled() else reply.exception()
        if self._closed or reply.cancelled():
            self._wake_waiters()
            return
        if error is None:
            try:
                error = self._receive(entries or [], reply.result())
            except JournalMismatchError as mismatch:
                error = mismatch
            except Exception as bug:
                self._broken(bug)
                return
        if error is not None:
            self.close()
            self._on_loss(error)
            return
        if self.progressed and self.on_progress is not None:
            told, self.on_progress = self.on_progress, None
            told()
        if self.machine.pending or self._fetching:
            self.flush_soon()
        if self._quiet:
            self._wake_waiters()
        self._on_news()

    def _receive(self, entries: list[Entry], appended: Appended) -> BaseException | None:
        machine = self.machine
        if appended.tail is None:
            machine.receive_own(entries)
            self.payload_bytes += sum(map(payload_bytes, entries))
            if not self.learned:
                self.learned = any(type(entry) is Run for entry in entries)
        else:
            machine.receive(appended.tail)
            self.payload_bytes += sum(payload_bytes(row.entry) for row in appended.tail)
            self.learned = self.learned or any(
                isinstance(row.entry, Run | Lookup | Completion | Signalled | Cancelled) for row in appended.tail
            )
        machine.appended()
        if self.sends:
            self._tell_sent(entries, appended)
        if machine.length != appended.length:
            return GapError(
                f"The journal of {self.lease.invocation_id} is said to have {appended.length} entries, but "
                f"{machine.length} are known here; abandoning the attempt."
            )
        return None

    def _tell_sent(self, entries: list[Entry], appended: Appended) -> None:
        if appended.tail is None:
            first = appended.length - len(entries) + 1
            rows = [(first + at, entry) for at, entry in enumerate(entries)]
        else:
            # What others bring is nothing that is sent on.
            rows = [(row.position, row.entry) for row in appended.tail if row.epoch == self.lease.epoch]
        for position, entry in rows:
            if isinstance(entry, OUTGOING):
                self._on_sent(position, entry)

    async def stayed(self) -> None:
        """Return when it is known that the invocation was not suspended.

        Raises:
            asyncio.CancelledError: It was, or the journal is out of reach: nothing that begins now could be recorded.
        """
        while self.leaving:
            if self._closed:
                raise asyncio.CancelledError("the invocation was suspended")
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._quiet.append(waiter)
            await waiter

    async def suspend(self, *, wake_in_ms: int | None) -> bool:
        """Suspend the invocation unless something arrived that is not known here; whether it was suspended.

        Nothing may be busy. What arrived instead has been received when this returns.
        """
        assert not self.busy, "an append is under way"
        self._in_flight = []
        self.leaving = True
        try:
            arrived = await self._store.suspend(
                self.lease, [], after=self.machine.length, seq=self.next_seq(), wake_in_ms=wake_in_ms
            )
        except PerdureError as error:
            self.close()
            self._on_loss(error)
            return False
        finally:
            self._in_flight = None
        if arrived is None:
            # Still leaving: what would begin now is cancelled in a moment.
            self.close()
            return True
        self.leaving = False
        # Nothing was written under it.
        self._seq -= 1
        gap = self._receive([], arrived)
        if gap is not None:
            self.close()
            self._on_loss(gap)
            return False
        if self.machine.pending or self._fetching:
            self.flush_soon()
        self._wake_waiters()
        self._on_news()
        return False

    def _wake_waiters(self) -> None:
        waiters, self._quiet = self._quiet, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
