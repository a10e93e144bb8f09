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

from perdure.journal.store import Lease, Store
from perdure.schemas.errors import PerdureError

from .clock import Clock

logger = logging.getLogger(__name__)

BEAT_S = 0.2
"""How often the loop shows that it turns."""

RENEWALS_PER_LEASE = 3
"""Two renewals may fail before a lease ends."""

RETRY_S_MAX = 0.5
RETRIES_PER_INTERVAL = 3
"""Between tries while renewing fails: soon after an outage all that runs is renewed, before `contact` lets anybody end
leases again. Two connections a second cost nothing; where leases are short it must be more."""


class BlockingRenewer(Protocol):
    """What the thread renews with: `perdure.journal.renewer.ThreadRenewer`."""

    def renew(self, leases: Sequence[Lease], lease_ms: int) -> list[int | None]:
        """Renew all; for each the journal's length, or `None` where it is lost."""

    def close(self) -> None:
        """Close the connection."""


class HeldLeases(Protocol):
    """What is renewed, and who is told: `engine.Engine` answers with its attempts and its intake."""

    def held(self) -> Sequence[Lease]:
        """Every lease that is held now. Called from any thread."""

    def expected(self) -> Sequence[Lease]:
        """Every lease that was asked for and not answered yet. Called from any thread.

        The answer may wait behind a blocked loop while the lease is running.
        """

    def renewed(self, lease: Lease, length: int | None) -> None:
        """A held lease was renewed, and its journal has that length; `None`: it is lost. Called in the loop."""


class Renewal(Protocol):
    """Keeps leases alive: `ThreadRenewal` in a worker, `LoopRenewal` where everything runs in one thread."""

    async def run(self, leases: HeldLeases) -> None:
        """Renew until cancelled."""


class LoopRenewal:
    """Renews through the store, in the loop: for engines that run in one thread on a simulated clock."""

    def __init__(self, store: Store, *, clock: Clock, lease_ms: int) -> None:
        self._store = store
        self._clock = clock
        self._lease_ms = lease_ms

    async def run(self, leases: HeldLeases) -> None:
        """Renew until cancelled."""
        while True:
            await self._clock.sleep(self._lease_ms / 1000 / RENEWALS_PER_LEASE)
            held = leases.held()
            for lease, length in zip(held, await self._store.renew(held, lease_ms=self._lease_ms), strict=True):
                leases.renewed(lease, length)


class ThreadRenewal:
    """Renews from a thread with a connection of its own, so that a blocked loop does not stop it.

    Args:
        renewer: Makes the thread's own connection; called in the thread.
        clock: For measuring how long the loop has been blocked.
        lease_ms: How long a renewal holds.
        block_ms_max: After so long without a turn of the loop nothing is renewed.
        on_beat: Called each time that the loop shows that it turns.
    """

    def __init__(
        self,
        renewer: Callable[[], BlockingRenewer],
        *,
        clock: Clock,
        lease_ms: int,
        block_ms_max: int,
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_beat = on_beat
        self._renewer = renewer
        self._clock = clock
        self._lease_ms = lease_ms
        self._block_ms_max = block_ms_max
        self._beat_ms = clock.monotonic_ms()
        self._stop = threading.Event()

    async def run(self, leases: HeldLeases) -> None:
        """Renew until cancelled.

        Raises:
            RuntimeError: The thread died, which is a bug of ours: leases would run out unseen.
        """
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._renew_for_ever, args=(loop, leases), name="perdure-leases", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                self._beat_ms = self._clock.monotonic_ms()
                self._on_beat()
                await self._clock.sleep(BEAT_S)
            raise RuntimeError("the thread that renews leases died; the worker must be started anew")
        finally:
            self._stop.set()
            # Bounded by the renewer's own timeout; not awaited for longer, the thread is a daemon.
            await asyncio.to_thread(thread.join, 5.0)

    def _renew_for_ever(self, loop: asyncio.AbstractEventLoop, leases: HeldLeases) -> None:
        renewer = self._renewer()
        failing = False
        interval_s = self._lease_ms / 1000 / RENEWALS_PER_LEASE
        retry_s = min(RETRY_S_MAX, interval_s / RETRIES_PER_INTERVAL)
        while not self._stop.wait(retry_s if failing else interval_s):
            held, expected = leases.held(), leases.expected()
            if not (held or expected):
                continue
            blocked_ms = self._clock.monotonic_ms() - self._beat_ms
            if blocked_ms > self._block_ms_max:
                logger.error(
                    "a handler has blocked the event loop for %d ms; its worker's leases are let go", int(blocked_ms)
                )
                failing = False
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
                loop.call_soon_threadsafe(_answer, leases, held, lengths[: len(held)])
            except RuntimeError:
                # The loop has been closed under us: the worker is gone.
                break
        renewer.close()


def _answer(leases: HeldLeases, held: Sequence[Lease], lengths: Sequence[int | None]) -> None:
    for lease, length in zip(held, lengths, strict=True):
        leases.renewed(lease, length)
