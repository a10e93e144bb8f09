"""Executing steps with their retry policies, over crashes and suspensions: `perdure.worker.step_runner`."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.entries import Run, StepFailed
from perdure.schemas.errors import RetryableError, TerminalError
from perdure.worker.context import Context
from perdure.worker.departures import Left
from perdure.worker.futures import DurableFuture
from perdure.worker.options import RunOptions
from tests.waiting import PATIENCE_S
from tests.worker.attempt_stage import Stage

MS = timedelta(milliseconds=1)
QUICK: RunOptions[Any] = RunOptions(initial_retry_interval=MS)


def failures_of(story: Any) -> list[tuple[int, int]]:
    """Count and delay of each recorded failure of a step."""
    return [(entry.failures, entry.retry_ms) for entry in story.entries if isinstance(entry, StepFailed)]


async def test_a_step_with_a_policy_is_retried_in_memory(plain_stage: Stage) -> None:
    """50 ms, doubled, without ending the attempt; each failure is in the journal."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> int:
        async def step() -> int:
            ran["step"] += 1
            if ran["step"] < 3:
                raise ValueError("not yet")
            return ran["step"]

        return await ctx.run_typed("step", step, RunOptions(max_attempts=5))

    story = await plain_stage.play(play)
    assert story.result == 3
    assert failures_of(story) == [(1, 50), (2, 100)]
    assert len(story.ends) == 1
    assert story.failures == []


async def test_a_step_is_retried_after_suspensions(stage: Stage) -> None:
    """A delay beyond the inactivity timeout is spent in no worker's memory; the counters go on where they were."""
    stage.inactivity_ms = 20
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> int:
        async def step() -> int:
            ran["step"] += 1
            if ran["step"] < 5:
                raise ValueError("not yet")
            return ran["step"]

        options: RunOptions[int] = RunOptions(
            initial_retry_interval=timedelta(hours=1), max_retry_interval=timedelta(days=1), retry_interval_factor=10
        )
        return await ctx.run_typed("step", step, options)

    story = await stage.play(play)
    assert story.result == 5
    assert [failures for failures, _ in failures_of(story)] == [1, 2, 3, 4]
    assert [delay for _, delay in failures_of(story)] == [3_600_000, 36_000_000, 86_400_000, 86_400_000]
    assert ran["step"] == 5
    assert {end.status for end in story.ends if isinstance(end, Left)} == {"suspended"}


@pytest.mark.parametrize("attempts_max", [1, 2, 4])
async def test_an_exhausted_step_fails_for_good_in_every_replay(stage: Stage, attempts_max: int) -> None:
    """After `max_attempts` executions it is a TerminalError, recorded and raised again at the same place."""
    ran: Counter[str] = Counter()
    caught: list[str] = []

    async def play(ctx: Context) -> str:
        async def step() -> None:
            ran["step"] += 1
            raise ValueError("never")

        options: RunOptions[None] = RunOptions(max_attempts=attempts_max, initial_retry_interval=MS)
        with pytest.raises(TerminalError) as error:
            await ctx.run_typed("step", step, options)
        caught.append(f"{error.value.status_code} {error.value.message}")
        await ctx.run("after", lambda: None)
        if ctx.request().attempt < 3:
            raise ValueError("so that there is a replay")
        return "caught"

    story = await stage.play(play)
    assert story.result == "caught"
    assert ran["step"] == attempts_max
    assert len(caught) >= 2
    assert set(caught) == {"500 never"}


async def test_max_duration_counts_planned_pauses(plain_stage: Stage) -> None:
    """The window begins with the first execution; the last execution is at its end."""

    async def play(ctx: Context) -> None:
        def step() -> None:
            raise ValueError("never")

        options: RunOptions[None] = RunOptions(
            max_duration=timedelta(milliseconds=900), initial_retry_interval=timedelta(milliseconds=100)
        )
        await ctx.run_typed("step", step, options)

    story = await plain_stage.play(play)
    assert story.failure.message == "never"
    delays = [delay for _, delay in failures_of(story)]
    assert delays[:2] == [100, 200]
    assert sum(delays) <= 900


async def test_the_old_name_of_max_duration_counts(plain_stage: Stage) -> None:
    """`ctx.run(max_retry_duration=...)` limits a step as `max_duration` does."""

    async def play(ctx: Context) -> None:
        def step() -> None:
            raise ValueError("never")

        await ctx.run("step", step, max_retry_duration=timedelta(milliseconds=400))

    story = await plain_stage.play(play)
    assert story.failure.message == "never"
    delays = [delay for _, delay in failures_of(story)]
    assert delays
    assert sum(delays) <= 400


async def test_retry_after_sets_the_delay(stage: Stage) -> None:
    """A RetryableError's own delay replaces the policy's, and its limits still hold."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> None:
        def step() -> None:
            ran["step"] += 1
            raise RetryableError("busy", retry_after=7 * MS)

        await ctx.run_typed("step", step, RunOptions(max_attempts=3))

    story = await stage.play(play)
    assert story.failure.message == "busy"
    assert failures_of(story) == [(1, 7), (2, 7)]
    assert ran["step"] == 3


@pytest.mark.parametrize("options", [RunOptions(), QUICK])
async def test_a_terminal_error_in_a_step_is_final(stage: Stage, options: RunOptions[Any]) -> None:
    """No policy retries it; code and metadata are the same in every replay."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> list[Any]:
        async def step() -> None:
            ran["step"] += 1
            raise TerminalError("sold out", 410, {"item": "hat"})

        try:
            await ctx.run_typed("step", step, options)
        except TerminalError as error:
            return [await ctx.run("after", lambda: None), error.message, error.status_code, error.metadata]
        raise AssertionError("it did not raise")

    story = await stage.play(play)
    assert story.result == [None, "sold out", 410, {"item": "hat"}]
    assert ran == {"step": 1}


def wrapped() -> None:
    """Raise a TerminalError the way clients' code wraps it."""
    try:
        raise TerminalError("inside", 409)
    except TerminalError as error:
        raise RuntimeError("outside") from error


async def grouped() -> None:
    """Raise a TerminalError inside a TaskGroup."""

    async def fail() -> None:
        raise TerminalError("inside", 409)

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())


@pytest.mark.parametrize("action", [wrapped, grouped])
async def test_a_terminal_error_is_found_inside_others(stage: Stage, action: Any) -> None:
    """Raised from, or in an exception group, it is as final as by itself."""

    async def play(ctx: Context) -> None:
        await ctx.run("step", action)

    story = await stage.play(play)
    assert (story.failure.message, story.failure.status_code) == ("inside", 409)
    assert story.failures == []


async def test_a_step_without_a_policy_fails_the_attempt(stage: Stage) -> None:
    """The invocation's policy applies: the attempt backs off, and says which step failed."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        await ctx.run("before", lambda: ran.update(["before"]))

        async def step() -> str:
            ran["step"] += 1
            if ran["step"] < 4:
                raise ValueError(f"failure {ran['step']}")
            return "done"

        return await ctx.run("step", step)

    story = await stage.play(play)
    assert story.result == "done"
    assert ran == {"before": 1, "step": 4}
    assert story.failures == ["ValueError: failure 1", "ValueError: failure 2", "ValueError: failure 3"]


async def test_results_of_siblings_are_kept(stage: Stage) -> None:
    """When a step fails the attempt, steps that are being executed end first, and are not executed again."""
    ran: Counter[str] = Counter()
    entered = asyncio.Event()

    async def play(ctx: Context) -> str:
        async def slow() -> None:
            ran["slow"] += 1
            entered.set()
            await asyncio.sleep(0.03)

        async def failing() -> None:
            await entered.wait()
            ran["failing"] += 1
            if ran["failing"] == 1:
                raise ValueError("no")

        await asyncio.gather(ctx.run("slow", slow), ctx.run("failing", failing))
        return "done"

    story = await stage.play(play)
    assert story.result == "done"
    assert ran == {"slow": 1, "failing": 2}


async def test_a_failing_attempt_waits_for_no_pause(plain_stage: Stage) -> None:
    """Siblings that wait for their next execution, or begin to, do not hold up the end; their counters are kept."""
    ran: Counter[str] = Counter()
    plain_stage.inactivity_ms = 3_600_000

    async def play(ctx: Context) -> str:
        long: RunOptions[Any] = RunOptions(initial_retry_interval=timedelta(minutes=30))

        async def pausing(name: str, wait_s: float) -> None:
            ran[name] += 1
            await asyncio.sleep(wait_s)
            if ran[name] == 1:
                raise ValueError(name)

        async def failing() -> None:
            ran["failing"] += 1
            await asyncio.sleep(0.01)
            if ran["failing"] == 1:
                raise ValueError("no")

        first = ctx.run_typed("first", pausing, long, "first", 0.0)
        second = ctx.run_typed("second", pausing, long, "second", 0.03)
        await ctx.run("failing", failing)
        # Put forward, or the test would wait for half an hour.
        plain_stage.clock.skip(3_600_000)
        await asyncio.gather(first, second)
        return "done"

    story, claim = plain_stage.begin(play)
    async with asyncio.timeout(PATIENCE_S):
        story.ends.append(await plain_stage.run(story.handler, claim))
    assert isinstance(story.ends[0], Left)
    assert story.ends[0].status == "backing-off"
    story = await plain_stage.look(story)
    assert [failures for failures, _ in failures_of(story)] == [1, 1]
    plain_stage.clock.skip(3_600_000)
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert story.result == "done"
    assert ran == {"first": 2, "second": 2, "failing": 2}


async def test_counters_survive_a_crash(stage: Stage) -> None:
    """A worker that dies while a step is executed loses none of the failures that were counted before."""
    ran: Counter[str] = Counter()
    executing = asyncio.Event()

    async def play(ctx: Context) -> None:
        async def step() -> None:
            ran["step"] += 1
            if ran["step"] == 3:
                executing.set()
                await asyncio.Event().wait()
            raise ValueError("never")

        await ctx.run_typed("step", step, RunOptions(max_attempts=5, initial_retry_interval=MS))

    story, claim = stage.begin(play)

    async def until_the_crash() -> None:
        next_claim: Any = claim
        while next_claim is not None:
            await stage.run(story.handler, next_claim)
            next_claim = await stage.next_claim(story)

    worker = asyncio.create_task(until_the_crash())
    await executing.wait()
    worker.cancel()
    await asyncio.wait([worker])
    story = await stage.go_on(story, await stage.next_claim(story))
    assert story.failure.message == "never"
    # The third execution was not counted, since nobody could say how it ended.
    assert ran["step"] == 6
    assert [failures for failures, _ in failures_of(story)] == [1, 2, 3, 4]


async def test_many_steps_at_once_leave_in_few_appends(plain_stage: Stage) -> None:
    """Results that come up together are appended together, each once and in one order."""

    async def play(ctx: Context) -> int:
        async def step(number: int) -> int:
            return number

        futures: list[DurableFuture[int]] = [ctx.run_typed(f"s{n}", step, RunOptions(), n) for n in range(1_200)]
        return sum(await asyncio.gather(*futures))

    story = await plain_stage.play(play)
    assert story.result == sum(range(1_200))
    assert [entry.command_index for entry in story.entries if isinstance(entry, Run)] == list(range(1_200))


@pytest.mark.parametrize("late", [False, True])
async def test_a_step_that_cancels_itself_fails_like_any_other(stage: Stage, late: bool) -> None:
    """Whether it meets its own cancellation or raises something else first, it is tried again by its policy."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> int:
        async def step() -> int:
            ran["step"] += 1
            if ran["step"] < 3:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                if late:
                    raise ValueError("before the cancellation is met")
                await asyncio.Event().wait()
            return ran["step"]

        return await ctx.run_typed("step", step, QUICK)

    async with asyncio.timeout(PATIENCE_S):
        story = await stage.play(play)
    assert story.result == 3
    assert [failures for failures, _ in failures_of(story)] == [1, 2]


async def test_a_step_that_cancels_itself_fails_its_attempt(plain_stage: Stage) -> None:
    """Without a policy the attempt is retried, and says why."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> int:
        async def step() -> int:
            ran["step"] += 1
            if ran["step"] == 1:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.Event().wait()
            return ran["step"]

        return await ctx.run("step", step)

    async with asyncio.timeout(PATIENCE_S):
        story = await plain_stage.play(play)
    assert story.result == 2
    assert [text.partition(":")[0] for text in story.failures] == ["CancelledError"]
