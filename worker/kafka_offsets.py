"""Where a subscription begins: questions about offsets, and what follows from their answers.

Law: a partition with a committed offset goes on there. One without begins where its topic's `start` says, and
`latest` is decided once for all partitions of a topic and remembered: a worker that stops before its first commit, a
second worker and a partition that is added later all read what was produced since then, and nothing of before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from .broker import Partition
from .kafka_closing import fetch_commits
from .kafka_topic_ids import of_former_topic

Start = Literal["earliest", "latest"] | datetime
"""Where a group without committed offsets begins in a topic."""

OffsetQuestion = Callable[[Any, list[Any]], Awaitable[dict[Any, int]]]
"""Asks aiokafka's consumer about partitions of its own type; those without an answer are left out of it."""

Ask = Callable[[OffsetQuestion, Iterable[Partition]], Awaitable[Mapping[Partition, int]]]
"""`kafka.Consumer.ask`."""

Begin = Callable[[Ask, Sequence[Partition]], Awaitable[Mapping[Partition, int]]]
"""Says where partitions begin that must not begin where they were committed, or else at their first record."""

Remember = Callable[[str, Mapping[int, int]], Awaitable[Mapping[int, int]]]
"""Keeps the beginning of a topic for the group, by partition, unless there is one; returns the one that holds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def committed(client: Any, partitions: list[Any]) -> dict[Any, int]:
    """Ask for what the group has committed."""
    found = await asyncio.gather(*(client.committed(tp) for tp in partitions))
    return {tp: offset for tp, offset in zip(partitions, found, strict=True) if offset is not None}


async def ends(client: Any, partitions: list[Any]) -> dict[Any, int]:
    """Ask for the offsets that the next records will have."""
    found: dict[Any, int] = await client.end_offsets(partitions)
    return found


def former(topic_ids: Mapping[str, str]) -> OffsetQuestion:
    """Ask which commits are of other topics than these, by the same names; 0, where to begin instead, for each."""

    async def commits(client: Any, partitions: list[Any]) -> dict[Any, int]:
        found = await fetch_commits(client, [tp for tp in partitions if tp.topic in topic_ids])
        return {tp: 0 for tp, commit in found.items() if of_former_topic(commit.metadata or "", topic_ids[tp.topic])}

    return commits


def since(at_ms: int) -> OffsetQuestion:
    """Ask for the first records with that timestamp or a later one; their ends where there are none."""

    async def first_records(client: Any, partitions: list[Any]) -> dict[Any, int]:
        found = await client.offsets_for_times(dict.fromkeys(partitions, at_ms))
        # Where there is none, the embedded broker says offset 0 of a time before all times.
        first = {tp: each.offset for tp, each in found.items() if each is not None and each.timestamp >= at_ms}
        later = [tp for tp in partitions if tp not in first]
        return first | (await ends(client, later) if later else {})

    return first_records


async def known(client: Any, partitions: list[Any]) -> dict[Any, int]:
    """Ask which partitions the topics of these have; 0 for each."""
    topics = {tp.topic for tp in partitions}
    kind = type(partitions[0])
    return {kind(topic, number): 0 for topic in topics for number in client.partitions_for_topic(topic) or ()}


class Beginnings:
    """Where the partitions of one consumer group begin.

    Args:
        starts: By topic; topics that are not named begin at their first records.
        remember: Where the decision about `latest` is kept.
    """

    def __init__(self, starts: Mapping[str, Start], *, remember: Remember) -> None:
        self._starts = {topic: start for topic, start in starts.items() if start != "earliest"}
        self._remember = remember

    async def __call__(self, ask: Ask, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See `Begin`.

        Raises:
            BrokerError: Kafka did not answer.
            StoreError: What was decided could not be read.
        """
        chosen = [partition for partition in partitions if partition.topic in self._starts]
        if not chosen:
            return {}
        done = await ask(committed, chosen)
        begin: dict[Partition, int] = {}
        for topic in sorted({partition.topic for partition in chosen}):
            fresh = [partition for partition in chosen if partition.topic == topic and partition not in done]
            if fresh:
                begin |= await self._of(topic, ask, fresh)
        return begin

    async def _of(self, topic: str, ask: Ask, fresh: Sequence[Partition]) -> Mapping[Partition, int]:
        start = self._starts[topic]
        if isinstance(start, datetime):
            return await ask(since(-(-(start - _EPOCH) // timedelta(milliseconds=1))), fresh)
        now = await ask(ends, await ask(known, fresh))
        decided = await self._remember(topic, {partition.number: offset for partition, offset in now.items()})
        # One that was added since then is not in it: it begins with its first record.
        return {partition: decided[partition.number] for partition in fresh if partition.number in decided}
