"""aiokafka behind our types: bytes arrive as they were sent, limits and refusals are named."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence

import pytest
from aiokafka.client import ConnectionGroup

from perdure.schemas.errors import BrokerError, RecordTooLargeError
from perdure.worker.broker import Outgoing, Partition
from perdure.worker.event_loop import run_to_end
from perdure.worker.kafka import Admin, Consumer
from perdure.worker.kafka_admin import create_topics, describe_cluster
from tests.waiting import wait_until

from .kafka_clients import broker_for, numbers, poll_until, quick_config, topic_plan, values

COORDINATION = ConnectionGroup.COORDINATION


async def test_records_arrive_byte_for_byte(bootstrap_servers: str, namespace: str) -> None:
    """Headers keep order, duplicates and nulls; keys and values may be null, empty or any bytes."""
    topic = f"{namespace}.S"
    every_byte = bytes(range(256))
    headers = (("b", b"1"), ("a", b"2"), ("b", b"1"), ("b", None), ("", b""), ("naïve ☃", every_byte))
    sent = [
        Outgoing(topic, b"key", b"value", headers),
        Outgoing(topic, None, every_byte),
        Outgoing(topic, b"", b""),
        Outgoing(topic, b"tombstone", None, headers),
        Outgoing(topic, None, None, headers),
        Outgoing(topic, None, None),
    ]
    async with broker_for(quick_config(bootstrap_servers, namespace), topic_plan(topic)) as broker:
        await broker.produce(sent)
        records = await poll_until(broker, lambda got: len(got) >= len(sent))
    assert [Outgoing(r.partition.topic, r.key, r.value, r.headers) for r in records] == sent
    assert [r.offset for r in records] == list(range(len(sent)))
    assert {r.partition for r in records} == {Partition(topic, 0)}


async def test_produce_keeps_the_order_of_a_key(bootstrap_servers: str, namespace: str) -> None:
    """Records of one key share a partition and arrive in the order in which they were given."""
    topic = f"{namespace}.S"
    async with broker_for(quick_config(bootstrap_servers, namespace), topic_plan(topic, partitions=5)) as broker:
        await broker.produce([Outgoing(topic, b"k%d" % (n % 7), b"%d" % n) for n in range(2_000)])
        records = await poll_until(broker, lambda got: len(got) >= 2_000)
    for key in {r.key for r in records}:
        of_key = [r for r in records if r.key == key]
        assert len({r.partition for r in of_key}) == 1
        assert numbers(of_key) == sorted(numbers(of_key))


async def test_a_record_may_name_its_partition(bootstrap_servers: str, namespace: str) -> None:
    """Where there is no such partition, the key decides as ever."""
    topic = f"{namespace}.S"
    async with broker_for(quick_config(bootstrap_servers, namespace), topic_plan(topic, partitions=3)) as broker:
        await broker.produce([Outgoing(topic, b"k", b"%d" % n, partition=n) for n in (0, 1, 2, 99)])
        records = await poll_until(broker, lambda got: len(got) >= 4)
    assert sorted((r.value, r.partition.number) for r in records)[:3] == [(b"0", 0), (b"1", 1), (b"2", 2)]


async def test_a_record_over_the_limit_is_refused_by_name(bootstrap_servers: str, namespace: str) -> None:
    """The error names topic, size and setting, and says that a retry is of no use; the next record goes through."""
    topic = f"{namespace}.S"
    config = quick_config(bootstrap_servers, namespace, request_bytes_max=10_000)
    async with broker_for(config, topic_plan(topic)) as broker:
        with pytest.raises(RecordTooLargeError, match=rf"about 20000 bytes for {topic} .* request_bytes_max = 10000"):
            await broker.produce([Outgoing(topic, None, b"1"), Outgoing(topic, None, b"x" * 20_000)])
        await broker.produce(values(topic, [7]))
        records = await poll_until(broker, lambda got: 7 in numbers(got))
    assert numbers(records)[-1] == 7


async def test_a_record_larger_than_a_fetch_is_not_lost(bootstrap_servers: str, namespace: str) -> None:
    """`partition_fetch_bytes_max` bounds memory, not records."""
    topic = f"{namespace}.S"
    config = quick_config(bootstrap_servers, namespace, partition_fetch_bytes_max=1_000)
    async with broker_for(config, topic_plan(topic)) as broker:
        await broker.produce([Outgoing(topic, None, b"%d" % n + b" " * 50_000) for n in range(3)])
        records = await poll_until(broker, lambda got: len(got) >= 3)
    assert numbers(records) == [0, 1, 2]


async def test_reading_from_a_consumer_that_was_closed_meanwhile_is_an_error_like_any_other(
    bootstrap_servers: str, namespace: str
) -> None:
    """Who polls while the consumer is being replaced is told so, and may poll again."""

    async def ignored(partitions: Sequence[Partition]) -> None:
        pass

    config = quick_config(bootstrap_servers, namespace)
    plan = topic_plan(f"{namespace}.S")
    await create_topics(config, [plan])
    consumer = Consumer(config, revoked=ignored, assigned=ignored)
    await consumer.start()
    consumer.assign([Partition(plan.name, 0)])
    await consumer.close()
    with pytest.raises(BrokerError, match="was closed"):
        await consumer.take(records_max=1, wait_ms=1_000)


async def test_topics_are_created_once_and_left_alone(bootstrap_servers: str, namespace: str) -> None:
    """What exists keeps its partitions; the answer tells what was created and what was there."""
    config = quick_config(bootstrap_servers, namespace)
    first, second = topic_plan(f"{namespace}.A", partitions=2), topic_plan(f"{namespace}.B", partitions=3)
    assert await create_topics(config, [first]) == ((first.name,), ())
    grown = first._replace(partitions=9)
    assert await create_topics(config, [grown, second]) == ((second.name,), (first.name,))
    view = await describe_cluster(config, [first.name, second.name])
    assert view.topics == {first.name: 2, second.name: 3}
    assert view.brokers


async def test_looking_at_a_topic_does_not_create_it(bootstrap_servers: str, namespace: str) -> None:
    """Also on a cluster that creates topics when somebody asks for them."""
    config = quick_config(bootstrap_servers, namespace)
    for _ in range(2):
        assert (await describe_cluster(config, [f"{namespace}.missing"])).topics == {}


@pytest.mark.servers
async def test_a_topic_that_cannot_be_created(bootstrap_servers: str, namespace: str) -> None:
    """The broker's reason is passed on (the embedded one takes any name)."""
    config = quick_config(bootstrap_servers, namespace)
    with pytest.raises(BrokerError, match="Could not create topics"):
        await create_topics(config, [topic_plan("no/such name")])


async def test_no_kafka_at_the_address(namespace: str) -> None:
    """Nothing listening is an error that says what to look at, not a hang."""
    admin = Admin(quick_config("127.0.0.1:1", namespace))
    with pytest.raises(BrokerError, match=r"Could not reach Kafka.*127\.0\.0\.1"):
        await admin.start()
    await admin.close()


def test_a_connection_that_the_loop_has_closed_is_an_outage_like_any_other(
    bootstrap_servers: str, namespace: str
) -> None:
    """Uvloop raises a RuntimeError where asyncio would only warn; the next commit goes over another connection.

    Chaos with seed 4000 ended a worker so: a write had failed, and a commit came before aiokafka had heard of that.
    """

    async def commit_over_closed_ones() -> None:
        plan = topic_plan(f"{namespace}.S")
        done = {Partition(plan.name, 0): 1}
        async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
            await broker.produce(values(plan.name, [0]))
            await poll_until(broker, lambda got: len(got) >= 1)
            await broker.commit(done)
            assert broker._reader is not None
            connections = broker._reader._consumer._client._client._conns
            (writer,) = [at._writer for (_, group), at in connections.items() if group == COORDINATION]
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as half:
                half.shutdown(socket.SHUT_WR)
            writer.write(b"fails")
            # In the very turn in which the loop has closed it: aiokafka hears of it in the next.
            while "closed=True" not in repr(writer.transport):  # noqa: ASYNC110 - turns count
                await asyncio.sleep(0)
            with pytest.raises(BrokerError, match=r"Could not commit offsets: .*handler is closed"):
                await broker.commit(done)

            async def commits() -> bool:
                with contextlib.suppress(BrokerError):
                    await broker.commit(done)
                    return True
                return False

            await wait_until(commits)

    run_to_end(commit_over_closed_ones())
