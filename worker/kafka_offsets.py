"""Where a subscription begins: questions about offsets, and what follows from their answers.

Law: a partition with a committed offset goes on there. One whose commits Kafka has forgotten goes on where the group
had got to, as Redis remembers it. One of which nobody knows anything begins where its topic's `start` says, and
`latest` is decided once for all partitions of a topic and remembered: a worker that stops before its first commit, a
second worker and a partition that is added later all read what was produced since then, and nothing of before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, Protocol

from perdure.schemas.errors import StoreError

from .broker import Partition
from .kafka_closing import fetch_commits
from .kafka_topic_ids import of_former_topic

Start = Literal["earliest", "latest"] | datetime
"""Where a group without committed offsets begins in a topic."""

OffsetQuestion = Callable[[Any, list[Any]], Awaitable[dict[Any, int]]]
"""Asks aiokafka's consumer about partitions of its own type; those without an answer are left out of it."""

Ask = Callable[[OffsetQuestion, Iterable[Partition]], Awaitable[Mapping[Partition, int]]]
"""`kafka.Consumer.ask`."""

KEEP_MS: Final = 500
"""For keeping what was committed in Redis, too, which answers the worker all the time; the next commit keeps it."""

logger = logging.getLogger(__name__)


class Begin(Protocol):
    """Knows where partitions begin, and is told how far they were read."""

    async def __call__(
        self, ask: Ask, partitions: Sequence[Partition], topic_ids: Mapping[str, str]
    ) -> Mapping[Partition, int]:
        """Say where to begin that is neither a committed offset nor the first record."""

    async def reached(self, offsets: Mapping[Partition, int], topic_ids: Mapping[str, str]) -> None:
        """The group has committed these."""


class KeptOffsets(NamedTuple):
    """Where it is kept how far a group has read, by `<topic id>/<partition>`: `perdure.journal.redis_store.RedisStore`.

    `keep` takes offsets in place of earlier ones, and `kept` returns them, in the order in which they are asked for.
    """

    keep: Callable[[Mapping[str, int]], Awaitable[None]]
    kept: Callable[[Sequence[str]], Awaitable[Sequence[int | None]]]


Remember = Callable[[str, Mapping[int, int]], Awaitable[Mapping[int, int]]]
"""Keeps the beginning of a topic for the group, by partition, unless there is one; returns the one that holds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def committed(client: Any, partitions: list[Any]) -> dict[Any, int]:
    """Ask for what the group has committed, in one request: aiokafka's own question is one for each partition."""
    return {tp: commit.offset for tp, commit in (await fetch_commits(client, partitions)).items()}


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
        offsets: Where it is kept what was read, for when Kafka has forgotten it: it keeps the commits of a group
            without members for `offsets.retention.minutes`. Of topics of which it tells no id nothing is kept, because
            a namesake could be taken for it and lose records.
    """

    def __init__(self, starts: Mapping[str, Start], *, remember: Remember, offsets: KeptOffsets) -> None:
        self._starts = {topic: start for topic, start in starts.items() if start != "earliest"}
        self._remember = remember
        self._offsets = offsets

    async def __call__(
        self, ask: Ask, partitions: Sequence[Partition], topic_ids: Mapping[str, str]
    ) -> Mapping[Partition, int]:
        """See `Begin`.

        Raises:
            BrokerError: Kafka did not answer.
            StoreError: What was decided or read could not be looked up.
        """
        asked = [each for each in partitions if each.topic in self._starts or each.topic in topic_ids]
        done = await ask(committed, asked) if asked else {}
        fresh = [partition for partition in asked if partition not in done]
        begin = await self._forgotten([each for each in fresh if each.topic in topic_ids], topic_ids)
        for topic in sorted({each.topic for each in fresh if each.topic in self._starts}):
            if unknown := [each for each in fresh if each.topic == topic and each not in begin]:
                begin |= await self._of(topic, ask, unknown)
        return begin

    async def reached(self, offsets: Mapping[Partition, int], topic_ids: Mapping[str, str]) -> None:
        """See `Begin`. What cannot be kept is logged, and kept with the next commit."""
        kept = {_place(each, topic_ids): offset for each, offset in offsets.items() if each.topic in topic_ids}
        if not kept:
            return
        try:
            async with asyncio.timeout(KEEP_MS / 1000):
                await self._offsets.keep(kept)
        except (StoreError, TimeoutError) as error:
            logger.debug("what was committed is not kept in Redis, too, this time: %r", error)

    async def _forgotten(self, fresh: Sequence[Partition], topic_ids: Mapping[str, str]) -> dict[Partition, int]:
        if not fresh:
            return {}
        kept = await self._offsets.kept([_place(partition, topic_ids) for partition in fresh])
        known = {each: offset for each, offset in zip(fresh, kept, strict=True) if offset is not None}
        if known:
            what = ", ".join(f"{each.topic}/{each.number} at {offset}" for each, offset in sorted(known.items()))
            logger.warning("Kafka has forgotten offsets that were committed; going on where Redis says: %s", what)
        return known

    async def _of(self, topic: str, ask: Ask, fresh: Sequence[Partition]) -> Mapping[Partition, int]:
        start = self._starts[topic]
        if isinstance(start, datetime):
            return await ask(since(-(-(start - _EPOCH) // timedelta(milliseconds=1))), fresh)
        now = await ask(ends, await ask(known, fresh))
        decided = await self._remember(topic, {partition.number: offset for partition, offset in now.items()})
        # One that was added since then is not in it: it begins with its first record.
        return {partition: decided[partition.number] for partition in fresh if partition.number in decided}


def _place(partition: Partition, topic_ids: Mapping[str, str]) -> str:
    return f"{topic_ids[partition.topic]}/{partition.number}"
