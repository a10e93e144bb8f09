"""How the work of a namespace stands: what is not ended, what is left behind, and journals for people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition

from perdure.journal.inspection import InvocationView, rows_of, view_of
from perdure.journal.keys import STATUSES, Keys
from perdure.journal.redis_admin import opened
from perdure.journal.redis_store import RedisStore
from perdure.schemas.ids import InvocationId
from perdure.worker.kafka_admin import describe_cluster
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.kafka_connection import connection
from perdure.worker.settings import Settings

INVOCATIONS_MAX = 100_000
SHOWN_MAX = 6
"""Invocations whose journals a failure shows: what blocks the others is among the oldest."""


async def progress(store: RedisStore, settings: Settings) -> tuple[int, list[InvocationView]]:
    """How many have completed and are still kept, and all that have not."""
    unfinished = [
        view_of(summary)
        for status in STATUSES
        if status != "completed"
        for summary in await store.list_invocations(status, invocations_max=INVOCATIONS_MAX)
    ]
    keys = Keys(settings.namespace, slots=store.slots)
    count = 0
    for slot in range(store.slots):
        async with opened(settings.redis_config, keys.prefix(slot)) as line:
            count += await line.ask("ZCARD", keys.status(slot, "completed"))
    return count, unfinished


async def left_behind(store: RedisStore, settings: Settings) -> list[str]:
    """Keys of objects that are held or waited for, and deadlines, none of which is to be there at the end."""
    keys = Keys(settings.namespace, slots=store.slots)
    found: list[str] = []
    async with opened(settings.redis_config) as line:
        for slot in range(store.slots):
            due = await line.ask("ZRANGE", keys.due(slot), 0, -1)
            found += [member.decode() for member in due]
        for kind in ("object", "queue"):
            pattern = f"{settings.namespace}:{{*}}:{kind}:*"
            found += [key.decode() for key in await line.ask("KEYS", pattern)]
    return found


async def journals(store: RedisStore, views: Sequence[InvocationView]) -> str:
    """The journals of the oldest of these that are not merely waiting for their turn."""
    lines = []
    # The one that began first and moves no more holds up the others.
    for view in sorted(views, key=lambda view: (view.status == "pending", view.admitted_at_ms or 0))[:SHOWN_MAX]:
        lines.append(f"{view.target} {view.key or ''} {view.id} is {view.status}: {view.last_failure or ''}")
        rows = rows_of(await store.read_journal(InvocationId(view.id)))
        lines += [
            f"  {row.position:3} {row.attempt:3} {row.type} {row.name} {row.result} {row.failure}" for row in rows
        ]
    return "\n".join(lines)


async def lag(config: KafkaConfig, topics: Sequence[str]) -> dict[str, int]:
    """Of each partition in which the group has not committed everything, how many records are left.

    Raises:
        BrokerError: Kafka is not reachable.
    """
    async with _reader(config) as consumer:
        partitions = await _partitions(config, topics)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        committed = {partition: await consumer.committed(partition) or 0 for partition in partitions}
    return {f"{p.topic}/{p.partition}": end - committed[p] for p, end in ends.items() if end > committed[p]}


async def records_ever(config: KafkaConfig, topic: str) -> int:
    """How many records a topic has been given.

    Raises:
        BrokerError: Kafka is not reachable.
    """
    async with _reader(config) as consumer:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(await _partitions(config, [topic]))
    return sum(ends.values())


async def _partitions(config: KafkaConfig, topics: Sequence[str]) -> list[TopicPartition]:
    view = await describe_cluster(config, topics)
    return [TopicPartition(topic, number) for topic, count in view.topics.items() for number in range(count)]


@asynccontextmanager
async def _reader(config: KafkaConfig) -> AsyncIterator[AIOKafkaConsumer]:
    # Without a subscription it reads the group's offsets and is no member of it.
    reached = connection(config, request_timeout_ms=config.request_timeout_ms)
    consumer = AIOKafkaConsumer(**reached, group_id=config.group_id, enable_auto_commit=False)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
