"""What must reach Kafka: resume records, replies, dead letters. Produced in batches, repeated until acknowledged.

Everything that goes in is in Redis's `due` or is a Kafka record whose offset waits, so a crash here loses nothing;
receivers drop duplicates by id.
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
"""Between tries while Kafka does not acknowledge; the broker itself waits for a connection."""


class _Item(NamedTuple):
    outgoing: Outgoing
    acknowledged: Callable[[], None] | None


class Outbox:
    """A queue to Kafka, and the one task that empties it."""

    def __init__(self, broker: Broker, *, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._items: deque[_Item] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def put(self, outgoing: Outgoing, acknowledged: Callable[[], None] | None = None) -> None:
        """Produce a record; `acknowledged` is called once Kafka has it.

        Without `acknowledged` nobody depends on this copy, and it is dropped when too many wait.
        """
        if acknowledged is None and len(self._items) >= WAITING_MAX:
            return
        self._items.append(_Item(outgoing, acknowledged))
        self._filled.set()
        self._emptied.clear()

    async def emptied(self) -> None:
        """Return when everything was acknowledged."""
        await self._emptied.wait()

    async def run(self) -> None:
        """Produce until cancelled."""
        while True:
            await self._filled.wait()
            batch = [self._items.popleft() for _ in range(min(BATCH_MAX, len(self._items)))]
            await self._produce(batch)
            if not self._items:
                self._filled.clear()
                self._emptied.set()

    async def _produce(self, batch: list[_Item]) -> None:
        while batch:
            try:
                await self._broker.produce([item.outgoing for item in batch])
            except RecordTooLargeError as error:
                batch = await self._one_by_one(batch, error)
            except BrokerError as error:
                # The broker says once that it is away; here it is only a detail.
                logger.debug("Kafka did not acknowledge, producing again", extra={"error": str(error)})
                await self._clock.sleep(RETRY_S)
            else:
                for item in batch:
                    if item.acknowledged is not None:
                        item.acknowledged()
                return

    async def _one_by_one(self, batch: list[_Item], error: RecordTooLargeError) -> list[_Item]:
        """Produce what can be produced; what never can be is reported and let go of."""
        if len(batch) == 1:
            logger.error(
                "a record for %s can never be produced and is kept where it came from: %s",
                batch[0].outgoing.topic,
                error,
            )
            return []
        for item in batch:
            await self._produce([item])
        return []
