"""Steps of the application under chaos: each execution leaves a line of its own, and returns its name."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from datetime import timedelta
from pathlib import Path
from typing import Final

from perdure import Context, InvocationRetryPolicy
from perdure.worker.clock import SystemClock
from tests.process.effects import DIRECTORY_VARIABLE, Effect, Effects

from .marks import Mark, Marks

RETENTION_VARIABLE: Final = "PERDURE_TEST_RETENTION_S"
RETENTION: Final = timedelta(seconds=float(os.environ.get(RETENTION_VARIABLE, "3600")))

RETRY: Final = InvocationRetryPolicy(initial_interval=timedelta(milliseconds=50), max_interval=timedelta(seconds=2))

_counter = itertools.count()
_clock = SystemClock()
_directory = Path(os.environ.get(DIRECTORY_VARIABLE, "/nonexistent"))
_effects, _marks = Effects(_directory), Marks(_directory)


async def step(ctx: Context, name: str, ms: int) -> str:
    """Work for so long in a step; returns the name of the execution that is recorded."""
    return await ctx.run(name, functools.partial(_work, ctx, name, ms))


async def ask(ctx: Context, awakeable_id: str) -> str:
    """Tell a person, in a step, what is waited for."""
    return await ctx.run("ask", functools.partial(_ask, ctx, awakeable_id))


async def _work(ctx: Context, name: str, ms: int) -> str:
    execution = _begin(ctx, name)
    await asyncio.sleep(ms / 1000)
    return execution


async def _ask(ctx: Context, awakeable_id: str) -> str:
    execution = _begin(ctx, "ask")
    now_ms = int(_clock.monotonic_ms())
    _marks.append(Mark("asked", os.getpid(), now_ms, now_ms, awakeable_id))
    return execution


def _begin(ctx: Context, name: str) -> str:
    request = ctx.request()
    execution = f"{name}/{request.attempt}/{os.getpid()}/{next(_counter)}"
    key, now_ms = request.step_idempotency_key or "", int(_clock.monotonic_ms())
    _effects.append(Effect(request.id, name, request.attempt, execution, key, os.getpid(), now_ms, fails=False))
    return execution
