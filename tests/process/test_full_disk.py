"""A Redis whose disk is full: it refuses what it cannot keep, and work waits for room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal.redis_admin import opened
from perdure.schemas.errors import StoreError
from perdure.worker.server_process import ServerProcess
from tests.servers.full_disk import empty_disk, fill_disk, fillable_redis
from tests.waiting import wait_until

from .application import Act
from .stage import Stage

ACTS = (Act("step", 20), Act("sleep", 50), Act("together", 10))


@pytest.fixture
async def private_redis(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """Start a Redis of the test's own, whose disk can be filled."""
    server = fillable_redis(tmp_path / "private_redis")
    await server.start()
    yield server
    await server.kill()


async def fill(stage: Stage, redis: ServerProcess) -> None:
    """Fill the disk, and return once Redis has noticed."""
    fill_disk(redis, redis.log_path.parent)

    async def refuses() -> bool:
        async with opened(stage.settings.redis_config) as line:
            try:
                await line.ask("SET", "ballast", "x" * 100)
            except StoreError as error:
                return "MISCONF" in str(error)
        return False

    await wait_until(refuses, description="Redis refuses writes")


async def test_worker_that_starts_while_the_disk_is_full_begins_when_there_is_room(
    private_stage: Stage, private_redis: ServerProcess
) -> None:
    """A full disk is an outage and no wrong setting: the worker says so and waits, and loses nothing."""
    stage = private_stage
    await fill(stage, private_redis)
    worker = await stage.start()
    await wait_until(lambda: worker.said("append-only file failed"), description="it has looked")
    await wait_until(lambda: worker.said("the worker waits for it"), description="it waits")
    empty_disk(private_redis)
    await worker.ready()
    await stage.send_through_outage("r", *ACTS)
    await stage.finished()
    await stage.check()


async def test_work_waits_for_room_on_the_disk(private_stage: Stage, private_redis: ServerProcess) -> None:
    """What runs when the disk gets full stands still, and goes on when there is room, without a failed attempt."""
    stage = private_stage
    worker = await stage.start_ready(lease_s="10")
    for number in range(10):
        await stage.send_through_outage(f"r{number}", Act("step"), Act("step", 500), *ACTS)
    await fill(stage, private_redis)
    await stage.pause(1.0)
    empty_disk(private_redis)
    await stage.finished()
    assert worker.alive
    await stage.check()
    await stage.check_no_failures()
