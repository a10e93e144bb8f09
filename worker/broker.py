"""The broker that the engine is handed: what it asks of Kafka, and of whatever simulates Kafka.

Law: the engine knows topics, partitions and offsets through this Protocol only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final, NamedTuple, Protocol

Headers = tuple[tuple[str, bytes | None], ...]
"""Names and values. Bytes of a fetched name that are not UTF-8, which Kafka's protocol asks for and no broker checks,
are surrogate escapes."""

_STRAY_BYTES = re.compile("[\udc80-\udcff]")


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


NONE_HELD: Final[Set[Partition]] = frozenset()


class Record(NamedTuple):
    """One fetched record, exactly as Kafka holds it. `headers` keep order and duplicates."""

    partition: Partition
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Outgoing(NamedTuple):
    """One record to produce. The partition follows from `key`, unless `partition` names one that exists."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


def stray_names(headers: Headers) -> dict[int, bytes]:
    """Return the names that are not UTF-8, as the bytes that they are, by the position of their header."""
    return {
        at: name.encode("utf-8", "surrogateescape")
        for at, (name, _) in enumerate(headers)
        if not name.isascii() and _STRAY_BYTES.search(name)
    }


class AssignmentListener(Protocol):
    """Told of partitions coming and going. Each rebalance revokes all and assigns anew (eager)."""

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """These partitions leave: the last chance to commit. Cut off at two thirds of the rebalance timeout."""

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """These partitions arrive; fetching starts at their committed offsets after this returns."""


class Broker(Protocol):
    """Kafka as the engine sees it. One consumer and one producer per worker process."""

    async def poll(
        self, *, first: Callable[[str], bool], records_max: int, wait_ms: int, held: Set[Partition] = NONE_HELD
    ) -> list[Record]:
        """Return at most `records_max` fetched records, in offset order per partition.

        Records of topics for which `first(topic)` holds come before all others: others are looked at
        only when those have nothing buffered. Waits at most about `wait_ms` for the first record and
        returns `[]` then. An outage makes it return `[]`; it heals by itself. Records of partitions that are `held`
        stay where they are, in order, and hold up no others.

        Cancelling it loses nothing. Await it from one task and account for the records before the next await:
        partitions may be revoked and assigned anew at any await, and then they start at their commits again.
        """

    async def wait(self, *, wait_ms: int, held: Set[Partition] = NONE_HELD) -> None:
        """Return when there may be something to poll, and after about `wait_ms` at the latest. Hands out nothing.

        Await it from the task that polls.
        """

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit that everything below each offset is admitted.

        Partitions that are not held any more are left out: their next owner reads from its own commits.

        Raises:
            BrokerError: The broker refused or did not answer; nothing is known to be committed. Safe to repeat.
        """

    async def produce(self, outgoing: Sequence[Outgoing]) -> None:
        """Return once every record is acknowledged by all in-sync replicas.

        Raises:
            RecordTooLargeError: One is over a limit, so that sending it again cannot help; others may arrive.
            BrokerError: At least one was not acknowledged in time; any of them may still arrive (receivers dedupe).
        """

    def listen(self, listener: AssignmentListener) -> None:
        """Name the one listener; before the broker is entered."""
