"""Letting the records of many senders go together: a batch costs brokers and clients much, a record in it little."""

from __future__ import annotations

import asyncio
from collections import deque

from .clock import Clock

BUSY_RECORDS, BUSY_MS = 8, 16
"""So many within that time are many: who waits for each outcome before the next call does not send so fast."""

GATHER_MS = 4
"""How long the first of many waits for the next ones."""


class Gathering:
    """Has senders wait a moment where there are many of them, and nobody where there are few.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._came_ms: deque[float] = deque(maxlen=BUSY_RECORDS)
        self._together: asyncio.Event | None = None

    async def pass_(self) -> None:
        """Return when a record may go: at once, or in one turn of the loop with others, in the order of coming."""
        now_ms = self._clock.monotonic_ms()
        self._came_ms.append(now_ms)
        if self._together is not None:
            await self._together.wait()
        elif len(self._came_ms) == BUSY_RECORDS and now_ms - self._came_ms[0] < BUSY_MS:
            together = self._together = asyncio.Event()
            try:
                await self._clock.sleep(GATHER_MS / 1000)
            finally:
                self._together = None
                together.set()
