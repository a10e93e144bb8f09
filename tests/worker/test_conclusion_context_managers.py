"""Context managers around attempts: when they are entered and left, and what they see: `perdure.worker.conclusion`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.errors import TerminalError
from perdure.worker.context import Context, current_context
from perdure.worker.context_managers import ContextManagerFactory
from perdure.worker.departures import Left
from perdure.worker.handler import Handler, handler_of
from perdure.worker.service import Service
from tests.worker.attempt_stage import Stage

HOUR = timedelta(hours=1)


class Diary:
    """Context managers that write down when they are entered and how they are left."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def around(self, name: str) -> ContextManagerFactory:
        """A context manager of this name."""

        @contextlib.asynccontextmanager
        async def manager() -> AsyncIterator[None]:
            self.lines.append(f"{name} entered")
            try:
                yield
            except BaseException as error:
                self.lines.append(f"{name} left by {type(error).__name__}")
                raise
            else:
                self.lines.append(f"{name} left")

        return manager


def handler_inside(fn: Any, *managers: ContextManagerFactory) -> Handler:
    """`fn` as a handler, the first context manager given to its service and the others to itself."""
    service = Service("Stage", invocation_context_managers=managers[:1])
    return handler_of(service.handler("play", invocation_context_managers=managers[1:])(fn))


async def test_they_know_the_context(plain_stage: Stage) -> None:
    """What the handler will be called with, and through it the request."""
    seen: list[Context | None] = []

    @contextlib.asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        seen.append(current_context())
        yield

    async def play(ctx: Context) -> bool:
        seen.append(ctx)
        return True

    await plain_stage.play(handler_inside(play, manager))
    assert seen[0] is seen[1] is not None


async def test_they_are_entered_in_order_and_left_in_reverse(plain_stage: Stage) -> None:
    """The service's is outermost; arguments are read and results written inside."""
    diary = Diary()

    async def play(ctx: Context, name: str) -> str:
        diary.lines.append("called")
        return await ctx.run("step", lambda: name)

    handler = handler_inside(play, diary.around("a"), diary.around("b"), diary.around("c"))
    assert (await plain_stage.play(handler, "hat")).result == "hat"
    assert diary.lines == ["a entered", "b entered", "c entered", "called", "c left", "b left", "a left"]


async def test_they_are_entered_in_each_attempt(plain_stage: Stage) -> None:
    """Before a failure, and around the replay; a suspension leaves them as a cancellation does."""
    diary = Diary()
    attempts: list[int] = []
    plain_stage.inactivity_ms = 0

    async def play(ctx: Context) -> int:
        attempts.append(ctx.request().attempt)
        if len(attempts) == 1:
            raise ValueError("the first one fails")
        await ctx.sleep(HOUR)
        return len(attempts)

    story = await plain_stage.play(handler_inside(play, diary.around("a")))
    assert story.result == 3
    assert [end.status for end in story.ends if isinstance(end, Left)] == ["backing-off", "suspended"]
    assert diary.lines == [
        "a entered",
        "a left by ValueError",
        "a entered",
        "a left by CancelledError",
        "a entered",
        "a left",
    ]


async def test_they_see_a_terminal_failure_pass(stage: Stage) -> None:
    """The outcome is the handler's, once."""
    diary = Diary()

    async def play(ctx: Context) -> None:
        raise TerminalError("no hats", 404)

    story = await stage.play(handler_inside(play, diary.around("a")))
    assert (story.failure.message, story.failure.status_code) == ("no hats", 404)
    assert diary.lines == ["a entered", "a left by TerminalError"]


async def test_they_see_that_an_argument_is_refused(stage: Stage) -> None:
    """As if the handler had raised it: they may count it, or translate it."""
    diary = Diary()

    async def play(ctx: Context, count: int) -> None:
        raise AssertionError("it was called")

    story = await stage.play(handler_inside(play, diary.around("a")), "many")
    assert story.failure.status_code == 400
    assert diary.lines == ["a entered", "a left by TerminalError"]


@pytest.mark.parametrize("where", ["made", "entered", "left"])
async def test_one_that_fails_fails_the_attempt(plain_stage: Stage, where: str) -> None:
    """Wherever it does so. It is tried again, completed steps are not, and those around it are left in good order."""
    diary = Diary()
    steps: list[str] = []
    failures = iter([True, True])

    def fail(now: str) -> None:
        if now == where and next(failures, False):
            raise ConnectionError(f"no connection when {now}")

    class Connection:
        def __init__(self) -> None:
            fail("made")

        async def __aenter__(self) -> None:
            fail("entered")

        async def __aexit__(self, *_: object) -> None:
            fail("left")

    async def play(ctx: Context) -> str:
        def step() -> str:
            steps.append("step")
            return "done"

        return await ctx.run("step", step)

    story = await plain_stage.play(handler_inside(play, diary.around("a"), Connection))
    assert story.result == "done"
    assert steps == ["step"]
    assert [failure.split(":")[0] for failure in story.failures] == ["ConnectionError"] * 2
    assert diary.lines == ["a entered", "a left by ConnectionError"] * 2 + ["a entered", "a left"]


async def test_one_may_end_an_invocation(stage: Stage) -> None:
    """A TerminalError is an outcome, whoever raises it: here another error's translation."""

    @contextlib.asynccontextmanager
    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except KeyError as error:
            raise TerminalError("unknown hat", 404) from error

    async def play(ctx: Context) -> None:
        raise KeyError("hat")

    story = await stage.play(handler_inside(play, translating))
    assert (story.failure.message, story.failure.status_code, len(story.failures)) == ("unknown hat", 404, 0)


async def test_one_that_swallows_a_failure_is_reported_by_name(plain_stage: Stage) -> None:
    """There is no result to record then, and a made-up one would be a lie; the attempt is retried."""
    calls: list[int] = []

    async def play(ctx: Context) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("swallowed")
        return "mended"

    story = await plain_stage.play(handler_inside(play, lambda: swallowing()))
    assert story.result == "mended"
    assert len(story.failures) == 1
    assert "A context manager around Stage/play swallowed what was raised" in story.failures[0]


@contextlib.asynccontextmanager
async def swallowing() -> AsyncIterator[None]:
    """Lets nothing out."""
    with contextlib.suppress(ValueError):
        yield


CONNECTION: ContextVar[str] = ContextVar("connection")


async def test_what_they_set_is_seen_by_the_handler_and_its_steps(stage: Stage) -> None:
    """Context variables are how a connection reaches the code that needs it; they end with the attempt."""

    @contextlib.asynccontextmanager
    async def connected() -> AsyncIterator[None]:
        token = CONNECTION.set("open")
        try:
            yield
        finally:
            CONNECTION.reset(token)

    async def play(ctx: Context) -> list[str]:
        async def step() -> str:
            return CONNECTION.get()

        return [CONNECTION.get(), await ctx.run("async", step), await ctx.run("thread", CONNECTION.get)]

    assert (await stage.play(handler_inside(play, connected))).result == ["open"] * 3
    assert CONNECTION.get("none") == "none"
