"""The application that the worker processes of these tests run: handlers that do what their argument says.

Each step leaves a line in the effects file and returns the name of that very execution, so that an outcome tells which
executions its journal recorded.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from perdure import Context, InvocationRetryPolicy, RunOptions, Service, app
from perdure.worker.clock import SystemClock

from .effects import DIRECTORY_VARIABLE, Effect, Effects

Kind = Literal["step", "thread", "together", "flaky", "sleep", "block", "freeze", "hold", "stuck", "die", "stubborn"]

# In the directory of the effects; what lets go of every `hold`.
LET_GO = "let-go"
HOLD_INTERVAL_S = 0.05

CRASH_LOOP_ATTEMPTS_MAX = 3

SERVICE = "Work"

_counter = itertools.count()
_clock = SystemClock()
_directory = Path(os.environ.get(DIRECTORY_VARIABLE, "/nonexistent"))
_effects = Effects(_directory)


@dataclass(frozen=True)
class Act:
    """One thing that a handler does.

    Attributes:
        kind: `step` and `thread` work `ms` in a step, `together` in three at once; `flaky` fails the first time;
            `sleep` is durable; `block` blocks the event loop after a step, `freeze` without one, `hold` without one in
            the first attempt until `LET_GO` is there; `die` kills the process in a step, the first time; `stuck` holds
            the interpreter for ever in one, likewise; `stubborn` works in a step and will not be cancelled.
        ms: How long, at most.
    """

    kind: Kind
    ms: int = 0


@dataclass(frozen=True)
class Plan:
    """What an invocation is to do; `tag` tells its record from all others."""

    tag: str
    acts: list[Act] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """The outcome: the executions whose results the handler saw, in program order."""

    tag: str
    executions: list[str]


work = Service(SERVICE, invocation_retry_policy=InvocationRetryPolicy(initial_interval=timedelta(milliseconds=50)))


@work.handler()
async def perform(ctx: Context, plan: Plan) -> Report:
    """Do one act after the other."""
    seen: list[str] = []
    for number, act in enumerate(plan.acts):
        name = f"{number}-{act.kind}"
        match act.kind:
            case "sleep":
                await ctx.sleep(timedelta(milliseconds=act.ms))
            case "block":
                seen.append(await ctx.run(name, _step(ctx, name, act)))
                time.sleep(act.ms / 1000)  # noqa: ASYNC251 - to block the loop is the point
            case "freeze":
                time.sleep(act.ms / 1000)  # noqa: ASYNC251 - likewise, and nothing before it
            case "hold":
                _hold(ctx, act.ms)
            case "together":
                names = [f"{name}-{i}" for i in range(3)]
                seen += await asyncio.gather(*(ctx.run(each, _step(ctx, each, act)) for each in names))
            case "thread":
                seen.append(await ctx.run(name, functools.partial(_thread, ctx, name, act)))
            case "flaky":
                again = RunOptions[str](max_attempts=5, initial_retry_interval=timedelta(milliseconds=20))
                seen.append(await ctx.run_typed(name, _step(ctx, name, act), again))
            case "step" | "die" | "stuck" | "stubborn":
                seen.append(await ctx.run(name, _step(ctx, name, act)))
    return Report(plan.tag, seen)


@work.handler(invocation_retry_policy=InvocationRetryPolicy(max_attempts=CRASH_LOOP_ATTEMPTS_MAX))
async def hog(ctx: Context, plan: Plan) -> Report:
    """Take all memory that the process may have, in every attempt, and then some."""
    _begin(ctx, "hog", fails=True, key="")
    allowed = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])  # noqa: ASYNC240 - a file of the kernel's
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 100_000_000, allowed[1]))
    try:
        held = [bytearray(10_000_000) for _ in range(10_000)]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, allowed)
    return Report(plan.tag, [str(len(held))])


@work.handler()
async def vandalise(ctx: Context, plan: Plan) -> Report:
    """Do to the process what no handler should: close its input and output, fork, leave tasks behind."""
    for stream in (sys.stdin, sys.stdout):
        stream.close()
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)  # noqa: ASYNC222 - it has ended at once
    for _ in range(20):
        asyncio.get_running_loop().create_task(asyncio.Event().wait())
    return Report(plan.tag, [await ctx.run("after", _step(ctx, "after", Act("step")))])


@work.handler(invocation_retry_policy=InvocationRetryPolicy(max_attempts=CRASH_LOOP_ATTEMPTS_MAX))
async def kill(ctx: Context, plan: Plan) -> Report:
    """Take the process down, in every attempt."""
    _begin(ctx, "kill", fails=True, key="")
    os.kill(os.getpid(), signal.SIGKILL)
    return Report(plan.tag, [])


def _step(ctx: Context, name: str, act: Act) -> functools.partial[Coroutine[Any, Any, str]]:
    return functools.partial(_work, ctx, name, act)


async def _work(ctx: Context, name: str, act: Act) -> str:
    key = ctx.request().step_idempotency_key or ""
    fails = act.kind in ("flaky", "die", "stuck") and _effects.first_time(key)
    execution = _begin(ctx, name, fails=fails, key=key)
    if fails and act.kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fails and act.kind == "stuck":
        # Inside of C with the interpreter's lock held: no thread of this process runs any more.
        re.match(r"(a+)+b", "a" * 60)
    if fails:
        raise RuntimeError("fails the first time, on purpose")
    if act.kind == "stubborn":
        await _stubbornly(act.ms)
    elif act.kind != "block":
        await asyncio.sleep(act.ms / 1000)
    return execution


def _thread(ctx: Context, name: str, act: Act) -> str:
    execution = _begin(ctx, name, fails=False, key=ctx.request().step_idempotency_key or "")
    time.sleep(act.ms / 1000)
    return execution


def _hold(ctx: Context, ms: int) -> None:
    end_ms = _clock.monotonic_ms() + ms
    let_go = _directory / LET_GO
    while ctx.request().attempt == 1 and not let_go.exists() and _clock.monotonic_ms() < end_ms:
        time.sleep(HOLD_INTERVAL_S)


async def _stubbornly(ms: int) -> None:
    end_ms = _clock.monotonic_ms() + ms
    while (left_ms := end_ms - _clock.monotonic_ms()) > 0:
        try:
            await asyncio.sleep(left_ms / 1000)
        except asyncio.CancelledError:
            continue


def _begin(ctx: Context, name: str, *, fails: bool, key: str) -> str:
    request = ctx.request()
    execution = f"{name}/{request.attempt}/{os.getpid()}/{next(_counter)}"
    now_ms = int(_clock.monotonic_ms())
    _effects.append(Effect(request.id, name, request.attempt, execution, key, os.getpid(), now_ms, fails))
    return execution


application = app([work])
