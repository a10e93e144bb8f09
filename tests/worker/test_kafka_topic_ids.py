"""Topics that were deleted and made anew: read from their beginning, whatever was committed for their namesakes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.metadata import MetadataRequest

from perdure.schemas.errors import BrokerError
from perdure.worker.kafka_admin import create_topics, describe_cluster
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.kafka_topic_ids import Answer, TopicsRequest, mark, of_former_topic
from perdure.worker.topics import TopicPlan
from tests.waiting import PATIENCE_S, wait_until

from .kafka_clients import Member, broker_for, numbers, poll_until, quick_config, topic_plan, values

# Long enough for a topic to be deleted and made anew between two looks.
PROBE_INTERVAL_MS = 1_000


async def make_anew(config: KafkaConfig, plan: TopicPlan) -> None:
    """Delete a topic, and create it again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=config.bootstrap_servers)
    await admin.start()
    before = await topic_id(config, plan)
    await admin.delete_topics([plan.name])

    async def created() -> bool:
        await create_topics(config, [plan])
        return await topic_id(config, plan) not in (None, before)

    await wait_until(created, description="the topic is another one")
    await admin.close()


async def topic_id(config: KafkaConfig, plan: TopicPlan) -> str | None:
    """The id of the topic that has the name now."""
    return (await describe_cluster(config, [plan.name])).topic_ids.get(plan.name)


async def step_until_seen(members: Sequence[Member], wanted: set[int]) -> None:
    """Let the members work until they have seen these numbers, whoever sees which."""
    async with asyncio.timeout(PATIENCE_S):
        while wanted.difference(*(numbers(member.seen) for member in members)):
            for member in members:
                await member.step()
                try:
                    await member.commit()
                except BrokerError:
                    # The group rebalances; what was read comes again.
                    continue


async def test_topics_have_ids(bootstrap_servers: str, namespace: str) -> None:
    """Each its own, the same whoever asks; what does not exist has none."""
    config = quick_config(bootstrap_servers, namespace)
    plans = [topic_plan(f"{namespace}.{name}", partitions=3) for name in ("A", "B" * 150)]
    await create_topics(config, plans)
    view = await describe_cluster(config, [*(plan.name for plan in plans), f"{namespace}.nowhere"])
    assert view.topics == {plan.name: 3 for plan in plans}
    assert view.topic_ids.keys() == view.topics.keys()
    assert len({*view.topic_ids.values()}) == 2
    assert await topic_id(config, plans[0]) == view.topic_ids[plans[0].name]
    assert bootstrap_servers in view.brokers


def test_older_brokers_are_asked_without_ids() -> None:
    """They are sent what aiokafka knows, and nothing follows from what they do not tell."""
    older = MetadataRequest(["t"], allow_auto_topic_creation=False)
    request = TopicsRequest(["t"], otherwise=older)
    assert request.prepare({3: (0, 9)}) == older.prepare({3: (0, 9)})
    assert request.prepare({3: (0, 13)}).RESPONSE_TYPE is Answer


def test_what_others_commit_is_believed() -> None:
    """Only a mark of ours tells that an offset is of another topic."""
    assert of_former_topic(mark("a1"), "b2")
    assert not of_former_topic(mark("a1"), "a1")
    assert not of_former_topic("", "a1")
    assert not of_former_topic("reset by hand", "a1")


@pytest.mark.parametrize("assignment", ["group", "manual"])
async def test_a_topic_made_anew_is_read_from_its_beginning(
    bootstrap_servers: str, namespace: str, assignment: str
) -> None:
    """By each of those who held partitions of its namesake, though none of them made it anew."""
    plan = topic_plan(f"{namespace}.S", partitions=2)
    config = quick_config(bootstrap_servers, namespace, assignment=assignment, probe_interval_ms=PROBE_INTERVAL_MS)
    members = [Member(config, plan) for _ in range(2 if assignment == "group" else 1)]
    async with contextlib.AsyncExitStack() as entered:
        source = await entered.enter_async_context(broker_for(quick_config(bootstrap_servers, namespace)))
        for member in members:
            await entered.enter_async_context(member.broker)
        each = 2 // len(members)
        await wait_until(lambda: all(member.broker.health().assigned == each for member in members))
        await source.produce(values(plan.name, range(40)))
        await step_until_seen(members, {*range(40)})
        await make_anew(config, plan)
        await source.produce(values(plan.name, range(100, 200)))
        await step_until_seen(members, {*range(100, 200)})


@pytest.mark.servers
async def test_commits_for_a_former_topic_are_not_believed(bootstrap_servers: str, namespace: str) -> None:
    """They may arrive late; those for the topic that is there are, and so are those of an administrator."""
    plan = topic_plan(f"{namespace}.S")
    config = quick_config(bootstrap_servers, namespace)
    await create_topics(config, [plan])
    former = await topic_id(config, plan)
    await make_anew(config, plan)
    present = await topic_id(config, plan)
    assert former is not None
    assert present is not None
    for metadata, first in ((mark(former), 0), (mark(present), 5), ("", 6)):
        await commit_by_hand(config, plan, max(first, 3), metadata)
        async with broker_for(config, plan) as broker:
            if metadata == mark(former):
                await broker.produce(values(plan.name, range(10)))
            assert numbers(await poll_until(broker, lambda got: 9 in numbers(got))) == [*range(first, 10)]


async def commit_by_hand(config: KafkaConfig, plan: TopicPlan, offset: int, metadata: str) -> None:
    """Commit an offset of the topic's first partition for the group."""
    tp = TopicPartition(plan.name, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=config.bootstrap_servers, group_id=config.group_id, enable_auto_commit=False
    ) as consumer:
        consumer.assign([tp])
        await consumer.commit({tp: (offset, metadata)})
