"""What a worker does when Redis runs out of memory: make room, and take no new work. What is in progress goes on.

A full Redis refuses every write: no step could be recorded any more, and nothing could end. So the rest of its memory
is kept for what was begun. Each worker looks for itself; journals are removed by who sweeps their slots.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from perdure.journal.store import Store
from perdure.journal.transitions import Memory, ShedPlace
from perdure.schemas.errors import PerdureError

from .clock import Clock
from .placement import slots_of

logger = logging.getLogger(__name__)

SHED_FROM = 0.75
"""From this share of `maxmemory` on, journals of completed invocations are removed before their retention ends."""

HOLD_FROM = 0.90
"""From this share on, new work waits in Kafka. The rest is for what was admitted before."""

GO_ON_BELOW = 0.87
"""New work is taken again below it: a little less, so that the two do not take turns every second."""

LOOK_S = 1.0
"""Between two looks at the memory: a look costs Redis a tenth of a millisecond."""

ROUND_S = 0.1
"""Between two rounds of removing."""

PACE_MIN, PACE_MAX = 8, 100
"""Journals of one slot in one round: few first, twice as many each time that memory stays short. The most of them take
a slot some tenths of a millisecond, and are 64,000 a second in a namespace of 64 slots."""

BLIND_S = 60.0
"""Before asking again a server that does not tell: an ACL or a managed service may forbid it."""


class Ceiling:
    """Watches the memory of the servers that one worker's store is on.

    Args:
        store: Whose memory.
        clock: For waiting.
        worker: This worker's id.
    """

    def __init__(self, store: Store, *, clock: Clock, worker: str) -> None:
        self._store = store
        self._clock = clock
        self._worker = worker
        self._slots: Sequence[int] = range(store.slots)
        self._places: dict[int, ShedPlace] = {}
        self._removed = 0
        self._pace = 0
        self.waits = ""
        """Why new work waits, for people; empty where it does not."""

    @property
    def admits(self) -> bool:
        """Whether new work may be taken."""
        return not self.waits

    def share_with(self, workers: Sequence[str]) -> None:
        """These workers live: keep to this one's share of the slots."""
        self._slots = sorted(slots_of(self._worker, workers=workers, slots=self._store.slots))

    async def run(self) -> None:
        """Watch until cancelled."""
        blind = False
        while True:
            pause_s = LOOK_S
            try:
                memories = await self._store.memory()
                blind = False
                # Of a cluster the fullest node: on which one a new invocation would be, nobody knows.
                fullest = max(memories, key=lambda memory: memory.share)
                self._hold(fullest)
                short = [slot for slot in self._slots if memories[slot].share >= SHED_FROM]
                if await self._shed(fullest, short):
                    pause_s = ROUND_S
            except PerdureError as error:
                if not blind:
                    logger.warning("nobody watches the memory of Redis, which does not tell it: %s", error)
                blind, pause_s = True, BLIND_S
            await self._clock.sleep(pause_s)

    def _hold(self, memory: Memory) -> None:
        share = memory.share
        if self.admits and share >= HOLD_FROM:
            self.waits = f"Redis has {memory.describe()} in use"
            logger.warning(
                "new work waits in Kafka: %s, and the rest is for what is in progress. Give it memory "
                "(redis-cli CONFIG SET maxmemory ...), shorten retention, or purge what is not needed",
                self.waits,
            )
        elif not self.admits and share < GO_ON_BELOW:
            self.waits = ""
            logger.info("new work is taken again: Redis has %s in use", memory.describe())

    async def _shed(self, memory: Memory, slots: Sequence[int]) -> bool:
        """Remove some journals of slots whose memory is short; whether there may be more to remove."""
        if memory.share < SHED_FROM:
            if self._pace:
                logger.info(
                    "Redis has %s in use; %d journals of completed invocations were removed",
                    memory.describe(),
                    self._removed,
                )
            self._pace = self._removed = 0
            self._places.clear()
            return False
        if not self._pace:
            logger.warning(
                "Redis has %s in use: journals of completed invocations are removed before their retention ends",
                memory.describe(),
            )
        self._pace = min(max(PACE_MIN, 2 * self._pace), PACE_MAX)
        # All are on their way before the first is awaited: one round trip.
        rounds = await asyncio.gather(
            *(self._store.shed(slot, journals_max=self._pace, after=self._places.get(slot)) for slot in slots)
        )
        removed, more = 0, False
        for slot, (count, place) in zip(slots, rounds, strict=True):
            removed += count
            if place is None:
                # At the end: what completes meanwhile is found from the beginning.
                self._places.pop(slot, None)
            else:
                self._places[slot], more = place, True
        self._removed += removed
        return more or removed > 0
