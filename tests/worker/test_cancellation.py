"""What a handler sees when its invocation is cancelled, plainly and replayed at every await."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from perdure.schemas.entries import CancelChild, Completion, Failure, Run, Signalled, Success
from perdure.schemas.errors import RetryableError, TerminalError
from perdure.worker.context import Context
from perdure.worker.options import RunOptions
from tests.worker.attempt_stage import Stage

SHORT = timedelta(milliseconds=15)
HOUR = timedelta(hours=1)


@pytest.fixture
def hasty_stage(stage: Stage) -> Stage:
    """A stage whose attempts leave memory soon."""
    stage.inactivity_ms = 5
    return stage


async def test_it_ends_the_invocation(hasty_stage: Stage) -> None:
    """A handler that does not catch it fails with 409."""

    async def play(ctx: Context) -> None:
        await ctx.sleep(HOUR)

    hasty_stage.visitors = [hasty_stage.cancel]
    story = await hasty_stage.play(play)
    assert (story.failure.status_code, story.failure.message) == (409, "cancelled")


async def test_compensations_run_and_a_second_one_interrupts_them(hasty_stage: Stage) -> None:
    """The first is raised once; what the handler does then is durable like everything, until the next."""
    seen: list[list[str]] = []

    async def play(ctx: Context) -> list[str]:
        log: list[str] = []
        seen.append(log)
        try:
            await ctx.sleep(HOUR)
        except TerminalError as error:
            log.append(f"first {error.status_code}")
            await ctx.run("compensate 1", lambda: None)
            try:
                await ctx.sleep(HOUR)
            except TerminalError as again:
                log.append(f"second {again.status_code}")
                await ctx.run("compensate 2", lambda: None)
        return log

    hasty_stage.visitors = [hasty_stage.cancel, hasty_stage.cancel]
    story = await hasty_stage.play(play)
    assert story.result == ["first 409", "second 409"]
    assert story.steps == ["compensate 1", "compensate 2"]
    assert all(log == story.result[: len(log)] for log in seen)


async def test_a_step_that_runs_ends_first(stage: Stage) -> None:
    """Its result is recorded before the handler is told, and is there when it is awaited again."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> list[str]:
        async def step() -> str:
            ran["step"] += 1
            stage.cancel()
            for _ in range(20):
                await asyncio.sleep(0.001)
            ran["ended"] += 1
            return "result"

        future = ctx.run("step", step)
        try:
            await future
        except TerminalError as error:
            return [str(error.status_code), str(ran["ended"]), await future]
        return ["not cancelled"]

    story = await stage.play(play)
    assert story.result == ["409", "1", "result"]
    assert ran == {"step": 1, "ended": 1}


@pytest.mark.parametrize("delay", [HOUR, timedelta(seconds=2)], ids=["outside of memory", "in memory"])
async def test_a_step_that_backs_off_is_given_up(stage: Stage, delay: timedelta) -> None:
    """It would be tried again much later; its result is the cancellation."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> list[int]:
        async def step() -> None:
            ran["step"] += 1
            if delay < HOUR:
                asyncio.get_running_loop().call_later(0.01, stage.cancel)
            raise RetryableError("not yet", retry_after=delay)

        future, codes = ctx.run_typed("step", step, RunOptions(max_attempts=5)), []
        for _ in range(2):
            try:
                await future
            except TerminalError as error:
                codes.append(error.status_code)
        return codes

    stage.visitors = [stage.cancel] if delay == HOUR else []
    if delay < HOUR:
        stage.always_replay = False
    story = await stage.play(play)
    assert story.result == [409, 409]
    assert ran == {"step": 1}
    assert [entry.outcome for entry in story.entries if isinstance(entry, Run)] == [Failure(409, "cancelled")]


async def test_a_step_that_has_not_begun_is_dropped(plain_stage: Stage) -> None:
    """One that a new attempt comes to after the cancellation is not executed any more."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        async def step() -> None:
            ran["step"] += 1
            plain_stage.cancel()
            raise ValueError("fails, and is asked for again by the next attempt")

        try:
            await ctx.run("step", step)
        except TerminalError as error:
            return f"{error.status_code}"
        return "not cancelled"

    story = await plain_stage.play(play)
    assert story.result == "409"
    assert ran == {"step": 1}


async def test_what_nobody_waits_for_is_left_alone(hasty_stage: Stage) -> None:
    """A future that is not awaited at that moment brings its own result later."""

    async def play(ctx: Context) -> list[object]:
        kept, timer = ctx.signal("kept"), ctx.sleep(SHORT)
        try:
            await ctx.signal("never")
        except TerminalError as error:
            await timer
            return [error.status_code, await kept]
        return []

    def signal() -> None:
        hasty_stage.bring(Signalled("kept", 1, Success(b'"kept"')))

    hasty_stage.visitors = [hasty_stage.cancel, signal]
    assert (await hasty_stage.play(play)).result == [409, "kept"]


async def test_it_is_seen_by_all_who_wait(hasty_stage: Stage) -> None:
    """Every task of a group gets it, and the group's errors are the invocation's outcome."""
    seen: list[str] = []

    async def play(ctx: Context) -> None:
        async def sub(name: str) -> None:
            try:
                await ctx.sleep(HOUR, name=name)
            except TerminalError as error:
                seen.append(f"{name} {error.status_code}")
                raise

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(sub(name))

    hasty_stage.visitors = [hasty_stage.cancel]
    story = await hasty_stage.play(play)
    assert story.failure.status_code == 409
    assert seen[:3] == ["a 409", "b 409", "c 409"]


async def test_callees_are_told_once(hasty_stage: Stage) -> None:
    """Those that were called and have no answer yet; not those that were sent to, and not again in a replay."""

    async def play(ctx: Context) -> list[object]:
        answered = ctx.generic_call("S", "answered", b"1")
        waiting = ctx.generic_call("S", "waiting", b"2")
        ctx.generic_send("S", "sent", b"3")
        ids = [await waiting.invocation_id()]
        await answered
        try:
            await waiting
        except TerminalError as error:
            await ctx.run("compensate", lambda: None)
            try:
                await waiting
            except TerminalError as real:
                return [error.status_code, real.status_code, ids]
        return []

    def answer(index: int, outcome: Success | Failure) -> None:
        hasty_stage.bring(Completion(index, 1, outcome))

    hasty_stage.visitors = [
        lambda: answer(0, Success(b"1")),
        hasty_stage.cancel,
        lambda: answer(1, Failure(410, "the callee's own end")),
    ]
    story = await hasty_stage.play(play)
    told = [entry.invocation_id for entry in story.entries if isinstance(entry, CancelChild)]
    assert story.result == [409, 410, told]
    assert len(told) == 1


async def test_timeouts_are_not_set_off(hasty_stage: Stage) -> None:
    """What a timeout is around is interrupted, with 409 and not as if its time were over."""

    async def play(ctx: Context) -> str:
        try:
            async with asyncio.timeout(7_200):
                await ctx.sleep(HOUR)
        except TerminalError as error:
            return str(error.status_code)
        return "in time"

    hasty_stage.visitors = [hasty_stage.cancel]
    assert (await hasty_stage.play(play)).result == "409"


async def test_waits_that_are_not_durable_go_on(plain_stage: Stage) -> None:
    """A task that waits for another one is told through that one; the next durable wait is told at once."""
    gate = asyncio.Event()

    async def play(ctx: Context) -> str:
        async def cancel() -> None:
            plain_stage.cancel()
            asyncio.get_running_loop().call_later(0.03, gate.set)

        ctx.run("cancel", cancel)
        await gate.wait()
        try:
            await ctx.sleep(HOUR)
        except TerminalError as error:
            return f"{error.status_code}"
        return "not cancelled"

    assert (await plain_stage.play(play)).result == "409"
