"""Partitions that are not polled for a while, and waiting without taking: `perdure.worker.kafka_reader`."""

from __future__ import annotations

import pytest

from perdure.worker.broker import Outgoing, Partition, Record
from perdure.worker.clock import SystemClock
from perdure.worker.kafka_broker import KafkaBroker
from perdure.worker.topics import TopicPlan, is_resume_topic
from tests.waiting import wait_until
from tests.worker.kafka_clients import broker_for, numbers, poll, poll_until, quick_config, topic_plan


def in_partition(topic: str, partition: int, wanted: range) -> list[Outgoing]:
    """One record a number."""
    return [Outgoing(topic, None, b"%d" % number, partition=partition) for number in wanted]


async def held_polls(broker: KafkaBroker, held: set[Partition], count: int) -> list[Record]:
    """What is polled beside what is held."""
    records: list[Record] = []

    async def enough() -> bool:
        records.extend(await broker.poll(first=is_resume_topic, records_max=7, wait_ms=100, held=held))
        return len(records) >= count

    await wait_until(enough, description="the other partitions' records")
    return records


@pytest.mark.parametrize("careful", [False, True])
async def test_a_held_partition_keeps_its_records(bootstrap_servers: str, namespace: str, careful: bool) -> None:
    """In order, also those that were fetched already; the others come meanwhile."""
    plan = topic_plan(f"{namespace}.S", partitions=3)
    held = {Partition(plan.name, 0), Partition(plan.name, 2)}
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await wait_until(lambda: broker.health().assigned == 3)
        assert broker._reader is not None
        broker._reader.careful = careful
        for number in range(3):
            await broker.produce(in_partition(plan.name, number, range(100 * number, 100 * number + 20)))
        first = await poll_until(broker, lambda records: bool(records))
        others = [record for record in first if record.partition.number == 1]
        others += await held_polls(broker, held, 20 - len(others))
        assert numbers(others) == list(range(100, 120))
        assert await broker.poll(first=is_resume_topic, records_max=7, wait_ms=50, held=held) == []
        rest = [record for record in first if record.partition in held]
        rest += await poll_until(broker, lambda records: len(records) + len(rest) >= 40)
        for number in (0, 2):
            mine = [record for record in rest if record.partition.number == number]
            assert numbers(mine) == list(range(100 * number, 100 * number + 20))


async def test_all_may_be_held(bootstrap_servers: str, namespace: str) -> None:
    """Then nothing comes, and nothing is taken for trouble."""
    plan = topic_plan(f"{namespace}.S")
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await broker.produce(in_partition(plan.name, 0, range(5)))
        await wait_until(lambda: broker.health().assigned == 1)
        held = {Partition(plan.name, 0)}
        for _ in range(3):
            await broker.wait(wait_ms=20, held=held)
            assert await broker.poll(first=is_resume_topic, records_max=7, wait_ms=20, held=held) == []
        assert broker._reader is not None
        assert broker._reader._starved_at_ms is None
        assert numbers(await poll_until(broker, lambda records: len(records) >= 5)) == list(range(5))


async def test_waiting_takes_nothing(bootstrap_servers: str, namespace: str) -> None:
    """It ends when there is something, which the next poll hands out without waiting."""
    plan = topic_plan(f"{namespace}.S")
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await broker.wait(wait_ms=10)
        await wait_until(lambda: broker.health().assigned == 1)
        await broker.produce(in_partition(plan.name, 0, range(5)))
        await broker.wait(wait_ms=20_000)
        records = await poll(broker, records_max=1, wait_ms=0)
        await broker.wait(wait_ms=20_000)
        records += await poll_until(broker, lambda got: len(got) >= 4)
        assert numbers(records) == list(range(5))


async def test_a_broker_for_reading_only(bootstrap_servers: str, namespace: str) -> None:
    """It has no producer, and does not make the topics that it reads."""
    plan = TopicPlan(f"{namespace}-orders", 1, 1, ())
    config = quick_config(bootstrap_servers, namespace, assignment="group")
    broker = KafkaBroker(config, topics=[plan.name], clock=SystemClock(), produces=False)
    async with broker:
        await wait_until(lambda: "There is no topic" in (broker.health().problem or ""))
        assert broker.health().assigned == 0
        assert not broker._producer_started.is_set()
        async with broker_for(quick_config(bootstrap_servers, "other"), plan) as other:
            await wait_until(lambda: broker.health().assigned == 1, description="it is read")
            assert broker.health().problem is None
            await other.produce(in_partition(plan.name, 0, range(3)))
            assert numbers(await poll_until(broker, lambda records: len(records) >= 3)) == list(range(3))
