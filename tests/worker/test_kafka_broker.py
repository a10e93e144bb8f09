"""Kafka goes away, comes back, forgets, hangs; clients die: work stalls, says so once, and goes on by itself."""

from __future__ import annotations

import asyncio
import logging
import operator

import pytest

from perdure.schemas.errors import BrokerError
from perdure.worker import kafka_topic_ids
from perdure.worker.clock import SystemClock
from perdure.worker.kafka_admin import create_topics
from perdure.worker.kafka_broker import KafkaBroker
from perdure.worker.kafka_connection import UnreadableRecordsError
from perdure.worker.server_process import ServerProcess
from tests.servers import lane
from tests.waiting import PATIENCE_S, wait_until

from .kafka_clients import (
    Member,
    Notes,
    broker_for,
    numbers,
    poll,
    poll_until,
    quick_config,
    topic_plan,
    values,
)

OUTAGE_STARTS = "is not reachable, work waits for it"
OUTAGE_ENDS = "Kafka is reachable again after"


@pytest.mark.parametrize("assignment", ["group", "manual"])
async def test_a_broker_that_is_killed_and_restarted(
    private_broker: ServerProcess, namespace: str, caplog: pytest.LogCaptureFixture, assignment: str
) -> None:
    """The outage is logged when it starts and when it ends; then records flow, even if the broker lost all topics."""
    caplog.set_level(logging.INFO, "perdure")
    plan = topic_plan(f"{namespace}.S", partitions=2)
    member = Member(quick_config(private_broker.address, namespace, assignment=assignment), plan)
    async with member.broker:
        await member.broker.produce(values(plan.name, range(5)))
        await _step_until(member, lambda: len(member.seen) >= 5)
        await member.commit()
        await private_broker.kill()
        await _step_until(member, lambda: OUTAGE_STARTS in caplog.text)
        assert not member.broker.health().ok
        with pytest.raises(BrokerError):
            await member.broker.produce(values(plan.name, [8]))
        assert await poll(member.broker, wait_ms=50) == []
        await private_broker.start()
        await _step_until(member, lambda: member.broker.health().ok, timeout_s=40)
        await _until_produced(member.broker, plan.name, 9)
        await _step_until(member, lambda: 9 in numbers(member.seen))
        assert member.broker.health().reachable
        await member.commit()
    assert caplog.text.count(OUTAGE_STARTS) == caplog.text.count(OUTAGE_ENDS) == 1
    aiokafka = [r.getMessage() for r in caplog.records if r.name.startswith("aiokafka")]
    assert len(aiokafka) < 40, aiokafka


async def test_a_worker_that_starts_before_kafka(private_broker: ServerProcess, namespace: str) -> None:
    """Entering does not wait; health says what is wrong; everything starts when Kafka does."""
    await private_broker.kill()
    plan = topic_plan(f"{namespace}.S")
    async with broker_for(quick_config(private_broker.address, namespace), plan) as broker:
        await wait_until(lambda: "reach Kafka" in (broker.health().problem or ""))
        assert await poll(broker, wait_ms=10) == []
        with pytest.raises(BrokerError, match="Could not produce records: Could not reach Kafka"):
            await broker.produce(values(plan.name, [1]))
        await private_broker.start()
        await wait_until(lambda: broker.health().ok)
        await broker.produce(values(plan.name, [1]))
        assert numbers(await poll_until(broker, lambda got: len(got) >= 1)) == [1]


@pytest.mark.parametrize("assignment", ["group", "manual"])
async def test_leaving_while_kafka_hangs(private_broker: ServerProcess, namespace: str, assignment: str) -> None:
    """A broker that accepts and never answers delays nobody beyond the timeouts; leaving leaves nothing behind."""
    plan = topic_plan(f"{namespace}.S")
    before = asyncio.all_tasks()
    config = quick_config(private_broker.address, namespace, assignment=assignment)
    broker = broker_for(config, plan)
    broker.listen(Notes())
    async with asyncio.timeout(40):
        async with broker:
            await wait_until(lambda: broker.health().ok)
            await private_broker.pause()
            with pytest.raises(BrokerError, match="Could not produce records"):
                await broker.produce(values(plan.name, range(10)))
            await wait_until(lambda: not broker.health().reachable)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("assignment", ["group", "manual"])
async def test_leaving_while_kafka_is_gone(private_broker: ServerProcess, namespace: str, assignment: str) -> None:
    """The same with connections that are refused, at whatever point the clients are."""
    plan = topic_plan(f"{namespace}.S")
    before = asyncio.all_tasks()
    async with asyncio.timeout(40):
        async with broker_for(quick_config(private_broker.address, namespace, assignment=assignment), plan) as broker:
            await wait_until(lambda: broker.health().reachable)
            await private_broker.kill()
        async with broker_for(quick_config(private_broker.address, namespace), plan):
            pass
    assert asyncio.all_tasks() == before


async def test_a_broker_that_hangs_for_a_while(private_broker: ServerProcess, namespace: str) -> None:
    """Work goes on after the pause, with what was sent meanwhile."""
    plan = topic_plan(f"{namespace}.S")
    member = Member(quick_config(private_broker.address, namespace, assignment="group"), plan)
    async with member.broker:
        await wait_until(lambda: member.broker.health().ok)
        await private_broker.pause()
        await wait_until(lambda: not member.broker.health().reachable)
        await private_broker.resume()
        await _until_produced(member.broker, plan.name, 1)
        await _step_until(member, lambda: 1 in numbers(member.seen), timeout_s=40)


async def test_a_topic_that_appears_later(bootstrap_servers: str, namespace: str) -> None:
    """A topic that is consumed and not planned is read from its first record on as soon as somebody creates it."""
    topic = f"{namespace}.orders"
    config = quick_config(bootstrap_servers, namespace)
    async with KafkaBroker(config, topics=[topic], clock=SystemClock()) as broker:
        await wait_until(lambda: broker.health().assigned == 0)
        await create_topics(config, [topic_plan(topic, partitions=2)])
        await wait_until(lambda: broker.health().assigned == 2)
        await broker.produce(values(topic, range(20)))
        assert sorted(numbers(await poll_until(broker, lambda got: len(got) >= 20))) == list(range(20))


@pytest.mark.parametrize(
    ("assignment", "dies"),
    [
        ("group", "_fetcher._fetch_task"),
        ("group", "_coordinator._coordination_task"),
        ("group", "_client._sync_task"),
        ("manual", "_fetcher._fetch_task"),
    ],
)
async def test_a_consumer_that_died_is_replaced(
    bootstrap_servers: str, namespace: str, caplog: pytest.LogCaptureFixture, assignment: str, dies: str
) -> None:
    """A consumer whose tasks ended of an unexpected error commits, and makes way for one that starts there."""
    plan = topic_plan(f"{namespace}.S")
    member = Member(quick_config(bootstrap_servers, namespace, assignment=assignment), plan)
    async with member.broker:
        await wait_until(lambda: member.broker.health().ok)
        reader = member.broker._reader
        assert reader is not None
        await member.broker.produce(values(plan.name, [0]))
        await _step_until(member, lambda: 0 in numbers(member.seen))
        operator.attrgetter(dies)(reader._consumer._client).cancel()
        await wait_until(lambda: member.broker.health().consumer_restarts == 1 and member.broker.health().ok)
        await member.broker.produce(values(plan.name, [1]))
        await _step_until(member, lambda: 1 in numbers(member.seen))
    assert numbers(member.seen) == [0, 1]
    assert "the listener failed" not in caplog.text


async def test_a_consumer_whose_connection_the_loop_closed_is_replaced(
    bootstrap_servers: str, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its coordination died of uvloop's RuntimeError: nobody is told of records that cannot be decoded."""

    async def closed() -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    plan = topic_plan(f"{namespace}.S")
    member = Member(quick_config(bootstrap_servers, namespace, assignment="group"), plan)
    async with member.broker:
        await wait_until(lambda: member.broker.health().ok)
        assert member.broker._reader is not None
        consumer = member.broker._reader._consumer
        coordinator = consumer._client._coordinator
        died = asyncio.create_task(closed())
        await asyncio.wait([died])
        coordinator._coordination_task.cancel()
        coordinator._coordination_task = died
        # Without a turn of the loop in between, in which it could be replaced.
        with pytest.raises(BrokerError, match="handler is closed") as refused:
            await consumer.take(records_max=1)
        assert not isinstance(refused.value, UnreadableRecordsError)
        await wait_until(lambda: member.broker.health().consumer_restarts == 1 and member.broker.health().ok)
    assert "decoded" not in caplog.text


@pytest.mark.parametrize("dies", ["_sender.sender_task", "client._sync_task"])
async def test_a_producer_that_died_is_replaced(bootstrap_servers: str, namespace: str, dies: str) -> None:
    """A poisoned producer fails what it was given; the next one works (aiokafka's issue 1017)."""
    plan = topic_plan(f"{namespace}.S")
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await wait_until(lambda: broker.health().ok)
        assert broker._producer is not None
        operator.attrgetter(dies)(broker._producer._client).cancel()
        await wait_until(lambda: broker.health().producer_restarts == 1)
        await broker.produce(values(plan.name, [1]))
        assert numbers(await poll_until(broker, lambda got: len(got) >= 1)) == [1]


async def test_a_consumer_that_is_stuck_is_replaced(bootstrap_servers: str, namespace: str) -> None:
    """One that neither fetches nor fails is noticed by its silence, once Kafka answers others (issue 1154)."""
    plan = topic_plan(f"{namespace}.S")
    member = Member(quick_config(bootstrap_servers, namespace), plan)
    async with member.broker:
        await wait_until(lambda: member.broker.health().ok)
        reader = member.broker._reader
        assert reader is not None

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        reader._consumer._client._fetcher._proc_fetch_request = never
        await _step_until(member, lambda: member.broker.health().consumer_restarts == 1, timeout_s=30)
        await member.broker.produce(values(plan.name, [1]))
        await _step_until(member, lambda: 1 in numbers(member.seen))


@pytest.mark.skipif(lane.LANE == "apache", reason="it keeps its topics over a restart")
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
async def test_topics_that_were_lost_are_read_from_their_beginning(
    private_broker: ServerProcess, namespace: str, monkeypatch: pytest.MonkeyPatch, ids: bool
) -> None:
    """A memory-only broker forgets: positions in the topics that it lost mean nothing in the new ones."""
    if not ids:
        monkeypatch.setattr(kafka_topic_ids, "_VERSION", 99)
    plan = topic_plan(f"{namespace}.S")
    member = Member(quick_config(private_broker.address, namespace), plan)
    async with member.broker:
        await member.broker.produce(values(plan.name, range(3)))
        await _step_until(member, lambda: len(member.seen) >= 3)
        await private_broker.restart()
        await wait_until(lambda: member.broker.health().consumer_restarts >= 1 and member.broker.health().ok)
        for number in range(100, 110):
            await _until_produced(member.broker, plan.name, number)
        await _step_until(member, lambda: {*numbers(member.seen)} >= {*range(100, 110)})


async def _step_until(member: Member, predicate: object, *, timeout_s: float = PATIENCE_S) -> None:
    """Let the member work until it is so."""
    assert callable(predicate)
    async with asyncio.timeout(timeout_s):
        while not predicate():
            await member.step()


async def _until_produced(broker: KafkaBroker, topic: str, number: int) -> None:
    """Send again until it is acknowledged, as the outbox does."""

    async def acknowledged() -> bool:
        try:
            await broker.produce(values(topic, [number]))
        except BrokerError:
            return False
        return True

    await wait_until(acknowledged, description="a record is acknowledged")
