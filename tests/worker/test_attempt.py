"""What a handler sees of its commands, in one attempt and in every replay: `perdure.worker.attempt`."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from datetime import timedelta
from typing import Any

from perdure.journal.store import Claim
from perdure.schemas.entries import Completion, Run, Sleep
from perdure.schemas.errors import TerminalError
from perdure.worker.attempt import Attempt
from perdure.worker.context import Context
from perdure.worker.departures import Completed, Left
from perdure.worker.futures import DurableFuture
from perdure.worker.handler import Handler
from perdure.worker.options import RunOptions
from tests.waiting import wait_until
from tests.worker.attempt_stage import Stage, handler_from, paused_reason

SHORT = timedelta(milliseconds=15)
HOUR = timedelta(hours=1)


async def test_steps_run_once_and_their_results_stay(stage: Stage) -> None:
    """Completed steps are never executed again, however often the handler is replayed."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context, upto: int) -> list[int]:
        async def step(number: int) -> int:
            ran[f"step {number}"] += 1
            return number * number

        return [await ctx.run_typed(f"step {number}", step, RunOptions(), number) for number in range(upto)]

    story = await stage.play(play, 5)
    assert story.result == [0, 1, 4, 9, 16]
    assert set(ran.values()) == {1}
    assert story.steps == [f"step {number}" for number in range(5)]
    assert len(story.ends) == (6 if stage.always_replay else 1)


async def test_gathered_steps_run_at_the_same_time(stage: Stage) -> None:
    """Several steps that were asked for together are executed together, and each once."""
    ran: Counter[int] = Counter()
    meeting: list[asyncio.Barrier] = [asyncio.Barrier(5)]

    async def play(ctx: Context) -> list[int]:
        async def step(number: int) -> int:
            ran[number] += 1
            await meeting[0].wait()
            return number

        return list(await asyncio.gather(*(ctx.run_typed(f"s{n}", step, RunOptions(), n) for n in range(5))))

    story = await stage.play(play)
    assert story.result == [0, 1, 2, 3, 4]
    assert set(ran.values()) == {1}


async def test_the_first_of_several_is_the_first_in_every_replay(stage: Stage) -> None:
    """Who won `asyncio.wait(FIRST_COMPLETED)` wins in every replay, whatever the steps would do then."""
    ran: Counter[str] = Counter()
    seen: list[list[str]] = []

    async def play(ctx: Context) -> list[str]:
        async def step(name: str, wait_s: float) -> str:
            ran[name] += 1
            await asyncio.sleep(wait_s)
            return name

        order: list[str] = []
        waiting: set[DurableFuture[str]] = {
            ctx.run_typed(name, step, RunOptions(), name, wait_s)
            for name, wait_s in (("slow", 0.04), ("quick", 0.0), ("middle", 0.02))
        }
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            order += [future.result() for future in done]
            seen.append(list(order))
            await ctx.run(f"after {order[-1]}", lambda: None)
        return order

    story = await stage.play(play)
    assert story.result[0] == "quick"
    assert sorted(story.result) == ["middle", "quick", "slow"]
    assert all(story.result[: len(order)] == order for order in seen)
    assert ran == {"slow": 1, "quick": 1, "middle": 1}


async def test_tasks_of_a_handler_are_followed(stage: Stage) -> None:
    """A TaskGroup of sub-programs with several steps each gives the same in every replay."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> list[str]:
        async def step(name: str) -> str:
            ran[name] += 1
            await asyncio.sleep(0.001)
            return name

        log: list[str] = []

        async def branch(name: str) -> None:
            for number in range(3):
                done = await ctx.run_typed(f"{name}{number}", step, RunOptions(), f"{name}{number}")
                log.append(done)

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(branch(name))
        return log

    story = await stage.play(play)
    assert sorted(story.result) == sorted(ran)
    assert set(ran.values()) == {1}
    assert story.result == [name for name in story.steps if name in ran]


async def test_branches_taken_by_the_winner_are_taken_again(stage: Stage) -> None:
    """A race of tasks decides which commands follow, and every replay follows the same branch."""
    winners: set[str] = set()

    async def play(ctx: Context) -> str:
        async def step(name: str, wait_s: float) -> str:
            await asyncio.sleep(wait_s)
            return name

        async def branch(name: str, wait_s: float) -> str:
            await ctx.run_typed(f"{name} begins", step, RunOptions(), name, wait_s)
            return await ctx.run_typed(f"{name} ends", step, RunOptions(), name, wait_s)

        tasks = [asyncio.create_task(branch("left", 0.02)), asyncio.create_task(branch("right", 0.001))]
        done, lost = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winner = done.pop().result()
        winners.add(winner)
        for task in lost:
            task.cancel()
        return await ctx.run_typed(f"celebrate {winner}", step, RunOptions(), winner, 0.0)

    story = await stage.play(play)
    assert story.result == "right"
    assert winners == {"right"}


async def test_a_step_that_nobody_awaits_runs_before_the_end(stage: Stage) -> None:
    """A handler that returns without its steps' results has them executed and recorded nevertheless."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        async def step(name: str) -> None:
            await asyncio.sleep(0.005)
            ran[name] += 1

        ctx.run_typed("one", step, RunOptions(), "one")
        ctx.run("two", lambda: ran.update(["two"]))
        await ctx.run_typed("three", step, RunOptions(), "three")
        ctx.run_typed("four", step, RunOptions(), "four")
        return "done"

    story = await stage.play(play)
    assert story.result == "done"
    assert ran == {"one": 1, "two": 1, "three": 1, "four": 1}
    assert sorted(story.steps) == ["four", "one", "three", "two"]


async def test_a_failed_step_that_nobody_awaits_fails_the_attempt(stage: Stage) -> None:
    """Its error is not lost: the attempt fails with the step's name, and the next one executes it again."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        async def step() -> None:
            await asyncio.sleep(0.002)
            ran["step"] += 1
            if ran["step"] == 1:
                raise ValueError("not yet")

        ctx.run("forgotten", step)
        return "done"

    story = await stage.play(play)
    assert story.result == "done"
    assert story.failures == ["ValueError: not yet"]
    assert ran == {"step": 2}


async def test_tasks_that_a_handler_leaves_behind_end_with_it(stage: Stage) -> None:
    """What they asked for until then is done; they ask for nothing more, in no replay, so that none diverges."""
    crashed: list[bool] = []

    async def play(ctx: Context) -> str:
        async def step(wait_s: float) -> None:
            await asyncio.sleep(wait_s)

        async def background() -> None:
            for number in range(3):
                await ctx.run_typed(f"background {number}", step, RunOptions(), 0.01)

        task = asyncio.create_task(background())
        ctx.run_typed("slow", step, RunOptions(), 0.05)
        await ctx.run_typed("quick", step, RunOptions(), 0.0)
        assert not task.done()
        return "done"

    class Crashing:
        def __getattr__(self, name: str) -> Any:
            if name == "complete" and not crashed:
                crashed.append(True)
                raise ConnectionError("the worker dies here")
            return getattr(stage.memory, name)

    stage.store = Crashing()  # the store, but for one call
    story, claim = stage.begin(play)
    while not crashed:
        try:
            story.ends.append(await stage.run(story.handler, claim))
        except ConnectionError:
            break
        next_claim = await stage.next_claim(story)
        assert next_claim is not None
        claim = next_claim
    story = await stage.go_on(story, await stage.next_claim(story))
    assert story.result == "done"
    assert story.steps[-1] == "slow"
    assert "background 1" not in story.steps


async def test_a_cancelled_future_changes_nothing_for_its_step(stage: Stage) -> None:
    """Cancelling a durable future, as `wait_for` and `timeout` do, leaves the step to be done and recorded."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        async def step() -> str:
            ran["step"] += 1
            await asyncio.sleep(0.02)
            return "late"

        future = ctx.run("slow", step)
        future.cancel()
        await ctx.run("quick", lambda: None)
        return "done"

    story = await stage.play(play)
    assert story.result == "done"
    assert ran == {"step": 1}
    assert sorted(story.steps) == ["quick", "slow"]


async def test_a_timeout_around_a_step_does_not_break_the_attempt(plain_stage: Stage) -> None:
    """`asyncio.timeout` gives up the wait and not the step; the handler goes on to its end."""
    release = asyncio.Event()

    async def play(ctx: Context) -> str:
        async def step() -> str:
            await release.wait()
            return "late"

        try:
            async with asyncio.timeout(0.01):
                await ctx.run("slow", step)
        except TimeoutError:
            release.set()
        try:
            return await asyncio.wait_for(ctx.run("slow", step), timeout=10)
        finally:
            await ctx.sleep(SHORT)

    story = await plain_stage.play(play)
    assert story.result == "late"
    assert story.steps == ["slow", "slow"]


async def test_sleep_waits_and_is_recorded_once(stage: Stage) -> None:
    """A durable timer never fires early, and fires once in the journal."""
    began_ms = stage.clock.monotonic_ms()

    async def play(ctx: Context) -> str:
        await ctx.sleep(SHORT, name="nap")
        await ctx.sleep(timedelta(0))
        await ctx.sleep(timedelta(seconds=-1))
        return "awake"

    story = await stage.play(play)
    assert story.result == "awake"
    sleeps = [entry for entry in story.entries if isinstance(entry, Sleep)]
    assert [(sleep.name, sleep.duration_ms) for sleep in sleeps] == [("nap", 15), ("", 0), ("", 0)]
    assert stage.clock.monotonic_ms() - began_ms >= 15


async def test_a_race_of_a_step_and_a_timer_is_decided_once(stage: Stage) -> None:
    """A timer that came before the step's result in the journal came before it in every replay."""
    seen: set[str] = set()
    release = asyncio.Event()

    async def play(ctx: Context) -> str:
        async def step() -> str:
            await release.wait()
            return "step"

        work: DurableFuture[Any] = ctx.run("work", step)
        timer: DurableFuture[Any] = ctx.sleep(SHORT)
        done, _ = await asyncio.wait({work, timer}, return_when=asyncio.FIRST_COMPLETED)
        winner = "timer" if timer in done else "work"
        seen.add(winner)
        await ctx.run(winner, lambda: None)
        return winner

    async def release_late() -> None:
        def fired() -> bool:
            # As a worker does: a look that came early is repeated.
            stage.sweep()
            return any(isinstance(row.entry, Completion) for row in stage.rows())

        await wait_until(fired)
        release.set()

    releasing = asyncio.create_task(release_late())
    story = await stage.play(play)
    await releasing
    assert story.result == "timer"
    assert seen == {"timer"}


async def test_a_journal_that_is_too_long_pauses(stage: Stage) -> None:
    """The message says how long it may be and what to do; it is not retried in a loop."""
    stage.journal_entries_max = 10

    async def play(ctx: Context) -> None:
        for number in range(20):
            await ctx.run(f"step {number}", lambda: None)

    story = await stage.play(play)
    assert "10 are allowed" in paused_reason(story)


async def test_an_argumentless_terminal_error_is_the_outcome(stage: Stage) -> None:
    """A TerminalError of the handler, with code and metadata, is the invocation's one outcome."""

    async def play(ctx: Context) -> None:
        await ctx.run("step", lambda: None)
        raise TerminalError("sold out", 410, {"item": "hat"})

    story = await stage.play(play)
    assert (story.failure.message, story.failure.status_code) == ("sold out", 410)
    assert story.failure.metadata == {"item": "hat"}
    assert isinstance(story.ends[-1], Completed)


async def test_long_waits_hold_no_memory(plain_stage: Stage) -> None:
    """A wait beyond the inactivity timeout leaves at once, and the journal shows that no time was spent."""

    async def play(ctx: Context) -> str:
        await ctx.run("before", lambda: None)
        await ctx.sleep(timedelta(days=300))
        return "awake"

    story = await plain_stage.play(handler_from(play))
    assert story.result == "awake"
    assert story.ends[0] == Left("suspended")
    assert [type(entry) for entry in story.entries].count(Run) == 1


async def test_what_has_ended_is_freed_at_once(stage: Stage) -> None:
    """No circle of references outlives an attempt: memory does not wait for the collector, which costs CPU time."""

    async def play(ctx: Context) -> None:
        async def step() -> None:
            await asyncio.sleep(0)

        await asyncio.gather(ctx.run("async", step), ctx.run("sync", lambda: None))
        await ctx.sleep(SHORT)

    ended: list[weakref.ref[Attempt]] = []
    new_attempt = stage.new_attempt

    def noted(handler: Handler, claim: Claim) -> Attempt:
        attempt = new_attempt(handler, claim)
        ended.append(weakref.ref(attempt))
        return attempt

    stage.new_attempt = noted  # type: ignore[method-assign]
    gc.disable()
    try:
        assert (await stage.play(play)).status == "completed"
        await wait_until(lambda: not any(ref() for ref in ended), description="attempts are freed")
    finally:
        gc.enable()
