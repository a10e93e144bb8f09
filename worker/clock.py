"""The only time and randomness in Perdure: the engine is handed a `Clock` and a `random.Random`."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Time as the engine sees it; a simulator hands in another."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch on this machine; for display and never for a decision."""

    def monotonic_ms(self) -> float:
        """Milliseconds that never go back; for measuring and waiting."""

    async def sleep(self, seconds: float) -> None:
        """Wait that long; zero or less yields once."""


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        """Milliseconds of the monotonic clock."""
        return time.monotonic() * 1000.0

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep`."""
        await asyncio.sleep(seconds)


def system_random() -> random.Random:
    """A generator seeded by the operating system."""
    return random.SystemRandom()


def seeded_random(seed: str) -> random.Random:
    """A generator that gives the same numbers for the same seed, on every machine. Not for secrets."""
    return random.Random(seed)  # noqa: S311 # to repeat what a handler drew is the point
