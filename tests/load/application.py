"""What is run under load: handlers that write down, outside of Redis, that they ran (`ledger.py`).

Retention is short, so that Redis holds what is under way and little else, or long, where outcomes are counted there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.application import bench, counter
from perdure import Context, ObjectContext, Service, VirtualObject, app
from perdure.worker.application import Application
from perdure.worker.clock import SystemClock

from .ledger import DIRECTORY_VARIABLE, Ledger

RETENTION_VARIABLE = "PERDURE_TEST_RETENTION_S"

NAPS = "naps"
"""The ledger of naps: by how many milliseconds each ended too late, and when it should have."""

NAPS_MAX = 20
"""Of one invocation, which then sends the next: each resume replays those before."""

TASKS_INTERVAL_S = 1.0
"""Between two notes of how many tasks a worker has."""

_clock = SystemClock()
_directory = Path(os.environ.get(DIRECTORY_VARIABLE, "/nonexistent"))
_ledger = Ledger(_directory)
_naps = Ledger(_directory, NAPS)


@dataclass(frozen=True)
class Alarm:
    """Which sleeper, and when it is to wake."""

    number: int
    at_ms: int


@dataclass(frozen=True)
class Walked:
    """The sum over all steps, in which attempt, and how long that one took to its first new step."""

    total: int
    attempt: int
    replayed_s: float


load = Service("Load")


@load.handler()
async def record(ctx: Context, number: int) -> int:
    """Be run: the small record of a backlog."""
    _ledger.add(number, _clock.now_ms())
    return number


@load.handler()
async def wake_at(ctx: Context, order: Alarm) -> int:
    """Sleep durably until that time, and return by how many milliseconds it was exceeded."""
    await ctx.sleep(timedelta(milliseconds=max(0, order.at_ms - await ctx.run("now", _now_ms))))
    woke_ms = _clock.now_ms()
    _ledger.add(order.number, woke_ms)
    return woke_ms - order.at_ms


@load.handler(inactivity_timeout=timedelta(0))
async def keep_napping(ctx: Context, nap_ms: int) -> None:
    """Sleep, suspended, again and again until a file says that it is enough; a ledger tells how late each nap ended."""
    due_ms = await ctx.run_typed("look", _look, nap_ms=nap_ms, due_ms=None)
    for _ in range(NAPS_MAX):
        if due_ms is None:
            return
        await ctx.sleep(timedelta(milliseconds=nap_ms))
        due_ms = await ctx.run_typed("look", _look, nap_ms=nap_ms, due_ms=due_ms)
    ctx.service_send(keep_napping, nap_ms)


@load.handler()
async def walk(ctx: Context, steps: int) -> Walked:
    """Run steps one after another, each of which leaves a line; say how long it took to come to the first new one.

    The first attempt never ends by itself, so that there is one to be killed: it stops at three quarters.
    """
    began_s, replayed_s = time.perf_counter(), 0.0
    stop_at = steps * 3 // 4 if ctx.request().attempt == 1 else -1

    async def step(number: int) -> int:
        nonlocal replayed_s
        replayed_s = replayed_s or time.perf_counter() - began_s
        if number == stop_at:
            await asyncio.Event().wait()
        _ledger.add(number, _clock.now_ms())
        return number

    total = 0
    for number in range(steps):
        total += await ctx.run_typed("step", step, number=number)
    # What is measured differs in each attempt, and nothing depends on it.
    return Walked(total, ctx.request().attempt, await ctx.run_typed("replayed", _given, value=replayed_s))


@load.handler()
async def two_steps(ctx: Context, number: int) -> int:
    """Run two steps that leave a line each, with some work between them: 2 n and 2 n + 1."""
    for step in (2 * number, 2 * number + 1):
        await ctx.run_typed("step", _worked, number=step)
    return number


@load.handler()
async def gate(ctx: Context) -> str:
    """Wait for somebody to signal, and return what he says."""
    return await ctx.signal("open", type_hint=str)


line = VirtualObject("Line")


@line.handler()
async def hold(ctx: ObjectContext) -> None:
    """Hold the object until somebody signals."""
    await ctx.signal("open")


@line.handler()
async def pass_through(ctx: ObjectContext, number: int) -> int:
    """Be counted, when it is one's turn."""
    passed = (await ctx.get("passed", type_hint=int) or 0) + 1
    ctx.set("passed", passed)
    _ledger.add(number, _clock.now_ms())
    return passed


async def _now_ms() -> int:
    return _clock.now_ms()


async def _look(nap_ms: int, due_ms: int | None) -> int | None:
    """Write down how late a nap ended, and when the next one is due; `None` where it is enough."""
    now_ms = _clock.now_ms()
    if due_ms is not None:
        _naps.add(now_ms - due_ms, due_ms)
    return None if (_directory / "enough").exists() else now_ms + nap_ms


async def _given(value: float) -> float:
    return value


async def _worked(number: int) -> int:
    _ledger.add(number, _clock.now_ms())
    await asyncio.sleep(0.02)
    return number


@contextlib.asynccontextmanager
async def _counting_tasks(_application: Application) -> AsyncIterator[None]:
    """Keep the number of this process's tasks in a file, for who measures."""
    path = _directory / f"tasks-{os.getpid()}"

    async def note() -> None:
        while True:
            # Whole or not at all: it is read at any time.
            path.with_suffix(".new").write_text(str(len(asyncio.all_tasks())))
            path.with_suffix(".new").replace(path)
            await asyncio.sleep(TASKS_INTERVAL_S)

    async with asyncio.TaskGroup() as group:
        noting = group.create_task(note())
        yield
        noting.cancel()


_retention = timedelta(seconds=float(os.environ.get(RETENTION_VARIABLE, "10")))

application = app(
    [load, line, bench, counter],
    journal_retention=_retention,
    idempotency_retention=_retention,
    lifespan=_counting_tasks,
)
