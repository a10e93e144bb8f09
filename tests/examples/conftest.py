"""A worker that runs an example on the session's servers, and the example's ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from examples.ledger import VARIABLE, Ledger
from perdure import Application, Client, Settings
from perdure.worker.kafka_admin import create_topics
from perdure.worker.main import surroundings, worker_engine
from perdure.worker.topics import plan_topics

Running = Callable[[Application], AbstractAsyncContextManager[Client]]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The ledger that the example writes to."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ledger.sqlite"))
    return Ledger()


@pytest.fixture
def always_replay() -> bool:
    """Whether every await is replayed; parametrize it by its name to have both."""
    return False


@pytest.fixture
def settings(redis_url: str, bootstrap_servers: str, namespace: str, always_replay: bool) -> Settings:
    """One worker on the session's servers, which need not share partitions with anyone."""
    return Settings.load(
        redis_url=redis_url,
        bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        kafka_assignment="manual",
        kafka_fetch_max_wait_ms=10,
        topic_partitions=2,
        always_replay=always_replay,
    )


@pytest.fixture
def running(settings: Settings) -> Running:
    """Run an application in this process while the block lasts; yields a client."""

    @asynccontextmanager
    async def run(application: Application) -> AsyncIterator[Client]:
        # The worker makes them too, but a client may be quicker.
        plans = plan_topics(settings.namespace, application.services, partitions=2, replication_factor=1)
        await create_topics(settings.kafka_config(), plans)
        async with worker_engine(application, settings, surroundings()) as engine:
            working = asyncio.create_task(engine.run())
            try:
                async with Client(settings) as client:
                    yield client
            finally:
                engine.stop()
                await working

    return run
