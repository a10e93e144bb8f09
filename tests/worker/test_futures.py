"""Durable futures under asyncio's own tools, gathers of gathers included: `perdure.worker.futures`."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.errors import TerminalError
from perdure.worker.context import Context
from perdure.worker.options import RunOptions
from tests.worker.attempt_stage import Stage


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4])
async def test_results_wait_for_chains_of_callbacks(plain_stage: Stage, depth: int) -> None:
    """Two results that are both in the journal reach the handler one at a time, through gathers of gathers, too."""

    async def play(ctx: Context) -> list[str]:
        async def step(name: str) -> str:
            return name

        def wrapped(name: str, times: int) -> asyncio.Future[Any]:
            future: asyncio.Future[Any] = ctx.run_typed(name, step, RunOptions(), name)
            for _ in range(times):
                future = asyncio.gather(future)
            return future

        first, second = wrapped("first", depth), wrapped("second", 0)
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        seen = [name for name, future in (("first", first), ("second", second)) if future in done]
        await asyncio.gather(first, second)
        return seen

    story = await plain_stage.play(play)
    assert story.result == ["first"]


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_results_wait_for_tasks_inside_gathers(plain_stage: Stage, depth: int) -> None:
    """A task that ended is noticed by what waits for it, through gathers of gathers, before the next result comes."""

    async def play(ctx: Context) -> list[str]:
        async def step(name: str) -> str:
            return name

        async def sub(name: str) -> str:
            return await ctx.run_typed(name, step, RunOptions(), name)

        def wrapped(name: str, times: int) -> asyncio.Future[Any]:
            future: asyncio.Future[Any] = asyncio.create_task(sub(name))
            for _ in range(times):
                future = asyncio.gather(future)
            return future

        first, second = wrapped("first", depth), wrapped("second", 0)
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        seen = [name for name, future in (("first", first), ("second", second)) if future in done]
        await asyncio.gather(first, second)
        return seen

    story = await plain_stage.play(play)
    assert story.result == ["first"]


async def test_sets_of_futures_have_one_order(stage: Stage) -> None:
    """What `asyncio.wait` returns as a set can be iterated: its order is the same in every replay."""

    async def play(ctx: Context) -> list[str]:
        async def step(name: str) -> str:
            return name

        done, _ = await asyncio.wait({ctx.run_typed(f"s{n}", step, RunOptions(), f"s{n}") for n in range(20)})
        names = []
        for future in done:
            names.append(future.result())
            await ctx.run(f"after {names[-1]}", lambda: None)
        if ctx.request().attempt < 3:
            raise ValueError("so that there is another attempt")
        return names

    story = await stage.play(play)
    assert len(story.result) == 20


async def test_a_result_can_be_awaited_many_times(stage: Stage) -> None:
    """A durable future keeps its result, for one task or several."""

    async def play(ctx: Context) -> list[int]:
        future = ctx.run("step", lambda: 7, type_hint=int)

        async def other() -> int:
            return await future

        return [await future, await future, *await asyncio.gather(other(), other(), future)]

    story = await stage.play(play)
    assert story.result == [7] * 5
    assert story.steps == ["step"]


async def test_failures_that_nobody_awaits_are_not_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """They are in the journal; who leaves before awaiting one, such as a suspended handler, has lost nothing."""

    async def play(ctx: Context) -> str:
        async def step() -> None:
            raise TerminalError("for good")

        failing = ctx.run("fails", step)
        await ctx.sleep(timedelta(milliseconds=1))
        await ctx.run("succeeds", lambda: None)
        return f"{failing.done()}"

    story = await stage.play(play)
    gc.collect()
    assert "fails" in story.steps
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
