"""SIGKILL at any instant: nothing is lost, nothing that was recorded is done again, work goes on elsewhere."""

from __future__ import annotations

import asyncio

from .application import Act
from .stage import Stage


async def test_workers_killed_at_random_instants_lose_and_repeat_nothing(stage: Stage) -> None:
    """Two workers are killed and replaced, one after the other, while many short invocations run."""
    await stage.create_topics()
    workers = await stage.start_two()
    short = [Act("step", 10), Act("together", 5), Act("sleep", 20), Act("flaky"), Act("thread", 5)]

    async def produce() -> None:
        for number in range(90):
            await stage.send(f"r{number}", *stage.chance.sample(short, len(short)))
            await asyncio.sleep(stage.chance.uniform(0, 0.08))

    async def destroy() -> None:
        for _ in range(3):
            await asyncio.sleep(stage.chance.uniform(0.5, 1.5))
            victim = workers.pop(stage.chance.randrange(2))
            await victim.kill()
            workers.append(await stage.start())

    await asyncio.gather(produce(), destroy())
    await stage.finished()
    await stage.check()
