"""Scenarios of the programming model: objects, calls, sleepers, fan-in."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

from redis.asyncio import Redis

from .deployment import CALL_TIMEOUT, Deployment
from .load import ClosedLoop
from .machine import resident_bytes
from .measuring import Measured, Moment, Plan, timed_windows

OBJECTS = 64
OBJECT_CALLS_AT_ONCE = 128
HOT_CALLS_AT_ONCE = 32

CALLS = 10
CALLERS_AT_ONCE = 32

FAN_IN = 100
FAN_INS_AT_ONCE = 4

SLEEPERS = 10_000
NAP_S = 30.0
SENDERS_AT_ONCE = 64

LOOK_S = 0.2
"""Between two counts of the sleepers."""


async def objects(deployment: Deployment, plan: Plan) -> Measured:
    """Adds to counters, spread over 64 keys."""
    return await _adds(deployment, plan, keys=OBJECTS, concurrency=OBJECT_CALLS_AT_ONCE)


async def hot_object(deployment: Deployment, plan: Plan) -> Measured:
    """Adds to one counter, one after another, with a queue that is never empty."""
    return await _adds(deployment, plan, keys=1, concurrency=HOT_CALLS_AT_ONCE)


async def _adds(deployment: Deployment, plan: Plan, *, keys: int, concurrency: int) -> Measured:
    names = itertools.cycle([f"key-{number}" for number in range(keys)])
    call = lambda: deployment.client.call("BenchCounter/add", 1, key=next(names), timeout=CALL_TIMEOUT)  # noqa: E731
    loop = ClosedLoop(call, concurrency)

    async def count() -> float:
        return loop.done

    def values(done: float, seconds: float) -> dict[str, float]:
        return {"rate": done / seconds, **loop.taken_ms()}

    async with loop.running():
        windows = await timed_windows(plan, deployment.pids(), count=count, values=values)
    units = {"rate": "adds/s", "p50": "ms", "p99": "ms"}
    return Measured(units, "add", windows, 2, concurrency, {"keys": keys})


async def calls(deployment: Deployment, plan: Plan) -> Measured:
    """A handler that calls ten others and waits for them; a call counts once its caller was answered."""
    return await _fans(deployment, plan, "Bench/fan_out", CALLS, CALLERS_AT_ONCE)


async def fan_in(deployment: Deployment, plan: Plan) -> Measured:
    """A handler that calls one object a hundred times at once and waits for all."""
    return await _fans(deployment, plan, "Bench/fan_in", FAN_IN, FAN_INS_AT_ONCE)


async def _fans(deployment: Deployment, plan: Plan, target: str, children: int, concurrency: int) -> Measured:
    loop = ClosedLoop(lambda: deployment.client.call(target, children, timeout=CALL_TIMEOUT), concurrency)

    async def count() -> float:
        return loop.done * children

    def values(done: float, seconds: float) -> dict[str, float]:
        return {"rate": done / seconds, **loop.taken_ms()}

    async with loop.running():
        windows = await timed_windows(plan, deployment.pids(), count=count, values=values)
    units = {"rate": "child calls/s", "p50": "ms", "p99": "ms"}
    return Measured(units, "child call", windows, 2, concurrency, {"children": children})


async def sleepers(deployment: Deployment, plan: Plan) -> Measured:
    """10,000 invocations that sleep for 30 s: what they cost in memory while they do. One window a round."""
    windows = []
    async with Redis.from_url(f"redis://{deployment.servers.redis.address}") as redis:
        redis_before, worker_before = await _used_bytes(redis), resident_bytes(deployment.worker.pid)
        moment = Moment(deployment.pids())
        began_s = time.perf_counter()
        todo = iter(range(SLEEPERS))

        async def send() -> None:
            for _ in todo:
                await deployment.client.send("Bench/nap", NAP_S)

        async with asyncio.TaskGroup() as senders:
            for _ in range(SENDERS_AT_ONCE):
                senders.create_task(send())
        async with asyncio.timeout(NAP_S):
            await _until(redis, lambda asleep: asleep == SLEEPERS)
        asleep_s = time.perf_counter() - began_s
        used = {
            "redis": (await _used_bytes(redis) - redis_before) / 1e6,
            "worker": (resident_bytes(deployment.worker.pid) - worker_before) / 1e6,
            "asleep_after": asleep_s,
        }
        await _until(redis, lambda asleep: asleep == 0)
        used["all_woken_after"] = time.perf_counter() - began_s
        windows.append(moment.until_now(SLEEPERS, used))
    units = {"redis": "MB", "worker": "MB", "asleep_after": "s", "all_woken_after": "s"}
    return Measured(units, "sleeper", windows, 4, SLEEPERS, {"seconds": NAP_S})


async def _until(redis: Redis, enough: Callable[[int], bool]) -> None:
    # Redis tells nobody when invocations fall asleep.
    while not enough(await _asleep(redis)):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)


async def _asleep(redis: Redis) -> int:
    pipeline = redis.pipeline(transaction=False)
    async for key in redis.scan_iter(match="bench:{*}:status:suspended", count=1_000):
        pipeline.zcard(key)
    return sum(await pipeline.execute())


async def _used_bytes(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])
