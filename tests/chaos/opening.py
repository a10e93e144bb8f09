"""Everything that a run needs, opened and closed in order."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.worker.client import Client
from perdure.worker.clock import system_random
from perdure.worker.kafka_admin import create_topics
from perdure.worker.sender import Sender
from perdure.worker.server_process import free_port
from perdure.worker.settings import Settings
from perdure.worker.topics import TopicPlan, consumed_topics, plan_topics
from tests.servers import lane

from .feed import FEED_TOPIC
from .fleet import Fleet
from .ground import ground
from .marks import Marks
from .nemesis import Nemesis
from .proxy import Proxy
from .run import SERVICES, Run
from .scale import Scale
from .server_strikes import ServerStrikes
from .steps import RETENTION_VARIABLE

NAMESPACE = "chaos"
SLOTS = 8
PARTITIONS = 4


@contextlib.asynccontextmanager
async def opened_run(scale: Scale, directory: Path, say: Callable[[str], None]) -> AsyncIterator[Run]:
    """Start servers and workers for a run; all of it ends with the block."""
    async with contextlib.AsyncExitStack() as stack:
        servers = await stack.enter_async_context(ground(directory / "servers"))
        settings = _settings(servers.redis_url, servers.kafka.address)
        config = settings.redis_config
        await open_namespace(config, NAMESPACE, slots=SLOTS)
        plan = plan_topics(NAMESPACE, SERVICES, partitions=PARTITIONS, replication_factor=1)
        elsewhere = TopicPlan(FEED_TOPIC, PARTITIONS, 1, ())
        await create_topics(settings.kafka_config(client_id="judge"), [*plan, elsewhere])
        store = await stack.enter_async_context(connected_store(config, Keys(NAMESPACE, slots=SLOTS), name="judge"))
        link = await stack.enter_async_context(Proxy(free_port(system_random()), upstream_port=servers.redis.port))
        fleet = await stack.enter_async_context(
            Fleet(
                settings,
                size=scale.workers,
                redis_port=servers.redis.port,
                directory=directory,
                variables={RETENTION_VARIABLE: str(scale.retention_s)},
                chance=random.Random(f"fleet {scale.seed}"),
            )
        )
        await fleet.fill()
        client = await stack.enter_async_context(Client(_settings(f"redis://{link.address}", servers.kafka.address)))
        sender = await stack.enter_async_context(Sender(settings.kafka_config(client_id="elsewhere")))
        topics = consumed_topics(NAMESPACE, SERVICES)
        strikes = ServerStrikes(servers, settings.kafka_config(client_id="nemesis"), topics)
        nemesis = Nemesis(fleet, servers, clients=link, servers=strikes, marks=Marks(directory))
        yield Run(
            scale,
            settings=settings,
            fleet=fleet,
            nemesis=nemesis,
            client=client,
            sender=sender,
            store=store,
            directory=directory,
            say=say,
        )


def _settings(redis_url: str, bootstrap_servers: str) -> Settings:
    """Settings with which the end of a worker is noticed soon."""
    return Settings.load(
        redis_url=redis_url,
        bootstrap_servers=bootstrap_servers,
        namespace=NAMESPACE,
        slots=SLOTS,
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        kafka_fetch_max_wait_ms=10,
        kafka_session_timeout_ms=1_000 if lane.LANE == "embedded" else 3_000,
        lease_s=2,
        grace_s=3,
        inactivity_timeout_s=1,
    )
