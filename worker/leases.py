"""Keeping leases alive from a thread, so that a handler that blocks the event loop is not taken for dead.

A limit on how long it may block still holds: when the loop has not turned for `block_ms_max`, renewing stops and the
invocations go to other workers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from perdure.journal.store import Lease
from perdure.schemas.errors import PerdureError

from .clock import Clock

logger = logging.getLogger(__name__)

BEAT_S = 0.2
"""How often the loop shows that it turns."""

RENEWALS_PER_LEASE = 3
"""Two renewals may fail before a lease ends."""


class BlockingRenewer(Protocol):
    """What the thread renews with: `perdure.journal.renewer.ThreadRenewer`."""

    def renew(self, leases: Sequence[Lease], lease_ms: int) -> list[int | None]:
        """Renew all; for each the journal's length, or `None` where it is lost."""

    def close(self) -> None:
        """Close the connection."""


class LeaseKeeper:
    """Renews what `leases` names, until cancelled.

    Args:
        renewer: Makes the thread's own connection; called in the thread.
        leases: Every lease that is held now. Called in the thread, so that a handler that blocks the loop from its
            first instant keeps its lease, too.
        expected: Every lease that was asked for and not answered yet; likewise. The answer may wait behind a blocked
            loop while the lease is running.
        on_answer: Called in the loop with each held lease and its journal's length, `None` where it is lost.
        clock: For measuring how long the loop has been blocked.
        lease_ms: How long a renewal holds.
        block_ms_max: After so long without a turn of the loop nothing is renewed.
    """

    def __init__(
        self,
        renewer: Callable[[], BlockingRenewer],
        *,
        leases: Callable[[], Sequence[Lease]],
        expected: Callable[[], Sequence[Lease]],
        on_answer: Callable[[Lease, int | None], None],
        clock: Clock,
        lease_ms: int,
        block_ms_max: int,
    ) -> None:
        self._renewer = renewer
        self._leases = leases
        self._expected = expected
        self._on_answer = on_answer
        self._clock = clock
        self._lease_ms = lease_ms
        self._block_ms_max = block_ms_max
        self._beat_ms = clock.monotonic_ms()
        self._stop = threading.Event()

    async def run(self) -> None:
        """Renew until cancelled."""
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._renew_for_ever, args=(loop,), name="perdure-leases", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                self._beat_ms = self._clock.monotonic_ms()
                await self._clock.sleep(BEAT_S)
            raise RuntimeError("the thread that renews leases died; the worker must be started anew")
        finally:
            self._stop.set()
            # Bounded by the renewer's own timeout; not awaited for longer, the thread is a daemon.
            await asyncio.to_thread(thread.join, 5.0)

    def _renew_for_ever(self, loop: asyncio.AbstractEventLoop) -> None:
        renewer = self._renewer()
        failing = False
        interval_s = self._lease_ms / 1000 / RENEWALS_PER_LEASE
        while not self._stop.wait(interval_s):
            held, expected = self._leases(), self._expected()
            if not (held or expected):
                continue
            blocked_ms = self._clock.monotonic_ms() - self._beat_ms
            if blocked_ms > self._block_ms_max:
                logger.error(
                    "a handler has blocked the event loop for %d ms; its worker's leases are let go", int(blocked_ms)
                )
                continue
            try:
                lengths = renewer.renew([*held, *expected], self._lease_ms)
            except PerdureError as error:
                if not failing:
                    logger.warning("leases cannot be renewed, trying again: %s", error)
                failing = True
                continue
            failing = False
            try:
                # Of those that are only expected, nothing can be learnt: they may not have been given yet.
                loop.call_soon_threadsafe(self._answer, held, lengths[: len(held)])
            except RuntimeError:
                # The loop has been closed under us: the worker is gone.
                break
        renewer.close()

    def _answer(self, leases: Sequence[Lease], lengths: Sequence[int | None]) -> None:
        for lease, length in zip(leases, lengths, strict=True):
            self._on_answer(lease, length)
