"""What the tests of the Kafka side share: quick settings, and listeners that write down what they are told."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Sequence

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from perdure.worker.broker import Outgoing, Partition, Record
from perdure.worker.clock import SystemClock
from perdure.worker.kafka import Consumer
from perdure.worker.kafka_broker import KafkaBroker
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.offsets import OffsetTracker
from perdure.worker.topics import TopicPlan, is_resume_topic
from tests.waiting import PATIENCE_S, wait_until

# The embedded broker answers a JoinGroup only after half of it; a loaded machine still gets its heartbeats through.
SESSION_TIMEOUT_MS = 1_500


# Of a partition that was made just now; nothing is written then.
NO_LEADER_YET = (3, 5, 6)


def quick_config(bootstrap_servers: str, namespace: str, **changes: object) -> KafkaConfig:
    """Settings with which a rebalance, an outage and its end are noticed within a test's patience."""
    config = KafkaConfig(
        bootstrap_servers=bootstrap_servers,
        group_id=namespace,
        assignment="manual",
        fetch_max_wait_ms=20,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        rebalance_timeout_ms=3_000,
        commit_timeout_ms=1_500,
        request_timeout_ms=5_000,
        produce_timeout_ms=3_000,
        stop_timeout_ms=1_000,
        probe_interval_ms=100,
        probe_timeout_ms=1_000,
        stuck_after_ms=6_000,
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type] # the fields check themselves


def idle_consumer(config: KafkaConfig) -> Consumer:
    """A consumer that never gets partitions."""

    async def ignore(partitions: object) -> None:
        """Be told of partitions."""

    return Consumer(config, revoked=ignore, assigned=ignore)


def topic_plan(name: str, *, partitions: int = 1) -> TopicPlan:
    """A topic with one replica and the broker's settings."""
    return TopicPlan(name, partitions, 1, ())


def broker_for(config: KafkaConfig, *plans: TopicPlan) -> KafkaBroker:
    """A broker that consumes and creates what is planned."""
    return KafkaBroker(config, topics=[plan.name for plan in plans], plan=plans, clock=SystemClock())


def values(topic: str, numbers: Iterable[int]) -> list[Outgoing]:
    """One record a number; the number is key and value, so that partitions mix."""
    return [Outgoing(topic, b"%d" % number, b"%d" % number) for number in numbers]


def numbers(records: Iterable[Record]) -> list[int]:
    """The numbers that `values` wrote, in the order of `records`."""
    return [int(record.value or b"-1") for record in records]


async def poll(broker: KafkaBroker, *, records_max: int = 500, wait_ms: int = 1_000) -> list[Record]:
    """One poll, resume topics first."""
    return await broker.poll(first=is_resume_topic, records_max=records_max, wait_ms=wait_ms)


async def poll_until(
    broker: KafkaBroker, enough: Callable[[list[Record]], bool], *, timeout_s: float = PATIENCE_S
) -> list[Record]:
    """Everything polled until `enough` says so."""
    records: list[Record] = []
    async with asyncio.timeout(timeout_s):
        while not enough(records):
            records += await poll(broker)
    return records


class Notes:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Partition, ...]]] = []

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Write it down."""
        self.events.append(("revoked", tuple(partitions)))

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Write it down."""
        self.events.append(("assigned", tuple(partitions)))


class Member:
    """A worker in miniature: polls, calls each record done, commits now and then and when partitions are revoked."""

    def __init__(self, config: KafkaConfig, *plans: TopicPlan) -> None:
        self.seen: list[Record] = []
        self.tracker = OffsetTracker()
        self.broker = broker_for(config, *plans)
        self.broker.listen(self)

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Commit for the last time."""
        await self.commit()
        self.tracker.revoked(partitions)

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Start a new table."""
        self.tracker.assigned(partitions)

    async def commit(self) -> None:
        """Commit what is done."""
        offsets = self.tracker.committable()
        if offsets:
            await self.broker.commit(offsets)
            self.tracker.committed(offsets)

    async def step(self) -> None:
        """One round of work."""
        records = await poll(self.broker, wait_ms=50)
        for record in records:
            self.tracker.fetched(record.partition, record.offset)
        for record in reversed(records):
            self.tracker.done(record.partition, record.offset)
        self.seen += records


class AnyName(str):
    """A header's name that may be any bytes, as surrogate escapes: what clients in other languages let through."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """The bytes, whichever they are."""
        return super().encode(encoding, errors)


NOT_UTF8 = AnyName(b"caf\xe9".decode("utf-8", "surrogateescape"))
"""A name in Latin-1."""


def record_batch(records: Sequence[Outgoing], *, codec: int = 0) -> bytes:
    """One batch as a producer sends it; aiokafka's builder in C takes no `AnyName`, the one in Python does."""
    batch = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 1_000_000)
    for at, record in enumerate(records):
        headers = [(AnyName(name), value) for name, value in record.headers]
        batch.append(at, timestamp=1_700_000_000_000 + at, key=record.key, value=record.value, headers=headers)
    return bytes(batch.build())


async def produce_batch(
    bootstrap_servers: str, records: Sequence[Outgoing], *, partition: int = 0, codec: int = 0
) -> None:
    """Write records of one topic as one batch, past everything that aiokafka's producer refuses."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers)
    await client.bootstrap()
    request = ProduceRequest(
        transactional_id=None,
        required_acks=-1,
        timeout=5_000,
        topics=[(records[0].topic, [(partition, record_batch(records, codec=codec))])],
    )

    async def taken() -> bool:
        answer = await client.send(client.get_random_node(), request)
        code = answer.topics[0][1][0][1]
        assert code in (0, *NO_LEADER_YET), code
        return bool(code == 0)

    await wait_until(taken)
    await client.close()
