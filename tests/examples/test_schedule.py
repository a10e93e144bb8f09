"""`examples/schedule.py`: a job that sends itself on."""

from __future__ import annotations

from examples.schedule import Plan, Tick, application, runs, start, stop, tick
from perdure import InvocationFilter
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways

OFTEN = Plan(every_s=0.05)

# So that the tick after it is far, too: one that is overdue comes at once.
FAR = 4_000_000_000.0


@both_ways
async def test_it_runs_until_it_is_stopped(running: Running) -> None:
    """Again and again; after the stop nothing is planned any more."""
    async with running(application) as client:
        await client.call(start, OFTEN, key="cleanup", timeout=PATIENCE)

        async def ran_often() -> bool:
            return await client.call(runs, key="cleanup", timeout=PATIENCE) >= 3

        await wait_until(ran_often)
        await client.call(stop, key="cleanup", timeout=PATIENCE)

        async def all_ended() -> bool:
            found = await client.list_invocations(InvocationFilter(service="Job", handler="tick"))
            return {view.status for view in found.invocations} == {"completed"}

        await wait_until(all_ended, description="the last tick found no plan")


async def test_ticks_of_an_earlier_start_do_nothing(running: Running) -> None:
    """Who starts a job twice has one that runs, not two."""
    async with running(application) as client:
        seldom = Plan(every_s=3_600)
        for _ in range(2):
            await client.call(start, seldom, key="cleanup", timeout=PATIENCE)
        await client.call(tick, Tick(start=1, at=FAR), key="cleanup", timeout=PATIENCE)
        assert await client.call(runs, key="cleanup", timeout=PATIENCE) == 0
        await client.call(tick, Tick(start=2, at=FAR), key="cleanup", timeout=PATIENCE)
        assert await client.call(runs, key="cleanup", timeout=PATIENCE) == 1
