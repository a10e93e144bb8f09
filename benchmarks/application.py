"""The application under measurement, written as a user would write it: `benchmarks.application:application`."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from datetime import timedelta

from perdure import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    RetryableError,
    RunOptions,
    Service,
    VirtualObject,
    app,
)

PAYLOAD_BYTES = 100
"""Of a step's result as JSON, the quotes included."""

RETRY = timedelta(milliseconds=50)
"""Between the two attempts of `replay`."""

bench = Service("Bench")


async def step() -> str:
    """Return 100 bytes of JSON that do not compress; the same work as in the peers' drivers."""
    return base64.b64encode(os.urandom(75))[: PAYLOAD_BYTES - 2].decode()


@bench.handler()
async def noop(ctx: Context) -> None:
    """Do nothing, durably."""


@bench.handler()
async def steps(ctx: Context, count: int) -> int:
    """Run `count` steps one after another."""
    for _ in range(count):
        await ctx.run_typed("s", step)
    return count


@bench.handler(invocation_retry_policy=InvocationRetryPolicy(initial_interval=RETRY, max_attempts=5))
async def replay(ctx: Context, count: int) -> float:
    """Run `count` steps, fail once, replay them in the second attempt; return how long that took, in seconds."""
    began_s = time.perf_counter()
    for _ in range(count):
        await ctx.run_typed("s", step)
    replayed_s = time.perf_counter() - began_s
    if ctx.request().attempt == 1:
        raise RetryableError("this attempt ends here, so that the next one replays it")
    return await ctx.run("first new step", lambda: _given(replayed_s))


counter = VirtualObject("BenchCounter")


@counter.handler()
async def add(ctx: ObjectContext, amount: int) -> int:
    """Read a number, add to it, write it, durably: the work of a counter or an account."""
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@bench.handler()
async def fan_out(ctx: Context, count: int) -> int:
    """Call `count` others at once and wait for them all."""
    calls = [ctx.service_call(echo, number) for number in range(count)]
    return sum([await call for call in calls])


@bench.handler()
async def echo(ctx: Context, number: int) -> int:
    """Give back what came."""
    return number


@bench.handler()
async def nap(ctx: Context, seconds: float) -> None:
    """Sleep durably."""
    await ctx.sleep(timedelta(seconds=seconds))


@bench.handler()
async def hold(ctx: Context, seconds: float) -> None:
    """Run one long step; a second attempt has nothing to wait for."""
    await ctx.run_typed("hold", asyncio.sleep, RunOptions(), seconds if ctx.request().attempt == 1 else 0)


@bench.handler()
async def fan_in(ctx: Context, count: int) -> int:
    """Call one object `count` times at once and wait for them all."""
    key = ctx.request().id
    calls = [ctx.object_call(add, key, 1) for _ in range(count)]
    return max([await call for call in calls])


async def _given(value: float) -> float:
    return value


application = app([bench, counter])
