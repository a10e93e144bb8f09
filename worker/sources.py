"""Consumer groups as an engine reads them: its own, and one for each group of subscriptions.

Law: all of them share the worker's room for attempts. One takes at a time, so that the room is what it is said to be,
and waiting for records is done outside of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from .arrivals import Fetched
from .broker import Broker, Partition
from .clock import Clock
from .committer import Committer
from .intake import Intake
from .subscriptions import Subscription

BATCH_MAX = 500
"""Records taken at once: their admissions are one round trip, a few milliseconds of Redis's time."""

POLL_WAIT_MS = 250
"""How long to wait for a record before looking around again."""

HELD_RETRY_MS = 100
"""Between two tries to admit what a full queue refused: what moves meanwhile is a small part of a queue."""

GATHER_MS = 10
"""Before the next records where those that were taken last all wait, as behind others of their object: it costs them
nothing, and most likely nor the next ones. Ten records at once cost worker and broker little more than one: one hot
object made some 900 adds a second with it, and 630 without."""


B = TypeVar("B", bound=Broker, covariant=True)


@dataclass(frozen=True, slots=True)
class Feed(Generic[B]):
    """One consumer group of subscriptions, and who reads for it."""

    group: str
    subscriptions: Sequence[Subscription]
    broker: B


class Turns:
    """Whose turn it is to take records, in the order of asking.

    Args:
        room: How many attempts may begin; waits until it is at least one.
    """

    def __init__(self, room: Callable[[], Awaitable[int]]) -> None:
        self.room = room
        self.turn = asyncio.Lock()
        self.taking = asyncio.Lock()

    async def end(self, tasks: Sequence[asyncio.Task[None]], *, patience_s: float) -> None:
        """Cancel those who take, between two batches: within one, leases would be left that nobody runs.

        Args:
            tasks: Theirs.
            patience_s: How long to wait for the batch that is being taken.
        """
        try:
            async with asyncio.timeout(patience_s), self.taking:
                for task in tasks:
                    task.cancel()
        except TimeoutError:
            for task in tasks:
                task.cancel()


class Source:
    """One consumer group's way into the engine.

    Args:
        broker: Its records.
        committer: Its offsets.
        intake: What takes its records.
        turns: Shared by all sources of the worker.
        clock: Time.
        first: Which topics are read before all others, and also while no new work is taken.
        admits: Whether new work may be taken now.
    """

    def __init__(
        self,
        broker: Broker,
        committer: Committer,
        intake: Intake,
        *,
        turns: Turns,
        clock: Clock,
        first: Callable[[str], bool],
        admits: Callable[[], bool],
    ) -> None:
        self._admits = admits
        self.committer = committer
        self.intake = intake
        self._broker = broker
        self._turns = turns
        self._clock = clock
        self._first = first
        self._retried_ms = 0.0
        broker.listen(committer)

    async def run(self) -> None:
        """Take records until cancelled."""
        while True:
            await self.committer.room()
            if not await self._take():
                held = self._held()
                await self._broker.wait(wait_ms=HELD_RETRY_MS if held else POLL_WAIT_MS, held=held)

    def _held(self) -> Set[Partition]:
        """The partitions of which nothing is to be fetched now."""
        held = self.intake.held()
        if self._admits():
            return held
        # Its records stay in Kafka. What was admitted before goes on, by way of the topics that are read first.
        return held | {partition for partition in self.committer.partitions if not self._first(partition.topic)}

    async def _take(self) -> bool:
        """Take what there is room for; whether there was any."""
        async with self._turns.turn:
            room = await self._turns.room()
            held = self._held()
            if held and self._admits() and self._clock.monotonic_ms() - self._retried_ms >= HELD_RETRY_MS:
                async with self._turns.taking:
                    await self.intake.take_held(min(room, BATCH_MAX))
                self._retried_ms = self._clock.monotonic_ms()
                room = await self._turns.room()
                held = self._held()
            wanted = min(room, BATCH_MAX)
            records = await self._broker.poll(first=self._first, records_max=wanted, wait_ms=0, held=held)
            if not records:
                return False
            # Before the next await, or a rebalance in between would count them in the wrong generation.
            batch = [Fetched(record, self.committer.fetched(record)) for record in records]
            async with self._turns.taking:
                begun = await self.intake.take(batch)
        if not begun and len(records) < wanted:
            await self._clock.sleep(GATHER_MS / 1000)
        return True
