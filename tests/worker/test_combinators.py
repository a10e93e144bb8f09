"""Waiting for several futures, plainly and replayed at every await: `perdure.worker.combinators`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.entries import Completion, Failure, Signalled, Success
from perdure.schemas.errors import TerminalError
from perdure.worker.combinators import (
    as_completed,
    first_success,
    gather,
    gather_results,
    select,
    wait_completed,
    with_timeout,
)
from perdure.worker.context import Context
from perdure.worker.futures import DurableFuture
from perdure.worker.handler import handler_of
from perdure.worker.object_context import WorkflowContext
from perdure.worker.options import RunOptions
from perdure.worker.workflow import Workflow
from tests.worker.attempt_stage import Stage, handler_from

SHORT = timedelta(milliseconds=15)
HOUR = timedelta(hours=1)


def step(ctx: Context, name: str, *, fails: bool = False) -> DurableFuture[str]:
    """Ask for a step that returns its own name, or fails for good."""

    async def act() -> str:
        if fails:
            raise TerminalError(f"{name} failed", 418)
        return name

    return ctx.run_typed(name, act, RunOptions())


def signals(ctx: Context, *names: str) -> list[DurableFuture[Any]]:
    """Wait for signals."""
    return [ctx.signal(name) for name in names]


async def outcomes(futures: list[Any]) -> str:
    """`ok:value` or `err:message` of each."""
    lines = []
    for future in futures:
        try:
            lines.append(f"ok:{await future}")
        except TerminalError as error:
            lines.append(f"err:{error.message}")
    return "|".join(lines)


async def all_completed(ctx: Context) -> object:
    """All, however they end; futures come back and may be awaited many times."""
    futures = [*signals(ctx, "one", "two"), step(ctx, "a"), step(ctx, "b", fails=True), ctx.sleep(SHORT)]
    done = await gather(*futures)
    assert done == futures
    return [await outcomes(done), await outcomes(done), await gather()]


async def all_succeeded(ctx: Context) -> object:
    """All results, in the order given, though they come in another one."""
    two, one = ctx.signal("one"), ctx.signal("one")
    return await gather_results(one, step(ctx, "a"), two, one)


async def first_failed(ctx: Context) -> object:
    """The first failure, at once; the others go on."""
    slow = ctx.sleep(HOUR)
    with pytest.raises(TerminalError, match="no"):
        await gather_results(slow, step(ctx, "a"), ctx.signal("two"))
    return slow.done()


async def first_completed(ctx: Context) -> object:
    """The first that is done, by its name; the others are ignored."""
    one, two = signals(ctx, "one", "two")
    won = await select(two=two, timeout=ctx.sleep(HOUR), one=one)
    with pytest.raises(TerminalError, match="no"):
        await select(two=two, never=ctx.sleep(HOUR))
    return won


async def first_succeeded(ctx: Context) -> object:
    """A failure is skipped."""
    two, one = ctx.signal("two"), ctx.signal("one")
    return await first_success(two, step(ctx, "b", fails=True), one)


async def all_failed(ctx: Context) -> object:
    """Where all fail, the error of the last one."""
    failing = step(ctx, "b", fails=True)
    await gather(failing)
    with pytest.raises(TerminalError) as caught:
        await first_success(failing, ctx.signal("two"))
    return caught.value.message


async def run_wins_against_signal(ctx: Context) -> object:
    """A step that is done before the signal."""
    won = await select(signal=ctx.signal("late"), run=step(ctx, "a"))
    await step(ctx, f"after {won}")
    return won


async def one_by_one(ctx: Context) -> object:
    """In the order of the journal, whatever the order given."""
    names: dict[DurableFuture[Any], str] = {
        step(ctx, "a"): "a",
        ctx.sleep(SHORT * 2): "long",
        ctx.sleep(SHORT): "short",
        ctx.signal("one"): "one",
    }
    order: list[str] = []
    async for future in as_completed(*names):
        assert isinstance(future, DurableFuture)
        order.append(names[future])
        await step(ctx, f"after {order}")
    async for future in as_completed(*names):
        return [order, names[future] if isinstance(future, DurableFuture) else ""]
    return order


async def some(ctx: Context) -> object:
    """Those that are done and those that are not."""
    never, one = ctx.sleep(HOUR), ctx.signal("one")
    done, waiting = await wait_completed(never, one)
    return [done == [one], waiting == [never], await wait_completed()]


async def in_time(ctx: Context) -> object:
    """What comes within its time, and what does not; what does not can be awaited again."""
    slow = ctx.sleep(SHORT * 2)
    with pytest.raises(TimeoutError, match="was not done within"):
        await with_timeout(slow, timedelta(milliseconds=1))
    await slow
    return await with_timeout(ctx.signal("one"), HOUR)


CASES: dict[Callable[[Context], Awaitable[object]], object] = {
    all_completed: [line := "ok:1|err:no|ok:a|err:b failed|ok:None", line, []],
    all_succeeded: [2, "a", 1, 2],
    first_failed: False,
    first_completed: ["one", 1],
    first_succeeded: 1,
    all_failed: "no",
    run_wins_against_signal: ["run", "a"],
    one_by_one: [["one", "a", "short", "long"], "one"],
    some: [True, True, [[], []]],
    in_time: 1,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_who_was_first_is_what_the_journal_says(
    stage: Stage, case: Callable[[Context], Awaitable[object]]
) -> None:
    """The same in every replay, with signals that came before, steps, timers, and failures."""
    seen: list[object] = []

    async def play(ctx: Context) -> object:
        await ctx.run("begin", begin)
        seen.append(await case(ctx))
        await ctx.run("end", lambda: None)
        if not stage.always_replay and len(seen) < 2:
            raise ValueError("so that there is another attempt")
        return seen[-1]

    async def begin() -> None:
        for name, outcome in (("one", Success(b"1")), ("two", Failure(418, "no")), ("one", Success(b"2"))):
            stage.bring(Signalled(name, 1, outcome))

    story = await stage.play(play)
    assert story.result == CASES[case]
    assert len(seen) > 1
    assert all(once == seen[0] for once in seen)


WAITS: dict[str, Callable[[Context, Any], Awaitable[Any]]] = {
    "gather": lambda ctx, never: gather(step(ctx, "a"), never),
    "gather_results": lambda ctx, never: gather_results(step(ctx, "a"), never),
    "select": lambda ctx, never: select(one=never, two=ctx.sleep(HOUR)),
    "as_completed": lambda ctx, never: anext(as_completed(never, ctx.sleep(HOUR))),
    "wait_completed": lambda ctx, never: wait_completed(never, ctx.sleep(HOUR)),
    "first_success": lambda ctx, never: first_success(step(ctx, "a", fails=True), never),
    "with_timeout": lambda ctx, never: with_timeout(never, HOUR),
    "asyncio.gather": lambda ctx, never: asyncio.gather(step(ctx, "a"), never),
    "asyncio.wait_for": lambda ctx, never: asyncio.wait_for(never, 3_600),
    "asyncio.shield": lambda ctx, never: asyncio.shield(never),
    "asyncio.sleep": lambda ctx, never: asyncio.sleep(3_600),
    "await": lambda ctx, never: never,
}


@pytest.mark.parametrize("wait", WAITS)
async def test_a_cancellation_is_raised_by_who_waits(stage: Stage, wait: str) -> None:
    """In each of them; afterwards what was waited for can be awaited again, for what it really is."""
    stage.inactivity_ms = 5
    raised: list[int] = []

    async def play(ctx: Context) -> object:
        never = ctx.signal("late")
        try:
            await WAITS[wait](ctx, never)
        except TerminalError as error:
            raised.append(error.status_code)
        await step(ctx, "compensate")
        return await never

    stage.visitors = [stage.cancel, lambda: stage.bring(Signalled("late", 1, Success(b'"here"')))]
    story = await stage.play(play)
    assert story.result == "here"
    assert set(raised) == {409}
    assert story.steps[-1] == "compensate"


async def test_a_promise_is_waited_for_itself(stage: Stage) -> None:
    """Where Restate's SDK wants `.value()`."""
    stage.key = "k"
    workflow = Workflow("Stage")

    @workflow.main()
    async def play(ctx: WorkflowContext) -> object:
        promise = ctx.promise("yes", type_hint=str)
        won = await select(timeout=ctx.sleep(HOUR), promise=promise)
        (same,) = await gather(promise)
        async for one in as_completed(promise):
            same = one
        return [won, same is promise, await with_timeout(promise, HOUR), await first_success(promise)]

    stage.inactivity_ms = 5
    stage.visitors = [lambda: stage.bring(Completion(1, 1, Success(b'"click"')))]
    story = await stage.play(handler_of(play))
    assert story.result == [["promise", "click"], True, "click", "click"]


@pytest.mark.parametrize("wrong", ["coroutine", "future", "value"])
async def test_what_is_not_durable_is_refused_by_name(plain_stage: Stage, wrong: str) -> None:
    """As the invocation's outcome: another attempt would not be better."""

    async def play(ctx: Context) -> object:
        others: dict[str, Any] = {
            "coroutine": asyncio.sleep(0),
            "future": asyncio.get_running_loop().create_future(),
            "value": 7,
        }
        given = others.pop(wrong)
        try:
            return await gather(step(ctx, "a"), given)
        finally:
            for other in (given, others.get("coroutine")):
                if asyncio.iscoroutine(other):
                    other.close()

    story = await plain_stage.play(play)
    names = {"coroutine": "coroutine", "future": "Future", "value": "int"}
    assert f"{names[wrong]} is not a durable future" in story.failure.message


async def test_futures_of_other_invocations_are_refused(plain_stage: Stage) -> None:
    """A handler cannot wait for what is in somebody else's journal."""
    kept: list[DurableFuture[str]] = []

    async def play(ctx: Context) -> object:
        kept.append(step(ctx, "a"))
        return await gather_results(*kept)

    handler = handler_from(play)
    assert (await plain_stage.play(handler)).result == ["a"]
    assert "belongs to another invocation" in (await plain_stage.play(handler)).failure.message


async def test_nothing_to_wait_for_is_an_error(plain_stage: Stage) -> None:
    """Of those that return one result; retried, as any bug of a handler."""

    async def play(ctx: Context) -> None:
        with pytest.raises(ValueError, match="select needs"):
            await select()
        with pytest.raises(ValueError, match="first_success needs"):
            await first_success()

    assert (await plain_stage.play(play)).status == "completed"
