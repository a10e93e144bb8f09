"""Who owns a task, and which step code runs in: `perdure.worker.scope`."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import Counter
from typing import Any

import pytest

from perdure.worker.context import Context
from perdure.worker.scope import SCOPE, current_step, install_task_factory, is_blocked
from tests.worker.attempt_stage import Stage

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Owner:
    """Writes down what it is told to adopt."""

    abandoned = False
    shaken = False
    by_handler = True

    def __init__(self) -> None:
        self.adopted: list[asyncio.Task[Any]] = []

    context: Any = None
    replaying = False

    def log_fields(self) -> dict[str, Any]:
        """See `TaskOwner.log_fields`."""
        return {}

    def set_timer(self, *_: object) -> None:
        """See `TaskOwner.set_timer`."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """See `TaskOwner.adopt`."""
        self.adopted.append(task)


async def nothing() -> None:
    """Do nothing."""


async def test_tasks_are_adopted_with_all_their_children() -> None:
    """Every task that starts in an owner's context is adopted, and one in a context of its own is not."""
    owner = Owner()
    loop = asyncio.get_running_loop()
    undo = install_task_factory(loop)

    async def parent() -> None:
        await asyncio.create_task(nothing())

    token = SCOPE.set(owner)
    await asyncio.create_task(parent())
    await loop.create_task(nothing(), context=contextvars.Context())
    SCOPE.reset(token)
    await asyncio.create_task(nothing())
    undo()
    assert len(owner.adopted) == 2
    assert loop.get_task_factory() is None


async def test_a_factory_that_was_there_is_kept() -> None:
    """Tasks are made by the factory that was set before, contexts handed on, and it is set again afterwards."""
    made: list[str] = []

    def earlier(loop: Any, coroutine: Any, **rest: Any) -> asyncio.Task[Any]:
        made.append("context" if "context" in rest else "plain")
        return asyncio.Task(coroutine, loop=loop, **rest)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(earlier)
    undo = install_task_factory(loop)
    await asyncio.create_task(nothing())
    await loop.create_task(nothing(), context=contextvars.Context())
    undo()
    assert made == ["plain", "context"]
    assert loop.get_task_factory() is earlier
    loop.set_task_factory(None)


async def test_factories_may_be_undone_in_any_order() -> None:
    """Of two workers on one loop the first may end first: the second one's handlers keep their tasks."""
    loop = asyncio.get_running_loop()
    undo_first, undo_second = install_task_factory(loop), install_task_factory(loop)
    undo_first()
    owner = Owner()
    token = SCOPE.set(owner)
    await asyncio.create_task(nothing())
    undo_second()
    await asyncio.create_task(nothing())
    SCOPE.reset(token)
    assert len(owner.adopted) == 1
    loop.set_task_factory(None)


async def test_blocked_is_who_waits_for_what_is_not_done() -> None:
    """A task that can run is not blocked; one that waits is, and so is one that ended."""
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await gate

    task = asyncio.create_task(wait())
    assert not is_blocked(task)
    await asyncio.sleep(0)
    assert is_blocked(task)
    gate.set_result(None)
    assert not is_blocked(task)
    await task
    assert is_blocked(task)


async def test_sys_exit_in_a_task_of_a_handler_fails_the_attempt(plain_stage: Stage) -> None:
    """It ends neither the worker nor the loop, wherever in the task it comes."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> str:
        attempts["n"] += 1

        async def sub() -> None:
            if attempts["n"] == 1:
                sys.exit("at once")
            try:
                await ctx.run("step", lambda: None)
            finally:
                if attempts["n"] == 2:
                    sys.exit("later")

        await asyncio.gather(sub(), sub())
        return "done"

    story = await plain_stage.play(play)
    assert story.result == "done"
    assert story.failures == [
        "RuntimeError: a task of a handler called sys.exit('at once')",
        "RuntimeError: a task of a handler called sys.exit('later')",
    ]


async def test_a_cancelled_task_may_call_sys_exit(plain_stage: Stage) -> None:
    """What a task does when it is cancelled is contained, too, and one that never began leaves no trace."""

    async def play(ctx: Context) -> str:
        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                sys.exit(3)

        begun = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        begun.cancel()
        asyncio.create_task(stubborn()).cancel()
        with pytest.raises(RuntimeError, match=r"sys\.exit"):
            await begun
        return "done"

    assert (await plain_stage.play(play)).result == "done"


async def test_steps_know_themselves(stage: Stage) -> None:
    """Inside a step, in a thread or on the loop, its name, place and execution are known; outside there is none."""
    seen: list[Any] = []

    async def play(ctx: Context) -> None:
        async def on_the_loop() -> None:
            await asyncio.create_task(note())

        async def note() -> None:
            seen.append(current_step())

        await ctx.run("loop", on_the_loop)
        await ctx.run("thread", lambda: seen.append(current_step()))
        assert current_step() is None

    story = await stage.play(play)
    assert [(step.name, step.command_index, step.attempt) for step in seen] == [("loop", 0, 1), ("thread", 1, 1)]
    assert {step.invocation_id for step in seen} == {story.invocation_id}
    assert len({step.idempotency_key for step in seen}) == 2


async def test_context_variables_reach_steps(stage: Stage) -> None:
    """Async steps and threads see the handler's context variables of the moment of the call, and change only theirs."""
    seen: dict[str, list[str]] = {"loop": [], "thread": [], "handler": []}

    async def play(ctx: Context) -> None:
        def thread() -> None:
            seen["thread"].append(WHO.get())
            WHO.set("a thread")

        async def loop() -> None:
            seen["loop"].append(WHO.get())
            WHO.set("a step")

        WHO.set("first")
        one, two = ctx.run("thread", thread), ctx.run("loop", loop)
        WHO.set("second")
        await one
        await two
        seen["handler"].append(WHO.get())

    assert (await stage.play(play)).status == "completed"
    assert set(seen["loop"]) == {"first"}
    assert set(seen["thread"]) == {"first"}
    assert set(seen["handler"]) == {"second"}
