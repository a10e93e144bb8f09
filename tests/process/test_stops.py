"""SIGTERM: what runs ends or is handed over, nobody waits for a lease, and no attempt counts as failed."""

from __future__ import annotations

import asyncio

from perdure.schemas.entries import AttemptFailed, Run, Sleep
from tests.servers.lane import LANE

from .application import Act
from .stage import LONG_LEASE_S, Stage


async def test_running_step_ends_within_the_grace(stage: Stage) -> None:
    """A step that is being executed at SIGTERM ends, and its result is recorded by the worker that stops."""
    stopping = await stage.start_ready(lease_s=LONG_LEASE_S)
    await stage.send("r", Act("step", 1_500))
    await stage.executing("r", "0-step")
    assert await stage.start(lease_s=LONG_LEASE_S)
    assert await stopping.terminate() == 0
    await stage.finished()
    assert len(await stage.executed("r")) == 1
    await stage.check()
    await stage.check_no_failures()


async def test_waiting_invocation_goes_to_another_worker_at_once(stage: Stage) -> None:
    """What only sleeps is released at SIGTERM, and goes on elsewhere long before the lease would end."""
    await stage.start_two(lease_s=LONG_LEASE_S, grace_s="30")
    await stage.send("sleeper", Act("step"), Act("sleep", 6_000), Act("step"))
    await stage.until(lambda story: story.of_type(Sleep), tag="sleeper")
    stopping = await stage.worker_of("sleeper", "0-step")
    assert await stopping.terminate() == 0
    assert len((await stage.story("sleeper")).of_type(Run)) == 1, "it did not wait for the sleep"
    await stage.finished()
    await stage.check()
    await stage.check_no_failures()


async def test_what_outlasts_the_grace_is_handed_over(stage: Stage) -> None:
    """A step that is still being executed after the grace is cancelled, and executed again elsewhere at once."""
    await stage.start_two(lease_s=LONG_LEASE_S, grace_s="0.5")
    await stage.send("long", Act("step"), Act("step", 4_000))
    await stage.executing("long", "1-step")
    stopping = await stage.worker_of("long", "1-step")
    assert await stopping.terminate() == 0
    await stage.finished()
    assert len(await stage.executed("long", "1-step")) == 2
    assert len(await stage.executed("long", "0-step")) == 1
    await stage.check()
    await stage.check_no_failures()


async def test_step_that_cannot_be_ended_does_not_keep_the_process(stage: Stage) -> None:
    """A thread that goes on, and a step that swallows its cancellation, hold up SIGTERM for a bounded time."""
    stopping = await stage.start_ready(lease_s="1", grace_s="0.5")
    await stage.send("thread", Act("thread", 120_000))
    await stage.send("stubborn", Act("stubborn", 120_000))
    await stage.executing("thread", "0-thread")
    await stage.executing("stubborn", "0-stubborn")
    await stopping.terminate(timeout_s=14)


async def test_workers_that_come_and_go_lose_nothing_while_records_flow(stage: Stage) -> None:
    """Workers are started and stopped in a loop; each stop is orderly, and no attempt counts as failed."""
    await stage.create_topics()
    done = asyncio.Event()

    async def produce() -> None:
        number = 0
        while not done.is_set():
            await stage.send(f"r{number}", Act("step", 20), Act("sleep", 30), Act("together", 10), Act("thread", 5))
            number += 1
            await asyncio.sleep(stage.chance.uniform(0, 0.06))

    async def churn() -> None:
        for _ in range(3):
            worker = await stage.start_ready(lease_s=LONG_LEASE_S)
            await asyncio.sleep(stage.chance.uniform(0, 0.5))
            assert await worker.terminate() == 0
        done.set()

    async def relay() -> None:
        worker = await stage.start_ready(lease_s=LONG_LEASE_S)
        for _ in range(5):
            follower = await stage.start_ready(lease_s=LONG_LEASE_S)
            await asyncio.sleep(stage.chance.uniform(0, 0.5))
            assert await worker.terminate() == 0
            worker = follower
        done.set()

    if LANE == "embedded":
        # That broker lets nobody join a group any more that its last two members left at the same moment.
        await asyncio.gather(produce(), relay())
    else:
        await asyncio.gather(produce(), churn(), churn())
        await stage.start(lease_s=LONG_LEASE_S)
    await stage.finished()
    await stage.check()
    await stage.check_no_failures()


async def test_failed_attempts_are_only_real_ones(stage: Stage) -> None:
    """The checker of the tests above does see a failure where a worker was killed."""
    worker = await stage.start_ready(lease_s="1")
    await stage.send("r", Act("step", 60_000))
    await stage.executing("r", "0-step")
    await worker.kill()
    await stage.start(lease_s="1")
    await stage.until(lambda story: story.of_type(AttemptFailed), tag="r")
