"""One-off looks at a cluster and its topics, for the command line and the doctor: connect, ask, close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from perdure.schemas.errors import BrokerError

from .broker import Partition
from .kafka import Admin, Consumer
from .kafka_config import ClusterView, KafkaConfig
from .kafka_offsets import committed
from .topics import TopicPlan

KNOWN_LOOKS, KNOWN_LOOK_S = 50, 0.1
"""How often, and how long apart, a broker is asked whether it knows the topics that were made: five seconds in all."""


class TopicsCreated(NamedTuple):
    """What became of a plan: names, sorted. Those that existed are as they were, whatever the plan says of them."""

    created: tuple[str, ...]
    existing: tuple[str, ...]


async def create_topics(config: KafkaConfig, plans: Sequence[TopicPlan]) -> TopicsCreated:
    """Create what is missing of `plans`, and return when a broker knows of it; safe to repeat.

    Brokers learn of new topics from the controller, a moment after whoever had them made. The others may still not know
    of them, and none where that takes longer than `KNOWN_LOOKS` looks.

    Raises:
        BrokerError: Kafka is not reachable, or a topic could not be created; others may have been.
    """
    async with _connected(config) as admin:
        created = await admin.create(plans) if plans else []
        # Whoever may create topics may not be allowed to look at them.
        with contextlib.suppress(BrokerError):
            await _known(admin, [plan.name for plan in plans])
    return TopicsCreated(
        created=tuple(sorted(created)), existing=tuple(sorted(plan.name for plan in plans if plan.name not in created))
    )


async def _known(admin: Admin, topics: Sequence[str]) -> None:
    for _ in range(KNOWN_LOOKS if topics else 0):
        view = await admin.describe(topics)
        if view.topics.keys() >= set(topics):
            return
        await asyncio.sleep(KNOWN_LOOK_S)


async def describe_cluster(config: KafkaConfig, topics: Sequence[str], *, rights: bool = False) -> ClusterView:
    """Return the cluster's id, its brokers and which of `topics` exist with how many partitions; creates none.

    Kafka's protocol does not tell the brokers' version. With `rights` a topic that may not be described is no error,
    and what may be done with each is told, where the brokers do.

    Raises:
        BrokerError: Kafka is not reachable, or a topic may not be described.
    """
    async with _connected(config) as admin:
        return await admin.describe(topics, rights=rights)


async def forbidden_group(config: KafkaConfig, topic: str) -> bool:
    """Whether the user may not be of the configured consumer group.

    Args:
        config: With the group.
        topic: One that exists, and may be described.

    Raises:
        BrokerError: Kafka is not reachable.
    """
    consumer = Consumer(config, revoked=_nobody, assigned=_nobody)
    try:
        await consumer.start()
        await consumer.ask(committed, [Partition(topic, 0)])
    except BrokerError as error:
        if "GroupAuthorizationFailedError" in str(error):
            return True
        raise
    finally:
        await consumer.close()
    return False


async def _nobody(_: Sequence[Partition]) -> None:
    pass


async def describe_replication(config: KafkaConfig, topics: Sequence[str]) -> Mapping[str, int]:
    """Return how many brokers must have a record of each of `topics`, as far as that is told.

    Raises:
        BrokerError: Kafka is not reachable.
    """
    async with _connected(config) as admin:
        return await admin.least_in_sync(topics)


@contextlib.asynccontextmanager
async def _connected(config: KafkaConfig) -> AsyncIterator[Admin]:
    admin = Admin(config)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
