"""The stage of a test with worker processes, on shared servers or on servers of its own."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.worker.clock import system_random
from perdure.worker.server_process import ServerProcess

from .stage import Stage, set_stage

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
    async with set_stage(redis_url, bootstrap_servers, namespace, directory=tmp_path, chance=chance) as made:
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
    async with set_stage(redis_url, private_broker.address, namespace, directory=tmp_path, chance=chance) as made:
        yield made
