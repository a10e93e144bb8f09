"""An application for the harness's own tests: it works, fails, diverges and waits, and counts what it really does."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from perdure import Application, Context, InvocationRetryPolicy, RunOptions, Service, app

SHORT = timedelta(milliseconds=10)
LONG = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Kitchen:
    """The application, how often its code did what, and whether somebody waits in it."""

    application: Application
    done: Counter[str]
    waiting: asyncio.Event


def new_kitchen() -> Kitchen:
    """Return a kitchen that nobody has used yet."""
    done: Counter[str] = Counter()
    waiting = asyncio.Event()
    return Kitchen(app([_good_service(done), _bad_service(done, waiting)]), done, waiting)


def _good_service(done: Counter[str]) -> Service:
    service = Service("Kitchen", invocation_retry_policy=InvocationRetryPolicy(initial_interval=SHORT))

    @service.handler()
    async def cook(ctx: Context, dish: str) -> str:
        done["began"] += 1
        washed = await ctx.run("wash", lambda: f"washed {dish}")
        return await ctx.run("cook", lambda: f"{washed}, cooked")

    @service.handler()
    async def burn(ctx: Context) -> str:
        done["burnt"] += 1
        if done["burnt"] < 3:
            raise ValueError("the pan is too hot")
        return "eaten"

    @service.handler(invocation_retry_policy=InvocationRetryPolicy(max_attempts=3))
    async def try_again(ctx: Context) -> str:
        return await burn(ctx)

    @service.handler()
    async def pour(ctx: Context) -> str:
        def carefully() -> str:
            done["poured"] += 1
            if done["poured"] < 3:
                raise ValueError("spilt")
            return "soup"

        return await ctx.run_typed("pour", carefully, RunOptions(max_attempts=3, initial_retry_interval=SHORT))

    return service


def _bad_service(done: Counter[str], waiting: asyncio.Event) -> Service:
    service = Service("Cellar", invocation_retry_policy=InvocationRetryPolicy(initial_interval=LONG, max_interval=LONG))

    @service.handler()
    async def drop(ctx: Context) -> None:
        def slip() -> None:
            done["dropped"] += 1
            raise OSError("the floor is wet")

        await ctx.run("carry", slip)

    @service.handler()
    async def diverge(ctx: Context) -> None:
        done["looked"] += 1
        await ctx.run(f"look number {done['looked']}", lambda: None)
        await ctx.run("eat", lambda: None)

    @service.handler()
    async def wait(ctx: Context) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            done["left"] += 1

    return service
