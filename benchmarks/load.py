"""Scenarios that load a worker through Kafka, as callers do: steps, noop, latency, sequential."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from redis.asyncio import Redis

from .application import PAYLOAD_BYTES
from .deployment import CALL_TIMEOUT, Deployment
from .measuring import Measured, Moment, Plan, Window, percentile, timed_windows

STEPS = 100
STEPS_AT_ONCE = 64
NOOPS_AT_ONCE = 128
SEQUENTIAL_STEPS = 1_000

OWN_ENTRIES = 2
"""Entries of an invocation that are no steps: its input and its output."""


class ClosedLoop:
    """Callers of whom each calls again as soon as it was answered.

    Args:
        call: One call.
        concurrency: How many callers.
    """

    def __init__(self, call: Callable[[], Awaitable[object]], concurrency: int) -> None:
        self.done = 0
        self._call = call
        self._concurrency = concurrency
        self._seconds: list[float] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load while the block runs; what is under way at its end is abandoned. A failed call fails the block."""
        async with asyncio.TaskGroup() as callers:
            tasks = [callers.create_task(self._loop()) for _ in range(self._concurrency)]
            yield
            for task in tasks:
                task.cancel()

    def taken_ms(self) -> dict[str, float]:
        """Percentiles of the calls that ended since this was asked last, in milliseconds."""
        seconds, self._seconds = self._seconds, []
        return {name: percentile(seconds, share) * 1e3 for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}

    async def _loop(self) -> None:
        while True:
            began_s = time.perf_counter()
            await self._call()
            self._seconds.append(time.perf_counter() - began_s)
            self.done += 1


async def steps(deployment: Deployment, plan: Plan) -> Measured:
    """Invocations of 100 steps, 64 at once. A step counts once its entry is in the journal, as Redis counts entries."""
    loop = ClosedLoop(lambda: deployment.client.call("Bench/steps", STEPS, timeout=CALL_TIMEOUT), STEPS_AT_ONCE)
    async with Redis.from_url(f"redis://{deployment.servers.redis.address}") as redis, loop.running():

        async def count() -> float:
            statistics = await redis.info("commandstats")
            return float(statistics["cmdstat_xadd"]["calls"] - OWN_ENTRIES * loop.done)

        def values(recorded: float, seconds: float) -> dict[str, float]:
            return {"rate": recorded / seconds, **loop.taken_ms()}

        windows = await timed_windows(plan, deployment.pids(), count=count, values=values)
    units = {"rate": "steps/s", "p50": "ms", "p99": "ms"}
    return Measured(units, "step", windows, PAYLOAD_BYTES, STEPS_AT_ONCE, {"steps_per_invocation": STEPS})


async def noop(deployment: Deployment, plan: Plan) -> Measured:
    """Invocations that do nothing, 128 at once."""
    windows = await _noops(deployment, plan, NOOPS_AT_ONCE)
    return Measured({"rate": "invocations/s", "p50": "ms", "p99": "ms"}, "invocation", windows, 4, NOOPS_AT_ONCE)


async def latency(deployment: Deployment, plan: Plan) -> Measured:
    """One invocation at a time that does nothing, from the call to its result."""
    windows = await _noops(deployment, plan, 1)
    units = {"p50": "ms", "p90": "ms", "p99": "ms", "rate": "invocations/s"}
    return Measured(units, "invocation", windows, 4, 1)


async def _noops(deployment: Deployment, plan: Plan, concurrency: int) -> list[Window]:
    loop = ClosedLoop(lambda: deployment.client.call("Bench/noop", timeout=CALL_TIMEOUT), concurrency)

    async def count() -> float:
        return loop.done

    def values(done: float, seconds: float) -> dict[str, float]:
        return {"rate": done / seconds, **loop.taken_ms()}

    async with loop.running():
        return await timed_windows(plan, deployment.pids(), count=count, values=values)


async def sequential(deployment: Deployment, plan: Plan) -> Measured:
    """One invocation of 1,000 steps one after another, from the call to its result; each window is one of them."""
    windows = []
    for number in range(plan.windows + 1):
        moment = Moment(deployment.pids())
        await deployment.client.call("Bench/steps", SEQUENTIAL_STEPS, timeout=CALL_TIMEOUT)
        seconds = time.perf_counter() - moment.at_s
        window = moment.until_now(SEQUENTIAL_STEPS, {"time": seconds, "per_step": seconds / SEQUENTIAL_STEPS * 1e3})
        # The first one warms up.
        windows += [window] if number else []
    return Measured({"time": "s", "per_step": "ms"}, "step", windows, PAYLOAD_BYTES, 1)
