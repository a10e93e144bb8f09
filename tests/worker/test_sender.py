"""Producing from outside the worker: `perdure.worker.sender`."""

from __future__ import annotations

import asyncio
import gc

import pytest

from perdure.schemas.errors import BrokerError, SettingsError
from perdure.worker.broker import Outgoing
from perdure.worker.kafka_admin import create_topics, describe_cluster
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.sender import Sender
from perdure.worker.server_process import ServerProcess
from perdure.worker.topics import TopicPlan
from tests.waiting import wait_until


async def test_a_missing_topic_is_reported_and_not_made(bootstrap_servers: str, namespace: str) -> None:
    """Sending never makes a broker create a topic with its defaults."""
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    async with Sender(config) as sender:
        with pytest.raises(SettingsError, match=f"no topic {namespace}"):
            await sender.send(Outgoing(f"{namespace}.Nowhere", None, b"x"))
    assert not (await describe_cluster(config, [f"{namespace}.Nowhere"])).topics


async def test_leaving_closes_a_producer_that_is_being_started(bootstrap_servers: str, namespace: str) -> None:
    """Whoever sends meanwhile is told that it was not sent, or has sent; no connection stays open."""
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    topic = f"{namespace}.Shop"
    await create_topics(config, [TopicPlan(topic, 1, 1, ())])
    for turns in range(0, 40, 4):
        async with Sender(config) as sender:
            sending = asyncio.create_task(sender.send(Outgoing(topic, None, b"x")))
            for _ in range(turns):
                await asyncio.sleep(0)
        (told,) = await asyncio.gather(sending, return_exceptions=True)
        assert told is None or isinstance(told, BrokerError)
    # Warnings are errors: a producer that was left open says so when it is collected.
    gc.collect()


async def test_sending_heals_after_an_outage(private_broker: ServerProcess, namespace: str) -> None:
    """While the broker is away sending fails in time; when it is back it works again without a new sender."""
    config = KafkaConfig(bootstrap_servers=private_broker.address, group_id=namespace, produce_timeout_ms=1_000)
    topic = f"{namespace}.Shop"
    plan = [TopicPlan(topic, 1, 1, ())]
    await create_topics(config, plan)
    async with Sender(config) as sender:
        await sender.send(Outgoing(topic, None, b"1"))
        await private_broker.kill()
        with pytest.raises(BrokerError):
            await sender.send(Outgoing(topic, None, b"2"))
        await private_broker.start()
        await create_topics(config, plan)

        async def sent() -> bool:
            try:
                await sender.send(Outgoing(topic, None, b"3"))
            except BrokerError:
                return False
            return True

        await wait_until(sent, timeout_s=30)
