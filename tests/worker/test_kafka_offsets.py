"""Where subscriptions begin: `perdure.worker.kafka_offsets`. On real servers: `integration/test_subscriptions.py`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from perdure.schemas.errors import BrokerError, StoreError
from perdure.worker.broker import Partition
from perdure.worker.kafka_offsets import KEEP_MS, Beginnings, KeptOffsets, OffsetQuestion, Start


class TopicPartition(NamedTuple):
    """As aiokafka's."""

    topic: str
    partition: int


class Found(NamedTuple):
    """As aiokafka's."""

    offset: int
    timestamp: int


class Commit(NamedTuple):
    """As aiokafka's."""

    offset: int
    metadata: str


class Cluster:
    """What a consumer is told: committed offsets, ends, and the first records of a time."""

    def __init__(self) -> None:
        self.commits: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        self.first: dict[TopicPartition, int] = {}
        self.times: list[int] = []
        self.away = False
        self.none: Found | None = None

    @property
    def _coordinator(self) -> Cluster:
        """See aiokafka."""
        return self

    async def fetch_committed_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Commit]:
        """See aiokafka's coordinator."""
        return {tp: Commit(self.commits[tp], "") for tp in partitions if tp in self.commits}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See aiokafka."""
        return {partition: self.ends[partition] for partition in partitions}

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, Found | None]:
        """See aiokafka."""
        self.times += times.values()
        return {tp: Found(self.first[tp], at_ms) if tp in self.first else self.none for tp, at_ms in times.items()}

    def partitions_for_topic(self, topic: str) -> set[int]:
        """See aiokafka."""
        return {tp.partition for tp in self.ends if tp.topic == topic}

    async def ask(self, question: OffsetQuestion, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """As `kafka.Consumer.ask`."""
        if self.away:
            raise BrokerError("Kafka is away")
        found = await question(self, [TopicPartition(*partition) for partition in partitions])
        return {Partition(*tp): offset for tp, offset in found.items()}


class Book:
    """Where beginnings are remembered."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[int, int]] = {}

    async def remember(self, topic: str, offsets: Mapping[int, int]) -> Mapping[int, int]:
        """See `Remember`."""
        return self.kept.setdefault(topic, offsets)


class Shelf:
    """Where it is kept how far was read."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {}
        self.away = False
        self.hangs = False

    async def keep(self, offsets: Mapping[str, int]) -> None:
        """See `KeptOffsets`."""
        if self.hangs:
            await asyncio.Event().wait()
        self._answer()
        self.offsets |= offsets

    async def kept(self, places: Sequence[str]) -> Sequence[int | None]:
        """See `KeptOffsets`."""
        self._answer()
        return [self.offsets.get(place) for place in places]

    def _answer(self) -> None:
        if self.away:
            raise StoreError("Redis is away")


NO_IDS: Mapping[str, str] = {}
IDS = {"t": "id-of-t"}
P0, P1, P2 = (Partition("t", number) for number in range(3))


@pytest.fixture
def cluster() -> Cluster:
    """A topic of two partitions with some records."""
    cluster = Cluster()
    cluster.ends = {TopicPartition("t", 0): 10, TopicPartition("t", 1): 20}
    return cluster


def beginnings(start: Start, book: Book | None = None, shelf: Shelf | None = None) -> Beginnings:
    """Of a subscription to the topic."""
    starts: dict[str, Start] = {"t": start, "other": "earliest"}
    return Beginnings(starts, remember=(book or Book()).remember, offsets=kept_on(shelf or Shelf()))


def kept_on(shelf: Shelf) -> KeptOffsets:
    """It, as it is asked."""
    return KeptOffsets(shelf.keep, shelf.kept)


async def test_the_first_records_need_no_question(cluster: Cluster) -> None:
    """That is where Kafka begins by itself."""
    cluster.away = True
    assert await beginnings("earliest")(cluster.ask, [P0], NO_IDS) == {}
    assert await beginnings("latest")(cluster.ask, [Partition("other", 0)], NO_IDS) == {}


async def test_what_is_committed_counts(cluster: Cluster) -> None:
    """Only partitions without a commit are begun."""
    cluster.commits = {TopicPartition("t", 0): 3}
    assert await beginnings("latest")(cluster.ask, [P0, P1], NO_IDS) == {P1: 20}
    cluster.commits[TopicPartition("t", 1)] = 0
    assert await beginnings("latest")(cluster.ask, [P0, P1], NO_IDS) == {}


async def test_the_end_is_decided_once_for_all_partitions(cluster: Cluster) -> None:
    """A second worker, and the same one later, begin where the first one said, even in partitions it did not hold."""
    book = Book()
    assert await beginnings("latest", book)(cluster.ask, [P0], NO_IDS) == {P0: 10}
    cluster.ends = {tp: end + 5 for tp, end in cluster.ends.items()}
    assert await beginnings("latest", book)(cluster.ask, [P0, P1], NO_IDS) == {P0: 10, P1: 20}


async def test_a_partition_that_is_added_later_begins_with_its_first_record(cluster: Cluster) -> None:
    """Nobody read it before, and everything in it came after the subscription."""
    book = Book()
    await beginnings("latest", book)(cluster.ask, [P0, P1], NO_IDS)
    cluster.ends[TopicPartition("t", 2)] = 7
    assert await beginnings("latest", book)(cluster.ask, [P0, P1, P2], NO_IDS) == {P0: 10, P1: 20}


@pytest.mark.parametrize("none", [None, Found(0, -1)])
async def test_a_time_is_the_first_record_from_then_on(cluster: Cluster, none: Found | None) -> None:
    """Rounded up to milliseconds; where there is none yet, in either broker's words, the end."""
    cluster.none = none
    cluster.first = {TopicPartition("t", 0): 4}
    start = datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert await beginnings(start)(cluster.ask, [P0, P1], NO_IDS) == {P0: 4, P1: 20}
    assert set(cluster.times) == {1_893_456_000_001}


async def test_without_an_answer_nothing_is_begun(cluster: Cluster) -> None:
    """The caller tries again."""
    cluster.away = True
    with pytest.raises(BrokerError):
        await beginnings("latest")(cluster.ask, [P0], NO_IDS)


async def test_several_topics_are_decided_each_by_itself(cluster: Cluster) -> None:
    """One consumer may read several."""
    cluster.ends[TopicPartition("u", 0)] = 1
    starts: dict[str, Any] = {"t": "latest", "u": "latest"}
    book = Book()
    begin = Beginnings(starts, remember=book.remember, offsets=kept_on(Shelf()))
    assert await begin(cluster.ask, [P0, Partition("u", 0)], NO_IDS) == {P0: 10, Partition("u", 0): 1}
    assert book.kept == {"t": {0: 10, 1: 20}, "u": {0: 1}}


@pytest.mark.parametrize("start", ["earliest", "latest", datetime(2030, 1, 1, tzinfo=UTC)])
async def test_what_kafka_has_forgotten_goes_on_where_it_was(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, start: Start
) -> None:
    """Wherever the subscription once began; what is committed counts before it, and who began nothing begins."""
    shelf = Shelf()
    begin = beginnings(start, shelf=shelf)
    await begin.reached({P0: 7, P1: 9}, IDS)
    await begin.reached({P0: 8}, IDS)
    cluster.commits = {TopicPartition("t", 1): 3}
    cluster.ends[TopicPartition("t", 2)] = 0
    assert (await begin(cluster.ask, [P0, P1], IDS)) == {P0: 8}
    assert "t/0 at 8" in caplog.text
    assert (await begin(cluster.ask, [P2], IDS)).get(P2, 0) == 0


async def test_nothing_is_kept_of_topics_without_an_id(cluster: Cluster) -> None:
    """A namesake, of which nothing was read, would lose its records; one with an id of its own has its own place."""
    shelf = Shelf()
    begin = beginnings("earliest", shelf=shelf)
    await begin.reached({P0: 7}, NO_IDS)
    assert shelf.offsets == {}
    await begin.reached({P0: 7}, IDS)
    assert await begin(cluster.ask, [P0], NO_IDS) == {}
    assert await begin(cluster.ask, [P0], {"t": "id-of-its-namesake"}) == {}


@pytest.mark.parametrize("fault", ["away", "hangs"])
async def test_what_cannot_be_kept_holds_nothing_up(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Kafka has it; the next commit is kept again. But nothing begins where what is kept is not known."""
    monkeypatch.setattr("perdure.worker.kafka_offsets.KEEP_MS", KEEP_MS // 50)
    caplog.set_level(logging.DEBUG)
    shelf = Shelf()
    setattr(shelf, fault, True)
    begin = beginnings("earliest", shelf=shelf)
    await begin.reached({P0: 7}, IDS)
    assert "not kept in Redis" in caplog.text
    shelf.away, shelf.hangs = True, False
    with pytest.raises(StoreError):
        await begin(cluster.ask, [P0], IDS)
