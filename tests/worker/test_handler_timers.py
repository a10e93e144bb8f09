"""What handlers do through asyncio, plainly and replayed at every await: `perdure.worker.handler_timers`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.schemas.entries import Sleep
from perdure.schemas.errors import UsageError
from perdure.worker.context import Context
from perdure.worker.handler_timers import prepare_loop
from tests.worker.asyncio_constructs import CASES, HOUR
from tests.worker.attempt_stage import Stage


@pytest.mark.parametrize("construct", CASES, ids=lambda construct: construct.__name__)
async def test_asyncio_means_the_same_in_every_replay(
    stage: Stage, construct: Callable[[Context], Awaitable[object]]
) -> None:
    """What a handler does with asyncio over durable commands replays, to the same result and the same journal."""
    ended: list[object] = []

    async def play(ctx: Context) -> object:
        result = await construct(ctx)
        # Once more from the beginning, with all of it in the journal.
        await ctx.run("the end", lambda: None)
        ended.append(result)
        if not stage.always_replay and len(ended) == 1:
            raise ValueError("so that there is another attempt")
        return result

    story = await stage.play(play)
    assert story.result == CASES[construct]
    assert stage.always_replay or len(story.failures) == 1


async def test_a_timer_of_asyncio_is_in_the_journal(plain_stage: Stage) -> None:
    """A handler that sleeps for days leaves memory, and asyncio's timers are named as what they are."""
    plain_stage.inactivity_ms = 5

    async def play(ctx: Context) -> str:
        await asyncio.sleep(86_400 * 3)
        return "awake"

    story = await plain_stage.play(play)
    assert story.result == "awake"
    assert [(entry.name, entry.duration_ms) for entry in story.entries if isinstance(entry, Sleep)] == [
        ("asyncio", 86_400_000 * 3)
    ]
    assert len(story.ends) == 2


async def test_a_timeout_is_decided_by_the_journal(plain_stage: Stage) -> None:
    """A timeout that came before the step's result in the first attempt comes before it in a replay, that has both."""
    seen: list[str] = []
    gate = asyncio.Event()

    async def play(ctx: Context) -> str:
        async def slow() -> str:
            await gate.wait()
            return "slow"

        future = ctx.run("slow", slow)
        try:
            async with asyncio.timeout(0.005):
                await future
            seen.append("in time")
        except TimeoutError:
            seen.append(f"timed out, {future.live.done()}")
        gate.set()
        value = await future
        if ctx.request().attempt == 1:
            raise ValueError("so that there is another attempt")
        return value

    assert (await plain_stage.play(play)).result == "slow"
    assert seen == ["timed out, False"] * 2


@pytest.mark.parametrize("how", ["to_thread", "run_in_executor"])
async def test_threads_of_a_handler_are_refused_by_name(plain_stage: Stage, how: str) -> None:
    """The message says what to use instead; steps may use threads as they like."""

    async def play(ctx: Context) -> str:
        async def inside() -> str:
            return await asyncio.to_thread(lambda: "in a thread")

        value = await ctx.run("step", inside)
        loop = asyncio.get_running_loop()
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "to_thread": lambda: asyncio.to_thread(lambda: None),
            "run_in_executor": lambda: loop.run_in_executor(None, lambda: None),
        }
        with pytest.raises(UsageError, match=rf"{how}.*ctx\.run"):
            await ways[how]()
        return value

    assert (await plain_stage.play(play)).result == "in a thread"


async def test_steps_keep_their_own_time(plain_stage: Stage) -> None:
    """What a step waits for is no command of the handler."""

    async def play(ctx: Context) -> str:
        async def inside() -> str:
            await asyncio.sleep(0.001)
            async with asyncio.timeout(5):
                return await asyncio.wait_for(asyncio.sleep(0.001, "rested"), 5)

        return await ctx.run("step", inside)

    story = await plain_stage.play(play)
    assert story.result == "rested"
    assert not any(isinstance(entry, Sleep) for entry in story.entries)


async def test_what_tidies_up_may_wait(plain_stage: Stage) -> None:
    """Once an attempt has ended, time is the loop's again: a `finally` that waits for a connection is no command."""
    tidied: list[str] = []

    async def play(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        finally:
            async with asyncio.timeout(5):
                await asyncio.sleep(0.001)
            tidied.append("up")
        return "awake"

    plain_stage.inactivity_ms = 5
    story = await plain_stage.play(play)
    assert story.result == "awake"
    assert tidied == ["up", "up"]
    assert len(story.ends) == 2


async def test_loops_are_given_back(stage: Stage) -> None:
    """Two workers on one loop may end in any order; afterwards the loop is as it was."""
    loop = asyncio.get_running_loop()
    before: dict[str, Any] = dict(vars(loop))
    undo_first, undo_second = prepare_loop(loop), prepare_loop(loop)
    undo_second()
    undo_first()
    assert {name: vars(loop).get(name) for name in before} == before
    assert await asyncio.sleep(0.001, "real") == "real"
