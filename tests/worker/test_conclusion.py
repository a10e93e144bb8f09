"""What becomes of an attempt, whatever its handler does: `perdure.worker.conclusion`."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from perdure.journal.store import Claim
from perdure.schemas.entries import AttemptFailed, Output, Paused
from perdure.schemas.errors import RetryableError, TerminalError
from perdure.worker.context import Context
from perdure.worker.departures import Left
from perdure.worker.handler import unknown_handler
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from perdure.worker.serde import BytesSerde
from tests.worker.attempt_stage import Stage, Story, handler_from, paused_reason

MS = timedelta(milliseconds=1)


class Order(BaseModel):
    """An argument."""

    item: str
    count: int


async def test_an_argument_that_its_type_refuses_is_terminal(stage: Stage) -> None:
    """Code 400 with the validation message; the handler is not called, and nothing is retried."""

    async def play(ctx: Context, order: Order) -> None:
        raise AssertionError("it was called")

    story = await stage.play(play, {"item": "hat", "count": "many"})
    assert story.failure.status_code == 400
    assert "count" in story.failure.message
    assert len(story.ends) == 1


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\x00"])
async def test_an_argument_that_is_missing_or_broken_is_terminal(plain_stage: Stage, raw: bytes) -> None:
    """So is one that is no JSON, or none at all."""

    async def play(ctx: Context, order: Order) -> None:
        raise AssertionError("it was called")

    assert (await plain_stage.play(play, raw=raw)).failure.status_code == 400


async def test_a_result_that_cannot_be_written_is_retried(plain_stage: Stage) -> None:
    """A retryable failure that names the handler and the type; deploying a mended handler heals it."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> Any:
        attempts["n"] += 1
        return asyncio.Lock() if attempts["n"] < 3 else "mended"

    story = await plain_stage.play(play)
    assert story.result == "mended"
    assert len(story.failures) == 2
    assert "Stage/play" in story.failures[0]
    assert "Lock" in story.failures[0]


async def test_a_result_that_is_too_large_is_retried(plain_stage: Stage) -> None:
    """The message says how large it is and may be."""
    plain_stage.payload_bytes_max = 100
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        attempts["n"] += 1
        return "x" * (1_000 if attempts["n"] == 1 else 10)

    story = await plain_stage.play(play)
    assert story.result == "x" * 10
    assert "1002 bytes; at most 100" in story.failures[0]


async def test_results_may_be_bytes(stage: Stage) -> None:
    """A BytesSerde carries arguments, step values and results as they are, JSON or not."""

    async def play(ctx: Context, data: bytes) -> bytes:
        half = await ctx.run("step", lambda: data[::-1], serde=BytesSerde())
        return half + data

    handler = handler_from(play, input_serde=BytesSerde(), output_serde=BytesSerde())
    story = await stage.play(handler, raw=b"\x00\xff{")
    assert story.raw == b"{\xff\x00\x00\xff{"


async def test_failed_attempts_back_off(stage: Stage) -> None:
    """500 ms, doubled; each failure is in the journal with its stack and its delay."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> int:
        attempts["n"] += 1
        if attempts["n"] < 4:
            raise ValueError(f"failure {attempts['n']}")
        return attempts["n"]

    story = await stage.play(play)
    assert story.result == 4
    failed = [entry for entry in story.entries if isinstance(entry, AttemptFailed)]
    assert [entry.retry_ms for entry in failed] == [500, 1_000, 2_000]
    assert "raise ValueError(f" in failed[0].stack


async def test_progress_begins_the_policy_anew(stage: Stage) -> None:
    """Attempts are counted since the last recorded step: a long handler may fail more often than `max_attempts`."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        for number in range(5):
            await ctx.run(f"step {number}", lambda: None)
            attempts[f"after {number}"] += 1
            if attempts[f"after {number}"] == 1:
                raise ValueError(f"after {number}")
        return "done"

    policy = InvocationRetryPolicy(max_attempts=2)
    story = await stage.play(handler_from(play, invocation_retry_policy=policy))
    assert story.result == "done"
    assert len(story.failures) == 5


@pytest.mark.parametrize("attempts_max", [1, 3])
async def test_the_last_attempt_pauses(stage: Stage, attempts_max: int) -> None:
    """After `max_attempts` the invocation is paused, with the last failure as its reason."""

    async def play(ctx: Context) -> None:
        raise ValueError("never")

    policy = InvocationRetryPolicy(max_attempts=attempts_max)
    story = await stage.play(handler_from(play, invocation_retry_policy=policy))
    assert "ValueError: never" in paused_reason(story)
    assert len(story.failures) == attempts_max
    assert isinstance(story.entries[-1], Paused)


async def test_the_last_attempt_kills(stage: Stage) -> None:
    """With `on_max_attempts="kill"` it is a terminal failure instead, for its callers to see."""

    async def play(ctx: Context) -> None:
        raise ValueError("never")

    policy = InvocationRetryPolicy(max_attempts=2, on_max_attempts="kill")
    story = await stage.play(handler_from(play, invocation_retry_policy=policy))
    assert "ValueError: never" in story.failure.message
    assert isinstance(story.entries[-1], Output)


async def test_retry_after_of_a_handler(stage: Stage) -> None:
    """A RetryableError raised by the handler sets the delay of the next attempt."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        attempts["n"] += 1
        if attempts["n"] == 1:
            raise RetryableError("busy", retry_after=timedelta(hours=2))
        return "done"

    story = await stage.play(play)
    assert story.result == "done"
    assert [entry.retry_ms for entry in story.entries if isinstance(entry, AttemptFailed)] == [7_200_000]


async def test_workers_that_die_use_attempts_up(plain_stage: Stage) -> None:
    """What takes its worker down each time ends paused, although no attempt could record its own failure."""

    async def play(ctx: Context) -> None:
        raise AssertionError("it was called")

    policy = InvocationRetryPolicy(max_attempts=3)
    handler = handler_from(play, invocation_retry_policy=policy)
    story, _ = plain_stage.begin(handler)
    claim: Claim | None = None
    for _ in range(3):
        # The holder says nothing more; its lease ends.
        claim = await plain_stage.next_claim(story)
    story = await plain_stage.go_on(story, claim)
    assert "taking its worker down" in paused_reason(story)


async def test_an_unknown_handler_is_retried_then_paused(plain_stage: Stage) -> None:
    """A rolling deployment may bring it; when it does not come, the reason says what to do."""
    handler = unknown_handler("Stage", "missing")
    story, claim = plain_stage.begin(handler)
    story.ends.append(await plain_stage.run(handler, claim))
    assert isinstance(story.ends[0], Left)
    assert story.ends[0].status == "backing-off"
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert "No worker here has a handler Stage/missing. Deploy one" in paused_reason(story)
    assert len(story.failures) == 70


class Custom(BaseException):
    """What libraries raise that want no `except Exception` to catch it."""


async def leave() -> None:
    """Call sys.exit."""
    sys.exit("bye")


async def raise_custom() -> None:
    """Raise what is no Exception."""
    raise Custom("odd")


async def interrupt() -> None:
    """Raise what Ctrl-C would."""
    raise KeyboardInterrupt


async def generator_exit() -> None:
    """Raise what the end of a generator would."""
    raise GeneratorExit


async def recurse() -> None:
    """Call oneself until Python refuses."""
    await recurse()


async def interrupt_in_task() -> None:
    """Have a task raise what Ctrl-C would."""
    await asyncio.create_task(interrupt())


async def generator_exit_in_task() -> None:
    """Likewise what the end of a generator would."""
    await asyncio.create_task(generator_exit())


class UnspeakableError(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


async def raise_unspeakable() -> None:
    """Raise what has no text."""
    raise UnspeakableError


async def await_cancelled() -> None:
    """Wait for a task of one's own that is cancelled."""
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    await task


@pytest.mark.parametrize(
    "odd",
    [
        leave,
        raise_custom,
        await_cancelled,
        interrupt,
        interrupt_in_task,
        generator_exit,
        generator_exit_in_task,
        raise_unspeakable,
        recurse,
    ],
)
async def test_whatever_a_handler_raises_fails_its_attempt(stage: Stage, odd: Callable[[], Any]) -> None:
    """sys.exit, KeyboardInterrupt, anything: the attempt fails and is retried, and the worker lives."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        attempts["n"] += 1
        await ctx.run("step", lambda: None)
        if attempts["n"] < 4:
            await odd()
        return "done"

    story = await stage.play(play)
    assert story.result == "done"
    assert story.failures


async def test_compensations_are_steps(stage: Stage) -> None:
    """On a TerminalError a handler undoes what it did, durably and once, and fails with that error."""
    ran: Counter[str] = Counter()

    async def play(ctx: Context) -> None:
        undo: list[str] = []
        try:
            for name in ("flight", "hotel", "car"):
                undo.append(name)

                async def book(name: str) -> None:
                    ran[f"book {name}"] += 1
                    if name == "car":
                        raise TerminalError("no cars", 409)

                await ctx.run_typed(f"book {name}", book, RunOptions(), name)
        except TerminalError:
            for name in reversed(undo):

                async def cancel(name: str) -> None:
                    ran[f"cancel {name}"] += 1
                    if ran[f"cancel {name}"] == 1 and name == "hotel":
                        raise ValueError("try again")

                await ctx.run_typed(f"cancel {name}", cancel, RunOptions(), name)
            raise

    story = await stage.play(play)
    assert (story.failure.message, story.failure.status_code) == ("no cars", 409)
    assert ran == {
        "book flight": 1,
        "book hotel": 1,
        "book car": 1,
        "cancel car": 1,
        "cancel hotel": 2,
        "cancel flight": 1,
    }


async def test_long_messages_are_shortened(plain_stage: Stage) -> None:
    """A failure with a huge message, or one that UTF-8 cannot carry, is recorded."""

    async def play(ctx: Context) -> None:
        raise TerminalError("x" * 100_000 + "\ud800")

    story: Story = await plain_stage.play(play)
    assert len(story.failure.message) < 10_000
    assert "left out" in story.failure.message


async def test_what_has_no_text_is_recorded(plain_stage: Stage) -> None:
    """An error whose own code cannot make a text is known by its type: of steps, of arguments, of the last attempt."""

    class Unreadable(BytesSerde):
        def deserialize(self, buf: bytes) -> bytes:
            raise UnspeakableError

    async def step(ctx: Context) -> None:
        await ctx.run_typed("step", raise_unspeakable, RunOptions(max_attempts=2, initial_retry_interval=MS))

    async def last(ctx: Context) -> None:
        await raise_unspeakable()

    policy = InvocationRetryPolicy(max_attempts=1, on_max_attempts="kill")
    said = "no text: its __str__ raised ValueError"
    assert said in (await plain_stage.play(step)).failure.message
    assert said in (await plain_stage.play(handler_from(last, invocation_retry_policy=policy))).failure.message

    async def takes(ctx: Context, data: bytes) -> None:
        """Never called."""

    handler = handler_from(takes, input_serde=Unreadable())
    assert said in (await plain_stage.play(handler, raw=b"x")).failure.message
