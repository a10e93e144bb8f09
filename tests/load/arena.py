"""Everything a scenario uses: the servers, the namespace, worker processes, a client, a producer, and looks at them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from benchmarks.machine import open_descriptors, resident_bytes
from perdure.journal.connected_store import connected_store
from perdure.journal.keys import STATUSES, Keys
from perdure.journal.redis_admin import open_namespace
from perdure.journal.redis_store import RedisStore
from perdure.worker.client import Client
from perdure.worker.kafka_admin import create_topics
from perdure.worker.settings import Settings
from perdure.worker.topics import consumed_topics, plan_topics, service_topic
from tests.process.worker_process import WorkerProcess
from tests.standing import lag
from tests.waiting import wait_until

from .application import RETENTION_VARIABLE, application
from .ledger import DIRECTORY_VARIABLE, Ledger

TARGET = "tests.load.application:application"
SLOTS = 16
PARTITIONS = 8

KEPT_S = 3_600.0
"""Retention of a scenario that counts outcomes in Redis; longer than any takes."""

START_S = 60.0
"""For a worker to join its group, on a machine that others load, too."""

UNACKNOWLEDGED_MAX = 2_000
"""Records that the producer has on their way at once."""

SERVICES = tuple(application.services)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes place.

    Attributes:
        redis_url: Its Redis.
        bootstrap_servers: Its Kafka.
        embedded: Whether these are the servers out of wheels.
        namespace: The run's own.
        directory: Of its own, for effects and logs.
    """

    redis_url: str
    bootstrap_servers: str
    embedded: bool
    namespace: str
    directory: Path

    def settings(self, *, several: bool = False, **others: Any) -> Settings:
        """What workers and client are told.

        Args:
            several: Whether there will be several workers at once; a group is joined quickly then.
            others: Fields of `Settings` over these.
        """
        # The embedded broker answers a join after half a session, so one worker does without a group.
        group = {"kafka_session_timeout_ms": 3_000} if several else {}
        given: dict[str, Any] = {
            "redis_url": self.redis_url,
            "bootstrap_servers": self.bootstrap_servers,
            "namespace": self.namespace,
            "slots": SLOTS,
            "topic_partitions": PARTITIONS,
            "topic_replication_factor": 1,
            "kafka_assignment": "manual" if self.embedded and not several else "group",
            "kafka_fetch_max_wait_ms": 10,
            **group,
            **others,
        }
        return Settings.load(**given)


class Arena:
    """One run's namespace and everything in it. Made by `arena`.

    Args:
        settings: Of workers and client.
        client: Of the namespace.
        store: Of the namespace.
        redis: To ask the server about itself.
        directory: For effects and logs.
        retention_s: How long workers keep outcomes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: Client,
        store: RedisStore,
        redis: Redis,
        directory: Path,
        retention_s: float,
    ) -> None:
        self.settings = settings
        self.client = client
        self.store = store
        self.redis = redis
        self.directory = directory
        self.ledger = Ledger(directory)
        self.workers: list[WorkerProcess] = []
        self._retention_s = retention_s

    async def start(self) -> WorkerProcess:
        """Start a worker, not ready yet."""
        environment = {
            **self.settings.environment(),
            DIRECTORY_VARIABLE: str(self.directory),
            RETENTION_VARIABLE: str(self._retention_s),
        }
        log_path = self.directory / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess(environment, log_path=log_path, target=TARGET)
        self.workers.append(worker)
        await worker.start()
        return worker

    async def start_ready(self) -> WorkerProcess:
        """Start a worker, and return when it has its partitions."""
        worker = await self.start()
        await worker.ready(timeout_s=START_S)
        return worker

    async def produce(self, handler: str, arguments: Iterable[object], *, key: str | None = None) -> int:
        """Produce a record for each argument, in that order, and return how many once all are acknowledged."""
        service, _, name = handler.partition("/")
        topic, at = service_topic(self.settings.namespace, service), None if key is None else key.encode()
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.bootstrap_servers, linger_ms=5, max_batch_size=100_000
        )
        await producer.start()
        count = 0
        try:
            waiting: list[Awaitable[object]] = []
            for argument in arguments:
                value = json.dumps({"handler": name, "argument": argument}).encode()
                waiting.append(await producer.send(topic, value, key=at))
                count += 1
                if len(waiting) == UNACKNOWLEDGED_MAX:
                    await asyncio.gather(*waiting)
                    waiting.clear()
            await asyncio.gather(*waiting)
        finally:
            await producer.stop()
        return count

    async def counts(self) -> Counter[str]:
        """How many invocations have each status."""
        keys = Keys(self.settings.namespace, slots=SLOTS)
        asked = [(slot, status) for slot in range(SLOTS) for status in STATUSES]
        pipeline = self.redis.pipeline(transaction=False)
        for slot, status in asked:
            pipeline.zcard(keys.status(slot, status))
        counts: Counter[str] = Counter()
        for (_, status), count in zip(asked, await pipeline.execute(), strict=True):
            counts[status] += count
        return counts

    async def unfinished(self) -> int:
        """How many invocations are there that have not ended."""
        counts = await self.counts()
        return counts.total() - counts["completed"]

    async def lag(self) -> int:
        """Records of the namespace whose offset is not committed yet."""
        topics = consumed_topics(self.settings.namespace, SERVICES)
        return sum((await lag(self.settings.kafka_config(client_id="load"), topics)).values())

    async def quiet(self, *, timeout_s: float) -> None:
        """Wait until Kafka and Redis hold nothing that is to be done."""

        async def nothing_left() -> bool:
            # Lag is asked last and seldom, because each look is a consumer of its own. What is admitted between the
            # two looks was behind the offset before, and is found by the third.
            return await self.unfinished() == 0 and await self.lag() == 0 and await self.unfinished() == 0

        await wait_until(nothing_left, timeout_s=timeout_s, description="everything has ended")

    async def redis_bytes(self) -> int:
        """Memory that Redis uses."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def redis_keys(self) -> int:
        """Keys that Redis holds."""
        return int(await self.redis.dbsize())

    def resident_bytes(self) -> int:
        """Memory of all workers that run."""
        return sum(resident_bytes(worker.pid) for worker in self.workers if worker.alive)

    def descriptors(self) -> int:
        """Open descriptors of all workers that run."""
        return sum(open_descriptors(worker.pid) for worker in self.workers if worker.alive)

    def tasks(self) -> int:
        """Tasks of all workers that run, as they counted them last."""
        paths = [self.directory / f"tasks-{worker.pid}" for worker in self.workers if worker.alive]
        return sum(int(path.read_text() or 0) for path in paths if path.exists())

    def said(self, text: str) -> int:
        """How often that text is in the logs of all workers."""
        return sum(worker.said(text) for worker in self.workers)


@contextlib.asynccontextmanager
async def arena(settings: Settings, directory: Path, *, retention_s: float = KEPT_S) -> AsyncIterator[Arena]:
    """Make the namespace and its topics, and run a client; what is started in the block ends with it."""
    config, namespace = settings.redis_config, settings.namespace
    await open_namespace(config, namespace, slots=SLOTS)
    plan = plan_topics(namespace, SERVICES, partitions=PARTITIONS, replication_factor=1)
    await create_topics(settings.kafka_config(client_id="load"), plan)
    async with (
        connected_store(config, Keys(namespace, slots=SLOTS), name="load") as store,
        Redis.from_url(settings.redis_url.get_secret_value()) as redis,
        Client(settings) as client,
    ):
        made = Arena(settings, client=client, store=store, redis=redis, directory=directory, retention_s=retention_s)
        try:
            yield made
        finally:
            await asyncio.gather(*(worker.close() for worker in made.workers))
            for worker in made.workers[-3:]:
                # Shown by pytest where the test failed.
                print(f"--- {worker.log_path.name} ({worker.pid})\n{worker.log()[-2_000:]}")  # noqa: T201
