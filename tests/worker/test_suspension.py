"""When an attempt that only waits leaves memory: `perdure.worker.suspension`."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from perdure.journal.store import Appended, Lease
from perdure.schemas.entries import Entry, Sleep
from perdure.worker.conclusion import run_attempt
from perdure.worker.context import Context
from perdure.worker.departures import Completed, Left, Released, Releasing
from perdure.worker.options import RunOptions
from tests.waiting import PATIENCE_S, wait_until
from tests.worker.attempt_stage import Stage

HOUR = timedelta(hours=1)


class Gated:
    """A store whose suspensions wait until the test lets them through; the rest is the store in memory."""

    def __init__(self, stage: Stage) -> None:
        self._memory = stage.memory
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    async def suspend(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, wake_in_ms: int | None
    ) -> Appended | None:
        """See `Store.suspend`."""
        self.asked.set()
        await self.gate.wait()
        return await self._memory.suspend(lease, entries, after=after, seq=seq, wake_in_ms=wake_in_ms)


async def sleeper(ctx: Context) -> str:
    """Sleep for an hour."""
    await ctx.sleep(HOUR)
    return "awake"


async def test_a_long_sleep_leaves_at_once(plain_stage: Stage) -> None:
    """Beyond the inactivity timeout there is nothing to wait for in memory, nor a timer in the worker's mind."""
    plain_stage.inactivity_ms = 600_000
    async with asyncio.timeout(PATIENCE_S):
        story = await plain_stage.play(sleeper)
    assert story.result == "awake"
    assert story.ends[0] == Left("suspended")
    assert [end for end in story.ends if isinstance(end, Completed)] == story.ends[1:]
    assert plain_stage.expected_ms == []


async def test_a_short_sleep_stays_in_memory(plain_stage: Stage) -> None:
    """Within the inactivity timeout the attempt waits, and goes on without being claimed again."""

    async def play(ctx: Context) -> str:
        await ctx.sleep(timedelta(milliseconds=10))
        return "awake"

    story = await plain_stage.play(play)
    assert story.result == "awake"
    assert len(story.ends) == 1
    assert len(plain_stage.expected_ms) == 1


async def test_inactivity_ends_a_wait(plain_stage: Stage) -> None:
    """A wait whose end is not known to be far away leaves after the inactivity timeout."""
    plain_stage.inactivity_ms = 20

    async def play(ctx: Context) -> tuple[None, None]:
        # Through asyncio's gather it is not certain that the handler waits for nothing else.
        return await asyncio.gather(ctx.sleep(HOUR), ctx.sleep(2 * HOUR))

    story = await plain_stage.play(play)
    assert story.result == [None, None]
    assert [end.status for end in story.ends if isinstance(end, Left)] == ["suspended", "suspended"]


async def test_what_arrived_meanwhile_is_seen(plain_stage: Stage) -> None:
    """A timer that fires while the suspension is on its way is handed out, and the attempt stays."""
    plain_stage.inactivity_ms = 10
    gated = Gated(plain_stage)
    plain_stage.store = gated

    async def play(ctx: Context) -> str:
        await asyncio.gather(ctx.sleep(timedelta(minutes=1)))
        return "awake"

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    await gated.asked.wait()
    plain_stage.clock.skip(120_000)
    plain_stage.sweep()
    gated.gate.set()
    assert isinstance(await running, Completed)
    assert (await plain_stage.look(story)).result == "awake"


async def test_news_of_something_else_do_not_keep_it_in_memory(plain_stage: Stage) -> None:
    """After a suspension that came too late because of another timer, the attempt leaves again."""
    gated = Gated(plain_stage)
    plain_stage.store = gated

    async def play(ctx: Context) -> str:
        ctx.sleep(timedelta(minutes=10))
        await ctx.sleep(HOUR)
        return "awake"

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    await gated.asked.wait()
    plain_stage.clock.skip(700_000)
    plain_stage.sweep()
    gated.gate.set()
    assert isinstance(end := await running, Left)
    assert end.status == "suspended"
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert story.result == "awake"


async def test_no_step_is_executed_while_leaving(plain_stage: Stage) -> None:
    """A step whose pause ends while the suspension is on its way is executed by the next attempt, once."""
    gated = Gated(plain_stage)
    plain_stage.store = gated
    plain_stage.inactivity_ms = 10
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        async def step() -> None:
            ran["step"] += 1
            if ran["step"] == 1:
                raise ValueError("not yet")

        await asyncio.gather(ctx.run_typed("step", step, RunOptions(initial_retry_interval=timedelta(milliseconds=40))))
        return "done"

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    await gated.asked.wait()
    attempt = plain_stage.attempt
    assert attempt is not None
    await wait_until(lambda: not attempt.steps.backing_off, description="the step's pause is over")
    assert ran["step"] == 1
    gated.gate.set()
    assert isinstance(await running, Left)
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert story.result == "done"
    assert ran["step"] == 2


@pytest.mark.parametrize("poke", [lambda attempt: attempt.fetch(), lambda attempt: attempt.poke(10**9)])
async def test_a_hint_and_a_suspension_may_cross(plain_stage: Stage, poke: Callable[[Any], None]) -> None:
    """An attempt that is told to look at its journal at any moment of its leaving still leaves."""
    plain_stage.inactivity_ms = 3

    async def play(ctx: Context) -> str:
        await asyncio.gather(ctx.sleep(HOUR))
        return "awake"

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.01
    while not running.done() and loop.time() < until:
        if plain_stage.attempt is not None:
            poke(plain_stage.attempt)
        await asyncio.sleep(0)
    assert isinstance(end := await running, Left)
    assert end.status == "suspended"


async def test_a_suspended_attempt_is_gone(plain_stage: Stage) -> None:
    """Nothing of a suspended attempt, and nothing of its handler, stays in memory."""
    seen: list[weakref.ref[Any]] = []

    class Big:
        """What a handler holds."""

    async def play(ctx: Context) -> str:
        held = Big()
        seen.append(weakref.ref(held))
        await ctx.run("before", lambda: None)
        await ctx.sleep(HOUR)
        return repr(type(held))

    story, claim = plain_stage.begin(play)
    attempt = plain_stage.new_attempt(story.handler, claim)
    gone = weakref.ref(attempt)
    del attempt
    assert await plain_stage.run(story.handler, claim) == Left("suspended")
    gc.collect()
    assert gone() is None
    assert [ref() for ref in seen] == [None]


async def test_a_handler_that_swallows_its_cancellation(stage: Stage) -> None:
    """It may tidy up, and then ends at its next use of the context; what it returns then counts for nothing."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        attempts["n"] += 1
        try:
            await ctx.sleep(HOUR)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            if attempts["n"] > 1:
                await ctx.run("too late", lambda: None)
            return "cancelled"
        return "awake"

    story = await stage.play(play)
    assert story.result == "awake"
    assert "too late" not in story.steps


async def test_a_step_that_waits_does_not_hold_a_handler_that_swallows(plain_stage: Stage) -> None:
    """A handler that returns instead of being cancelled ends, although one of its steps waits for another hour."""

    async def play(ctx: Context) -> str:
        if ctx.request().attempt > 2:
            return "enough"

        def step() -> None:
            raise ValueError("not yet")

        try:
            await ctx.run_typed("step", step, RunOptions(initial_retry_interval=HOUR, max_retry_interval=HOUR))
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    story, claim = plain_stage.begin(play)
    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(await plain_stage.run(story.handler, claim), Left)
    summary = await plain_stage.memory.read_invocation(story.invocation_id)
    assert summary is not None
    assert summary.fields["status"] == "suspended"


async def test_an_unawaited_timer_does_not_keep_an_invocation(stage: Stage) -> None:
    """A handler that ends before a timer of its own does not wait for it, and the timer goes with it."""

    async def play(ctx: Context) -> str:
        ctx.sleep(HOUR)
        await ctx.run("step", lambda: None)
        return "done"

    story = await stage.play(play)
    assert story.result == "done"
    assert [type(entry) for entry in story.entries].count(Sleep) == 1
    stage.clock.skip(7_200_000)
    stage.sweep()
    assert [type(entry).__name__ for entry in (await stage.look(story)).entries][-1] == "Output"


async def test_a_released_attempt_begins_no_execution_of_a_step(plain_stage: Stage) -> None:
    """What is executed once the attempt departs could not be recorded, and would be executed again."""
    ran: Counter[str] = Counter()
    paused = asyncio.Event()

    async def play(ctx: Context) -> int:
        async def step() -> int:
            ran["step"] += 1
            if ran["step"] == 1:
                paused.set()
                raise ValueError("not yet")
            return ran["step"]

        try:
            return await ctx.run_typed("step", step, RunOptions(initial_retry_interval=timedelta(milliseconds=30)))
        except asyncio.CancelledError:
            # For longer than the step waits to be tried again.
            await asyncio.sleep(0.06)
            raise

    story, claim = plain_stage.begin(play)
    attempt = plain_stage.new_attempt(story.handler, claim)
    running = asyncio.create_task(run_attempt(attempt), context=contextvars.Context())
    await paused.wait()
    await wait_until(lambda: attempt.waiting)
    attempt.depart(Releasing())
    assert await running == Released()
    assert ran["step"] == 1
