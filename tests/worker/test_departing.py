"""Handlers that do not let themselves be ended: named in the log, and left behind: `perdure.worker.departing`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from perdure.schemas.errors import TerminalError
from perdure.worker import departing
from perdure.worker.context import Context
from perdure.worker.departures import Left
from tests.worker.attempt_stage import Stage, paused_reason

HOUR = timedelta(hours=1)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers get little time to tidy up."""
    monkeypatch.setattr(departing, "OVERDUE_S", 0.2)


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about handlers that go on."""
    return [record.getMessage() for record in caplog.records if record.name == departing.__name__]


async def returns(ctx: Context) -> str:
    """Takes the end of its attempt for the end of its wait."""
    try:
        await ctx.sleep(HOUR)
    except asyncio.CancelledError:
        return "too early"
    return "awake"


async def goes_on(ctx: Context) -> str:
    """Asks for another command afterwards."""
    try:
        await ctx.sleep(HOUR)
    except BaseException:
        await ctx.run("instead", lambda: None)
        raise
    return "awake"


async def tidies_up(ctx: Context) -> str:
    """Asks for a command in its `finally`."""
    done = False
    try:
        await ctx.sleep(HOUR)
        done = True
    finally:
        if not done:
            await ctx.run("tidy up", lambda: None)
    return "awake"


async def swallows_a_few(ctx: Context) -> str:
    """Catches everything, and tries again; some of it synchronously."""
    for _ in range(30):
        try:
            await ctx.sleep(HOUR)
        except BaseException:
            continue
        break
    return "awake"


async def hangs(ctx: Context) -> str:
    """Waits for something else instead."""
    try:
        await ctx.sleep(HOUR)
    except asyncio.CancelledError:
        await asyncio.Event().wait()
    return "awake"


@pytest.mark.parametrize(
    ("handler", "what"),
    [
        (returns, "returned a result"),
        (goes_on, "called ctx.run('instead')"),
        (tidies_up, "called ctx.run('tidy up')"),
        (swallows_a_few, "called ctx.sleep"),
        (hangs, "did not end"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.usefixtures("hasty")
# On a machine with much else to do one that tidies up is let go before it has ended by itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_who_swallows_a_suspension_is_named(
    plain_stage: Stage, caplog: pytest.LogCaptureFixture, handler: Callable[[Context], Awaitable[str]], what: str
) -> None:
    """The invocation is suspended nevertheless, nothing more is recorded, and the next attempt ends well."""
    plain_stage.inactivity_ms = 5
    story = await plain_stage.play(handler)
    assert story.result == "awake"
    assert story.steps == []
    assert isinstance(story.ends[0], Left)
    assert story.ends[0].status == "suspended"
    (report,) = reports(caplog)
    assert what in report
    assert story.invocation_id in report
    assert "CancelledError" in report
    assert "(suspending)" in report


@pytest.mark.usefixtures("hasty")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_who_catches_everything_for_ever_is_let_go(plain_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the loop nor the attempt waits for a handler, or a task of it, that catches whatever is thrown."""
    plain_stage.inactivity_ms = 5
    left = asyncio.Event()

    async def for_ever(ctx: Context) -> None:
        while not left.is_set():
            try:
                await ctx.sleep(HOUR)
                return
            except BaseException:
                continue

    async def play(ctx: Context) -> str:
        task = asyncio.create_task(for_ever(ctx))
        await for_ever(ctx)
        await task
        return "awake"

    story = await plain_stage.play(play)
    assert story.result == "awake"
    assert len(story.ends) == 2
    assert len(reports(caplog)) == 1
    left.set()


async def test_who_lets_itself_be_ended_is_not_named(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Ordinary handlers are not: `except Exception`, `finally` without ctx, a TaskGroup, a task that is left behind."""
    caplog.set_level(logging.DEBUG)
    stage.inactivity_ms = 5

    async def play(ctx: Context) -> str:
        async def sub() -> None:
            try:
                await ctx.sleep(HOUR)
            except Exception as error:
                raise AssertionError("an attempt's end is no Exception") from error
            finally:
                await asyncio.sleep(0)

        left = asyncio.create_task(sub())
        async with asyncio.TaskGroup() as group:
            group.create_task(sub())
            await ctx.run("step", lambda: None)
        return f"awake {left.cancelled()}"

    assert (await stage.play(play)).result == "awake False"
    assert reports(caplog) == []


async def test_a_group_that_failed_does_not_look_like_the_end(plain_stage: Stage) -> None:
    """What a TaskGroup leaves in its task's count of cancellations is not taken for a worker that goes away."""
    plain_stage.inactivity_ms = 5

    async def play(ctx: Context) -> str:
        async def fail() -> None:
            raise TerminalError("no")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(asyncio.sleep(3_600))
        except* TerminalError:
            await ctx.sleep(HOUR)
        return "awake"

    story = await plain_stage.play(play)
    assert story.result == "awake"
    assert len(story.ends) == 2


async def test_a_mismatch_at_the_last_command_pauses(plain_stage: Stage) -> None:
    """Also where the handler awaits nothing any more, and comes to its end before its cancellation arrives."""
    attempts: list[int] = []

    async def play(ctx: Context) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            await ctx.run("old", lambda: None)
            raise ValueError("so that there is another attempt")
        ctx.run("new", lambda: None)
        return "done"

    assert 'run "new"' in paused_reason(await plain_stage.play(play))


async def test_a_worker_that_goes_away_is_not_taken_for_a_failure(plain_stage: Stage) -> None:
    """A cancellation from outside passes through a handler's TaskGroup, and nothing is recorded."""
    waiting = asyncio.Event()

    async def play(ctx: Context) -> None:
        async def sub() -> None:
            waiting.set()
            await ctx.sleep(HOUR)

        async with asyncio.TaskGroup() as group:
            group.create_task(sub())

    story, claim = plain_stage.begin(play)
    attempt = asyncio.create_task(plain_stage.run(story.handler, claim))
    await waiting.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert (await plain_stage.look(story)).status == "running"
