"""Attempts that end early: fenced, refused, stopped, cut short: `perdure.worker.departures`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from perdure.schemas.errors import FencedError, GapError, StoreError
from perdure.worker.conclusion import run_attempt
from perdure.worker.context import Context
from perdure.worker.departures import Completed, Failing, Left, Losing, Lost, Released, Releasing
from tests.worker.attempt_stage import Stage


class Altered:
    """The store in memory with one call replaced."""

    def __init__(self, stage: Stage, **replaced: Any) -> None:
        self._memory = stage.memory
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


def refusing(error: Exception) -> Callable[..., asyncio.Future[Any]]:
    """A call that is refused."""

    def call(*args: object, **kwargs: object) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    return call


async def test_a_fenced_attempt_ends_silently(plain_stage: Stage) -> None:
    """What lost its lease to another attempt appends nothing more, and its handler is cancelled."""
    blocked = asyncio.Event()

    async def play(ctx: Context) -> str:
        if ctx.request().attempt > 1:
            return "the other one"
        await ctx.run("before", lambda: None)
        blocked.set()
        await ctx.run("after", lambda: blocked.is_set())
        return "the zombie"

    story, claim = plain_stage.begin(play)

    def append(*args: Any, **kwargs: Any) -> Any:
        if blocked.is_set():
            plain_stage.clock.skip(20_000)
            plain_stage.sweep()
            plain_stage.memory.claim(story.invocation_id, 1, token="other", worker="w", lease_ms=10_000, at_ms=0)
        return plain_stage.memory.append(*args, **kwargs)

    plain_stage.store = Altered(plain_stage, append=append)
    end = await plain_stage.run(story.handler, claim)
    assert isinstance(end, Lost)
    assert isinstance(end.error, FencedError)
    story = await plain_stage.look(story)
    assert story.status == "running"
    assert story.steps == ["before"]


async def test_a_store_that_lost_entries_is_replayed_from(plain_stage: Stage) -> None:
    """After a gap the attempt hands over at once; the next one reads what is left and goes on."""
    plain_stage.store = Altered(plain_stage, append=refusing(GapError("gone")))

    async def play(ctx: Context) -> str:
        await ctx.run("step", lambda: None)
        return "done"

    story, claim = plain_stage.begin(play)
    story.ends.append(await plain_stage.run(story.handler, claim))
    assert story.ends == [Released()]
    plain_stage.store = plain_stage.memory
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert story.result == "done"


async def test_a_store_that_refuses_ends_the_attempt(plain_stage: Stage) -> None:
    """The lease runs out, and another attempt goes on when the store can be used again."""
    plain_stage.store = Altered(plain_stage, append=refusing(StoreError("WRONGTYPE")))

    async def play(ctx: Context) -> str:
        await ctx.run("step", lambda: None)
        return "done"

    story, claim = plain_stage.begin(play)
    story.ends.append(await plain_stage.run(story.handler, claim))
    assert isinstance(story.ends[0], Lost)
    plain_stage.store = plain_stage.memory
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert story.result == "done"


@pytest.mark.parametrize("late", [Releasing(), Losing(FencedError("lost")), Failing(ValueError("late"))])
async def test_an_outcome_that_is_being_recorded_is_not_given_up(plain_stage: Stage, late: Any) -> None:
    """A stop, or anything else, that comes while the outcome is on its way to the store changes nothing."""
    asked, gate = asyncio.Event(), asyncio.Event()

    async def complete(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        await gate.wait()
        return await plain_stage.memory.complete(*args, **kwargs)

    plain_stage.store = Altered(plain_stage, complete=complete)

    async def play(ctx: Context) -> str:
        return "done"

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    await asked.wait()
    assert plain_stage.attempt is not None
    plain_stage.attempt.depart(late)
    gate.set()
    assert isinstance(await running, Completed)
    assert (await plain_stage.look(story)).result == "done"


async def test_a_failed_attempt_that_waits_for_steps_can_be_cut_short(plain_stage: Stage) -> None:
    """A stop ends the wait for siblings of a failed step; the failure is recorded."""
    failed, forever = asyncio.Event(), asyncio.Event()

    async def play(ctx: Context) -> str:
        async def slow() -> None:
            await forever.wait()

        async def failing() -> None:
            failed.set()
            raise ValueError("no")

        await asyncio.gather(ctx.run("slow", slow), ctx.run("failing", failing))
        return "done"

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    await failed.wait()
    await asyncio.sleep(0)
    assert plain_stage.attempt is not None
    plain_stage.attempt.depart(Releasing())
    end = await running
    assert isinstance(end, Left)
    assert end.status == "backing-off"


async def test_a_released_attempt_goes_on_elsewhere(plain_stage: Stage) -> None:
    """A stop in the middle keeps what was recorded; the next attempt has the same epoch as predecessor and goes on."""
    ran: Counter[str] = Counter()
    started, forever = asyncio.Event(), asyncio.Event()

    async def play(ctx: Context) -> str:
        await ctx.run("first", lambda: ran.update(["first"]))

        async def second() -> None:
            ran["second"] += 1
            if ran["second"] == 1:
                started.set()
                await forever.wait()

        await ctx.run("second", second)
        return "done"

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    await started.wait()
    assert plain_stage.attempt is not None
    plain_stage.attempt.depart(Releasing())
    assert await running == Released()
    assert (await plain_stage.look(story)).status == "ready"
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert story.result == "done"
    assert ran == {"first": 1, "second": 2}
    assert story.failures == []


async def test_a_worker_may_be_cancelled_while_its_attempt_departs(plain_stage: Stage) -> None:
    """Two cancellations that arrive as one are still two: the one from outside is passed on."""
    started = asyncio.Event()

    async def play(ctx: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    story, claim = plain_stage.begin(play)
    attempt = plain_stage.new_attempt(story.handler, claim)
    running = asyncio.create_task(run_attempt(attempt))
    await started.wait()
    attempt.depart(Failing(ValueError("no")))
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_a_cancelled_worker_records_nothing(plain_stage: Stage) -> None:
    """An attempt that is cancelled from outside passes it on: the process is going down, and the lease runs out."""
    started = asyncio.Event()

    async def play(ctx: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    story, claim = plain_stage.begin(play)
    running = asyncio.create_task(plain_stage.run(story.handler, claim))
    await started.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert len((await plain_stage.look(story)).journal) == 1
