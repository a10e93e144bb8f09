"""One execution of a step, whatever its action does: `perdure.worker.steps`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.entries import StepFailed
from perdure.schemas.errors import TerminalError
from perdure.worker.context import Context
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from tests.worker.attempt_stage import Stage, handler_from

MS = timedelta(milliseconds=1)


class Custom(BaseException):
    """What libraries raise that want no `except Exception` to catch it."""


def cancel() -> None:
    """Raise what a cancelled future of the step's own would."""
    raise asyncio.CancelledError("something of the step's own")


async def cancel_async() -> None:
    """Wait for something that is cancelled."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def exit_() -> None:
    """Call sys.exit."""
    sys.exit(7)


async def exit_async() -> None:
    """Call sys.exit on the loop."""
    sys.exit(7)


def custom() -> None:
    """Raise what is no Exception."""
    raise Custom("odd")


async def custom_async() -> None:
    """Raise what is no Exception, on the loop."""
    raise Custom("odd")


def interrupt() -> None:
    """Raise what Ctrl-C would, in a thread."""
    raise KeyboardInterrupt


async def interrupt_async() -> None:
    """Raise what Ctrl-C would, on the loop."""
    raise KeyboardInterrupt


async def generator_exit_async() -> None:
    """Raise what the end of a generator would."""
    raise GeneratorExit


def stop() -> None:
    """Raise what asyncio refuses to carry out of a thread."""
    raise StopIteration


@pytest.mark.parametrize(
    "action",
    [
        cancel,
        cancel_async,
        exit_,
        exit_async,
        custom,
        custom_async,
        stop,
        interrupt,
        interrupt_async,
        generator_exit_async,
    ],
)
async def test_whatever_a_step_raises_is_a_failure(stage: Stage, action: Any) -> None:
    """Nothing that a step raises ends the worker, or leaves the handler waiting for ever."""
    policy = InvocationRetryPolicy(max_attempts=2, on_max_attempts="kill")

    async def play(ctx: Context) -> None:
        await ctx.run("step", action)

    story = await stage.play(handler_from(play, invocation_retry_policy=policy))
    assert story.failure.status_code == 500
    assert len(story.failures) == 2


@pytest.mark.parametrize("action", [cancel_async, exit_, exit_async, stop])
async def test_whatever_a_step_raises_counts_for_its_policy(plain_stage: Stage, action: Any) -> None:
    """A step's own policy takes such failures like any other."""

    async def play(ctx: Context) -> None:
        await ctx.run_typed("step", action, RunOptions(max_attempts=2, initial_retry_interval=MS))

    story = await plain_stage.play(play)
    assert story.failure.status_code == 500
    assert [type(entry) for entry in story.entries].count(StepFailed) == 1


async def test_results_too_large_name_the_step(plain_stage: Stage) -> None:
    """A result over the limit fails the attempt; the message says the size, the limit and what to do."""
    plain_stage.payload_bytes_max = 100
    policy = InvocationRetryPolicy(max_attempts=1)

    async def play(ctx: Context) -> None:
        await ctx.run("download", lambda: "x" * 200)

    story = await plain_stage.play(handler_from(play, invocation_retry_policy=policy))
    assert story.status == "paused"
    assert "'download' has 202 bytes; at most 100" in story.fields["last_failure"]


async def test_results_that_cannot_be_written_name_the_step(plain_stage: Stage) -> None:
    """The message names the step and the type of the value."""
    policy = InvocationRetryPolicy(max_attempts=1)

    async def play(ctx: Context) -> None:
        await ctx.run("connect", lambda: asyncio.Lock())

    story = await plain_stage.play(handler_from(play, invocation_retry_policy=policy))
    assert story.status == "paused"
    assert "connect" in story.fields["last_failure"]
    assert "Lock" in story.fields["last_failure"]


async def test_a_step_that_is_too_large_under_a_policy_is_exhausted(plain_stage: Stage) -> None:
    """A value that is dropped as too large leaves nothing behind that the handler could see."""
    plain_stage.payload_bytes_max = 100

    async def play(ctx: Context) -> str:
        try:
            await ctx.run_typed("download", lambda: "x" * 200, RunOptions(max_attempts=1))
        except TerminalError as error:
            return error.message[:40]
        raise AssertionError("it succeeded")

    story = await plain_stage.play(play)
    assert story.result == "The result of step 'download' has 202 by"
