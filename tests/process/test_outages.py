"""Redis and Kafka killed under load, and away at the start: work stalls, and goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from perdure.worker.server_process import ServerProcess
from tests.servers.lane import LANE
from tests.servers.power_loss import lose_unvouched
from tests.waiting import wait_until

from .application import Act
from .stage import Stage

# Offsets of a broker without a disk mean nothing after its restart: some may have been committed for its lost topics.
DISK = LANE != "embedded"

ACTS = (Act("step", 20), Act("sleep", 50), Act("together", 10), Act("step", 20))


async def send_many(stage: Stage, *, count: int) -> None:
    """Records at random intervals, each one until it is acknowledged."""
    for number in range(count):
        await stage.send_through_outage(f"r{number}", *ACTS)
        await asyncio.sleep(stage.chance.uniform(0, 0.1))


async def test_redis_killed_and_restarted_under_load(private_stage: Stage, private_redis: ServerProcess) -> None:
    """A Redis that comes back with its append-only file is gone on with; workers are not restarted."""
    stage = private_stage
    workers = await stage.start_two()

    async def restart() -> None:
        for _ in range(2):
            await asyncio.sleep(stage.chance.uniform(0.5, 1.5))
            await private_redis.kill()
            await asyncio.sleep(stage.chance.uniform(0, 1.0))
            await private_redis.start()

    await asyncio.gather(send_many(stage, count=50), restart())
    await stage.finished()
    assert all(worker.alive for worker in workers)
    assert all(worker.log().count("Redis") < 40 for worker in workers), workers[0].log()
    await stage.check(epochs_kept=False)


async def test_redis_that_lost_its_newest_writes(private_stage: Stage, private_redis: ServerProcess) -> None:
    """What was not durable is lost: admissions come again from Kafka; steps and claims are repeated."""
    stage = private_stage
    # Every sleep is a suspension and every wake-up a claim, so that claims are among what is lost.
    workers = await stage.start_two(inactivity_timeout_s="0.01")

    async def lose() -> None:
        for _ in range(2):
            await asyncio.sleep(stage.chance.uniform(0.8, 1.5))
            await private_redis.kill()
            lose_unvouched(private_redis.log_path.parent)
            await private_redis.start()

    await asyncio.gather(send_many(stage, count=50), lose())
    await stage.finished()
    assert all(worker.alive for worker in workers)
    await stage.check(epochs_kept=False)


async def test_broker_killed_and_restarted_under_load(private_stage: Stage, private_broker: ServerProcess) -> None:
    """Everything that was acknowledged by a broker with a disk, or admitted from one without, runs to its end."""
    stage = private_stage
    workers = await stage.start_two()
    producing = asyncio.create_task(send_many(stage, count=50))
    await asyncio.sleep(stage.chance.uniform(0.5, 1.5))
    await stage.forget_unadmitted_after(private_broker.kill)
    await asyncio.sleep(stage.chance.uniform(0, 1.0))
    await stage.restart_broker(private_broker)
    await producing
    await stage.finished(offsets=DISK)
    assert all(worker.alive for worker in workers)
    await stage.check()


async def test_both_servers_killed_and_restarted(
    private_stage: Stage, private_redis: ServerProcess, private_broker: ServerProcess
) -> None:
    """Both come back, in either order, and work goes on by itself."""
    stage = private_stage
    workers = await stage.start_two()
    producing = asyncio.create_task(send_many(stage, count=50))
    await asyncio.sleep(stage.chance.uniform(0.5, 1.5))
    await stage.forget_unadmitted_after(private_broker.kill)
    await private_redis.kill()
    starts: list[Callable[[], Awaitable[None]]] = [private_redis.start, partial(stage.restart_broker, private_broker)]
    stage.chance.shuffle(starts)
    for start in starts:
        await asyncio.sleep(stage.chance.uniform(0, 1.0))
        await start()
    await producing
    await stage.finished(offsets=DISK)
    assert all(worker.alive for worker in workers)
    await stage.check(epochs_kept=False)


async def test_worker_that_starts_before_its_servers_begins_when_they_come(
    private_stage: Stage, private_redis: ServerProcess, private_broker: ServerProcess
) -> None:
    """Neither Redis nor Kafka is there: the worker waits, says so once, and begins by itself."""
    stage = private_stage
    await private_redis.kill()
    await private_broker.kill()
    worker = await stage.start()
    await wait_until(lambda: worker.said("the worker waits for it"), description="it has found no Redis")
    await private_redis.start()
    await stage.pause(0.5)
    await private_broker.start()
    await worker.ready()
    await stage.send_through_outage("r", *ACTS)
    await stage.finished()
    assert worker.said("the worker waits for it") == 1
    assert worker.said("is not reachable, work waits for it") <= 1, "it may have come in time"
    await stage.check()
