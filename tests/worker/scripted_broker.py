"""A broker in memory whose refusals a test decides: for the parts of the engine that only speak to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set

from perdure.schemas.errors import BrokerError, RecordTooLargeError
from perdure.worker.broker import NONE_HELD, AssignmentListener, Outgoing, Partition, Record


class ScriptedBroker:
    """Takes what is produced and committed, unless told to refuse it."""

    def __init__(self) -> None:
        self.produced: list[Outgoing] = []
        self.calls: list[list[Outgoing]] = []
        self.committed: list[dict[Partition, int]] = []
        self.refused: set[str] = set()
        self.too_large: set[bytes] = set()
        self.commits_fail = False

    async def wait(self, *, wait_ms: int, held: Set[Partition] = NONE_HELD) -> None:
        """See `Broker.wait`."""
        await asyncio.sleep(wait_ms / 1000)

    async def poll(
        self, *, first: Callable[[str], bool], records_max: int, wait_ms: int, held: Set[Partition] = NONE_HELD
    ) -> list[Record]:
        """See `Broker.poll`."""
        await asyncio.sleep(wait_ms / 1000)
        return []

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """See `Broker.commit`."""
        if self.commits_fail:
            raise BrokerError("not now")
        self.committed.append(dict(offsets))

    async def produce(self, outgoing: Sequence[Outgoing]) -> None:
        """See `Broker.produce`."""
        self.calls.append(list(outgoing))
        await asyncio.sleep(0)
        if any(record.topic in self.refused for record in outgoing):
            raise BrokerError("not this topic")
        if any(record.value in self.too_large for record in outgoing):
            raise RecordTooLargeError("too large")
        self.produced += outgoing

    def listen(self, listener: AssignmentListener) -> None:
        """See `Broker.listen`."""
