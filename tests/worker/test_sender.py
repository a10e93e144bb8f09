"""Producing from outside the worker: `perdure.worker.sender`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from perdure.schemas.errors import BrokerError, SettingsError
from perdure.worker.broker import Outgoing
from perdure.worker.kafka_admin import create_topics, describe_cluster
from perdure.worker.kafka_config import ClusterView, KafkaConfig
from perdure.worker.sender import LOOKS_S, Sender
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


class Looks:
    """Counts how often a sender asks Kafka which topics there are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.answered = asyncio.Event()
        self.answered.set()
        monkeypatch.setattr("perdure.worker.sender.describe_cluster", self._look)

    async def _look(self, config: KafkaConfig, topics: Sequence[str]) -> ClusterView:
        self.count += 1
        await self.answered.wait()
        return await describe_cluster(config, topics)


async def test_many_first_records_share_one_look(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many send at once, their topic is looked for once; who is cancelled meanwhile stops nobody."""
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    topic = f"{namespace}.Shop"
    await create_topics(config, [TopicPlan(topic, 1, 1, ())])
    looks = Looks(monkeypatch)
    looks.answered.clear()
    async with Sender(config) as sender:
        sending = [asyncio.create_task(sender.send(Outgoing(topic, None, b"x"))) for _ in range(50)]
        await wait_until(lambda: looks.count, description="somebody looks for the topic")
        sending[0].cancel()
        await asyncio.wait({sending[0]})
        looks.answered.set()
        told = await asyncio.gather(*sending, return_exceptions=True)
    assert isinstance(told[0], asyncio.CancelledError)
    assert told[1:] == [None] * 49
    assert looks.count <= len(LOOKS_S)


async def test_a_topic_that_was_made_a_moment_ago_is_found(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker may hear of it only after its maker did: it is looked for again before it is said to be missing."""
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    topic = f"{namespace}.Shop"
    looks = Looks(monkeypatch)
    async with Sender(config) as sender:
        sending = asyncio.create_task(sender.send(Outgoing(topic, None, b"x")))
        await wait_until(lambda: looks.count, description="it looks for the topic")
        looks.answered.clear()
        await create_topics(config, [TopicPlan(topic, 1, 1, ())])
        looks.answered.set()
        await sending


async def test_a_look_that_fails_fails_for_all_who_share_it(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a look of his own after it; whoever sends later looks again, since the topic may be there."""
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    topic = f"{namespace}.Shop"
    looks = Looks(monkeypatch)
    async with Sender(config) as sender:
        told = await asyncio.gather(
            *[sender.send(Outgoing(topic, None, b"x")) for _ in range(5)], return_exceptions=True
        )
        assert [type(error) for error in told] == [SettingsError] * 5
        assert looks.count == len(LOOKS_S)
        await create_topics(config, [TopicPlan(topic, 1, 1, ())])
        await sender.send(Outgoing(topic, None, b"x"))
    assert looks.count > len(LOOKS_S)


async def test_leaving_waits_for_a_look(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes on behind a sender that was left, and who sends meanwhile is told that nothing was sent."""
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    topic = f"{namespace}.Shop"
    await create_topics(config, [TopicPlan(topic, 1, 1, ())])
    looks = Looks(monkeypatch)
    looks.answered.clear()
    async with Sender(config) as sender:
        sending = asyncio.create_task(sender.send(Outgoing(topic, None, b"x")))
        await wait_until(lambda: looks.count, description="it looks for the topic")
        asyncio.get_running_loop().call_later(0.05, looks.answered.set)
    assert looks.answered.is_set()
    with pytest.raises(BrokerError, match="not sent"):
        await sending


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

        async def sent() -> bool:
            try:
                await sender.send(Outgoing(topic, None, b"1"))
            except BrokerError:
                return False
            return True

        # A broker that has just begun may take longer than the sender's patience.
        await wait_until(sent)
        await private_broker.kill()
        with pytest.raises(BrokerError):
            await sender.send(Outgoing(topic, None, b"2"))
        await private_broker.start()
        await create_topics(config, plan)
        await wait_until(sent)
