"""Engines in this process on the lane's Kafka and Redis, and hands to produce records and read topics with."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.journal.redis_store import RedisStore
from perdure.worker.application import Application
from perdure.worker.broker import Headers, Outgoing, Record
from perdure.worker.client import Client
from perdure.worker.engine import Engine
from perdure.worker.main import Surroundings, surroundings, worker_engine
from perdure.worker.sender import Sender
from perdure.worker.settings import Settings
from perdure.worker.topics import plan_topics
from tests.waiting import PATIENCE_S, wait_until
from tests.worker.kafka_clients import broker_for, poll_until, quick_config, topic_plan


class Deployment:
    """One namespace: its settings, its workers in this process, its topics.

    Args:
        settings: Of every worker, unless changed for one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.around: Surroundings = surroundings()

    def topic(self, service: str) -> str:
        """The topic of a service, or of the dead letters."""
        return f"{self.settings.namespace}.{service}"

    @contextlib.asynccontextmanager
    async def worker(self, application: Application, **changes: Any) -> AsyncIterator[Engine]:
        """Run a worker while the block runs; stops it in good order."""
        settings = self.settings.model_copy(update=changes)
        ready = asyncio.Event()
        around = dataclasses.replace(self.around, on_ready=ready.set)
        async with worker_engine(application, settings, around) as engine:
            running = asyncio.create_task(engine.run())
            try:
                yield engine
            finally:
                engine.stop()
                async with asyncio.timeout(PATIENCE_S):
                    await running

    @contextlib.asynccontextmanager
    async def sender(self, application: Application) -> AsyncIterator[Sender]:
        """Something to produce records by hand with; the application's topics exist then."""
        config = self.settings.kafka_config(client_id="by-hand")
        plan = plan_topics(
            self.settings.namespace,
            application.services,
            partitions=self.settings.topic_partitions,
            replication_factor=-1,
        )
        # Entering a broker creates its plan.
        async with broker_for(quick_config(config.bootstrap_servers, "planner"), *plan) as broker:
            await wait_until(lambda: broker.health().assigned is not None, description="the topics exist")
        async with Sender(config) as sender:
            yield sender

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[RedisStore]:
        """The namespace's invocations."""
        config = self.settings.redis_config
        found = await open_namespace(config, self.settings.namespace, slots=self.settings.slots)
        async with connected_store(config, Keys(self.settings.namespace, slots=found.slots), name="test") as store:
            yield store

    def client(self) -> Client:
        """A client of the namespace."""
        return Client(self.settings)

    async def read(self, topic: str, enough: Callable[[list[Record]], bool]) -> list[Record]:
        """What stands in a topic, from its beginning until it is enough."""
        config = quick_config(self.settings.bootstrap_servers, f"reader-{self.settings.namespace}-{topic}")
        async with broker_for(config, topic_plan(topic)) as broker:
            return await poll_until(broker, enough)


def envelope(handler: str, argument: Any = None, **fields: Any) -> bytes:
    """The value of an invocation's record, as a producer in any language writes it."""
    return orjson.dumps({"handler": handler, "argument": argument} | fields)


def record(topic: str, value: bytes | None, *, key: bytes | None = None, headers: Headers = ()) -> Outgoing:
    """A record to produce."""
    return Outgoing(topic, key, value, headers)
