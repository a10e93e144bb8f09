"""What must reach Kafka: resume records, replies, dead letters. Produced in batches, repeated until acknowledged.

Everything that goes in is in Redis's `due` or is a Kafka record whose offset waits, so a crash here loses nothing;
receivers drop duplicates by id.

Law: one topic never holds up another. A reply topic is named by whoever sends an invocation, and may not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from perdure.schemas.errors import BrokerError, RecordTooLargeError

from .broker import Broker, Outgoing
from .clock import Clock

logger = logging.getLogger(__name__)

BATCH_MAX = 500
"""Records in one produce call."""

WAITING_MAX = 50_000
"""Records that wait for Kafka; beyond it new resume records are left to their redelivery from `due`."""

RETRY_S = 0.5
RETRY_S_MAX = 10.0
"""Between tries while Kafka does not acknowledge, doubling; the broker itself waits for a connection."""


class Replacing(NamedTuple):
    """A record, and what is produced instead where its topic refuses it for its size."""

    outgoing: Outgoing
    instead: Outgoing


class _Item(NamedTuple):
    outgoing: Outgoing
    acknowledged: Callable[[], None] | None
    instead: Outgoing | None = None


class Outbox:
    """A queue to each topic, and for each that is not empty the one task that empties it."""

    def __init__(self, broker: Broker, *, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._topics: dict[str, deque[_Item]] = {}
        self._waiting = 0
        self._begun: list[str] = []
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def put(
        self,
        outgoing: Outgoing,
        acknowledged: Callable[[], None] | None = None,
        *,
        instead: Outgoing | None = None,
    ) -> None:
        """Produce a record.

        Args:
            outgoing: It.
            acknowledged: Called once Kafka has it. Without one nobody depends on this copy, and it is dropped when too
                many wait.
            instead: Produced to the same topic where that refuses the record for its size.
        """
        if acknowledged is None and self._waiting >= WAITING_MAX:
            return
        items = self._topics.get(outgoing.topic)
        if items is None:
            items = self._topics[outgoing.topic] = deque()
            self._begun.append(outgoing.topic)
            self._filled.set()
        items.append(_Item(outgoing, acknowledged, instead))
        self._waiting += 1
        self._emptied.clear()

    async def emptied(self) -> None:
        """Return when everything was acknowledged."""
        await self._emptied.wait()

    async def run(self) -> None:
        """Produce until cancelled."""
        async with asyncio.TaskGroup() as topics:
            while True:
                await self._filled.wait()
                self._filled.clear()
                begun, self._begun = self._begun, []
                for topic in begun:
                    topics.create_task(self._empty(topic))

    async def _empty(self, topic: str) -> None:
        items = self._topics[topic]
        while items:
            batch = [items.popleft() for _ in range(min(BATCH_MAX, len(items)))]
            await self._produce(topic, batch)
            self._waiting -= len(batch)
        del self._topics[topic]
        if not self._topics:
            self._emptied.set()

    async def _produce(self, topic: str, batch: list[_Item]) -> None:
        pause_s = RETRY_S
        while True:
            try:
                await self._broker.produce([item.outgoing for item in batch])
            except RecordTooLargeError as error:
                if len(batch) == 1 and batch[0].instead is not None:
                    logger.warning("a record for %s is too large; a shorter one says so in its place: %s", topic, error)
                    batch = [_Item(batch[0].instead, batch[0].acknowledged)]
                    continue
                if len(batch) == 1:
                    logger.error("a record for %s can never be produced; it stays where it came from: %s", topic, error)
                    return
                for item in batch:
                    await self._produce(topic, [item])
                return
            except BrokerError as error:
                # The broker says once that it is away; here it is only a detail, unless it is this topic's alone.
                level = logging.WARNING if pause_s >= RETRY_S_MAX else logging.DEBUG
                logger.log(level, "records for %s are not acknowledged, producing them again: %s", topic, error)
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_S_MAX)
            else:
                for item in batch:
                    if item.acknowledged is not None:
                        item.acknowledged()
                return
