"""Looking at deadlines: every worker sweeps its share of the slots, and any slot where it expects something itself."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Sequence

from perdure.journal.store import Due, Store, Swept
from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId, slot_of

from .clock import Clock
from .contact import Contact
from .placement import slots_of

logger = logging.getLogger(__name__)

IDLE_SWEEP_MS = 250
"""A slot is looked at at least this often: a deadline set by another worker is noticed that late at worst. 64 slots
cost 256 small scripts a second in the whole fleet, about half a percent of a core."""

STAND_IN_SWEEP_MS = 1_000
"""A slot is looked at by a second worker this often: the first one may be dead or frozen, which is noticed later. A
worker without slots of its own looks more often, to stay in contact."""

EARLY_MS = 1
"""Added to an expected deadline: the store's clock has whole milliseconds, and an early look must be repeated."""


class Timers:
    """Sweeps slots when they are due.

    Args:
        store: Whose slots.
        clock: For waiting; what is due is decided by the store's clock.
        worker: This worker's id.
        lease_ms: How long leases hold, for how long they are held after an outage (`contact`).
        on_due: Called with what each sweep found.
    """

    def __init__(
        self, store: Store, *, clock: Clock, worker: str, lease_ms: int, on_due: Callable[[Sequence[Due]], None]
    ) -> None:
        self._store = store
        self._contact = Contact(lease_ms=lease_ms)
        self._clock = clock
        self._worker = worker
        self._on_due = on_due
        self._workers: Sequence[str] = ()
        self._slots: frozenset[int] = frozenset(range(store.slots))
        self._stands_in: frozenset[int] = frozenset()
        self._next_ms: dict[int, float] = {}
        self._expected: list[tuple[float, int]] = []
        self._wake = asyncio.Event()

    def share_with(self, workers: Sequence[str]) -> None:
        """These workers live: keep to this one's share of the slots, and stand in for others in some."""
        if workers == self._workers:
            return
        self._workers = workers
        self._slots = slots_of(self._worker, workers=workers, slots=self._store.slots)
        self._stands_in = slots_of(self._worker, workers=workers, slots=self._store.slots, rank=1)
        self._next_ms.clear()
        self._wake.set()

    def expect(self, invocation_id: InvocationId, *, in_ms: float) -> None:
        """Look at the invocation's slot at that moment, whoever's share it is."""
        at_ms = self._clock.monotonic_ms() + max(0.0, in_ms) + EARLY_MS
        earliest = not self._expected or at_ms < self._expected[0][0]
        heapq.heappush(self._expected, (at_ms, slot_of(invocation_id, self._store.slots)))
        if earliest:
            self._wake.set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            slots = self._due_slots()
            if slots:
                await self._sweep(slots)
                continue
            self._wake.clear()
            await self._sleep()

    def _due_slots(self) -> list[int]:
        now_ms = self._clock.monotonic_ms()
        due = {slot for slot in self._slots | self._stands_in if self._next_ms.get(slot, 0.0) <= now_ms}
        while self._expected and self._expected[0][0] <= now_ms:
            due.add(heapq.heappop(self._expected)[1])
        return sorted(due)

    async def _sleep(self) -> None:
        now_ms = self._clock.monotonic_ms()
        looked_at = self._slots | self._stands_in
        next_ms = min((self._next_ms.get(slot, now_ms) for slot in looked_at), default=now_ms + IDLE_SWEEP_MS)
        if self._expected:
            next_ms = min(next_ms, self._expected[0][0])
        try:
            async with asyncio.timeout(max(0.0, next_ms - now_ms) / 1000):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _next_look_ms(self, slot: int, next_in_ms: int | None) -> float:
        now_ms = self._clock.monotonic_ms()
        if slot in self._stands_in and self._slots:
            return (now_ms // STAND_IN_SWEEP_MS + 1) * STAND_IN_SWEEP_MS
        # Idle slots are looked at at the same moments, so that their scripts leave in one write.
        idle_ms = (now_ms // IDLE_SWEEP_MS + 1) * IDLE_SWEEP_MS
        return idle_ms if next_in_ms is None else min(now_ms + next_in_ms + EARLY_MS, idle_ms)

    async def _sweep(self, slots: Sequence[int]) -> None:
        # All are on their way before the first is awaited: one round trip.
        leases_until_ms = self._contact.leases_until_ms
        sweeps: list[Awaitable[Swept]] = [self._store.sweep(slot, leases_until_ms=leases_until_ms) for slot in slots]
        for slot, sweep in zip(slots, sweeps, strict=True):
            try:
                swept = await sweep
            except PerdureError as error:
                # One damaged slot must not stop the others; it is looked at again at the usual pace.
                logger.error("slot %d could not be swept, it is tried again: %s", slot, error)
                self._next_ms[slot] = self._next_look_ms(slot, None)
                continue
            for why in swept.unreadable:
                logger.error("what is due in slot %d cannot be read, and comes again: %s", slot, why)
            self._contact.heard(swept.at_ms)
            self._next_ms[slot] = self._next_look_ms(slot, swept.next_in_ms)
            if swept.due:
                self._on_due(swept.due)
