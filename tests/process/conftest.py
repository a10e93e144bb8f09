"""The stage of a test with worker processes, on shared servers or on servers of its own."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.worker.clock import system_random
from perdure.worker.server_process import ServerProcess
from perdure.worker.settings import Settings

from .stage import PARTITIONS, SLOTS, Stage

SEED_VARIABLE = "PERDURE_TEST_SEED"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts worker processes."""
    for item in items:
        if {"stage", "private_stage"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("process")


@pytest.fixture
def chance() -> random.Random:
    """Chance with a seed that a failure shows; set PERDURE_TEST_SEED to have it again."""
    seed = int(os.environ.get(SEED_VARIABLE) or system_random().getrandbits(32))
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201 - for the report of a failure
    return random.Random(seed)


@pytest.fixture
async def stage(
    redis_url: str, bootstrap_servers: str, namespace: str, chance: random.Random, tmp_path: Path
) -> AsyncIterator[Stage]:
    """Set the stage on the session's servers."""
    async with _stage(redis_url, bootstrap_servers, namespace, directory=tmp_path, chance=chance) as made:
        yield made


@pytest.fixture
async def private_stage(
    private_redis: ServerProcess,
    private_broker: ServerProcess,
    namespace: str,
    chance: random.Random,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    """Set the stage on servers of this test's own, to break them."""
    redis_url = f"redis://{private_redis.address}"
    async with _stage(redis_url, private_broker.address, namespace, directory=tmp_path, chance=chance) as made:
        yield made


@contextlib.asynccontextmanager
async def _stage(
    redis_url: str, bootstrap_servers: str, namespace: str, *, directory: Path, chance: random.Random
) -> AsyncIterator[Stage]:
    settings = Settings.load(
        redis_url=redis_url,
        bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        slots=SLOTS,
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        kafka_fetch_max_wait_ms=10,
        kafka_session_timeout_ms=1_000,
        lease_s=2,
        grace_s=5,
    )
    await open_namespace(settings.redis_config, namespace, slots=SLOTS)
    keys = Keys(namespace, slots=SLOTS)
    async with (
        connected_store(settings.redis_config, keys, name="perdure-test") as store,
        Stage(settings, store=store, directory=directory, chance=chance) as made,
    ):
        yield made
