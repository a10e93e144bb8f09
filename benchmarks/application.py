"""The application under measurement, written as a user would write it: `benchmarks.application:application`."""

from __future__ import annotations

import base64
import os
import time
from datetime import timedelta

from perdure import Context, InvocationRetryPolicy, RetryableError, Service, app

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


async def _given(value: float) -> float:
    return value


application = app([bench])
