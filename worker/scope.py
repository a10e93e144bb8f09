"""Which invocation or step the running code belongs to: a context variable and a task factory.

The task factory tells an attempt of every task that its handler starts, so that the attempt knows when all of the
handler is blocked (see `attempt`). Tasks that a step starts are the step's own affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any, NamedTuple, Protocol

from perdure.schemas.errors import UsageError
from perdure.schemas.ids import InvocationId, step_key

from .leash import Contained


class TaskOwner(Protocol):
    """An attempt, as the task factory sees it."""

    context: Any
    """The handler's context, once there is one."""

    @property
    def replaying(self) -> bool:
        """Whether the handler repeats what an earlier attempt did."""

    def log_fields(self) -> dict[str, Any]:
        """Whose line it is that the handler logs."""

    abandoned: bool
    """See `leash.Holder`."""

    shaken: bool
    """See `leash.Holder`."""

    @property
    def by_handler(self) -> bool:
        """Whether the running code is the handler's, and not of something around it."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The handler started this task."""

    def set_timer(
        self, delay_s: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle | None:
        """The handler wants to be called back; `None` where that is no matter of its journal."""


class StepInfo(NamedTuple):
    """The step that is being executed.

    Attributes:
        invocation_id: Of the invocation it belongs to.
        name: As given to `ctx.run`.
        command_index: Its place in program order.
        attempt: Which execution of the step this is, from 1; recorded failures count, crashes do not.
    """

    invocation_id: InvocationId
    name: str
    command_index: int
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """The same in every execution of this step, for the outside world to recognise a repeat by."""
        return step_key(self.invocation_id, self.command_index)


# In a handler its attempt, in a step the step, elsewhere nothing. One variable, because each step sets it.
SCOPE: ContextVar[TaskOwner | StepInfo | None] = ContextVar("perdure_scope", default=None)


def current_step() -> StepInfo | None:
    """The step that the calling code runs in, in a thread or on the loop; `None` outside of steps."""
    scope = SCOPE.get()
    return scope if isinstance(scope, StepInfo) else None


def refuse_in_step(what: str) -> None:
    """Refuse `what`, a use of `ctx`, inside a step.

    Raises:
        UsageError: The calling code runs in one.
    """
    step = current_step()
    if step is not None:
        raise UsageError(
            f"{what} was called inside the step {step.name!r} of {step.invocation_id}. A step is one opaque action: "
            "call ctx from the handler, and pass the step what it needs."
        )


def is_blocked(task: asyncio.Task[Any]) -> bool:
    """Whether a task waits for a future that is not done; one that ended counts, too."""
    if task.done():
        return True
    # The one thing that asyncio knows about a blocked task and has no public name for.
    waiter = getattr(task, "_fut_waiter", None)
    return waiter is not None and not waiter.done()


def install_task_factory(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Have every task that a handler starts adopted by its attempt. Returns what undoes it.

    Keeps a factory that was there before. Several may be undone in any order.
    """
    previous = loop.get_task_factory()
    undone = False

    def factory(
        on: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        context: Context | None = None,
        **rest: Any,
    ) -> asyncio.Task[Any]:
        scope = SCOPE.get() if context is None else context.get(SCOPE)
        owner = None if undone or isinstance(scope, StepInfo) else scope
        if owner is not None and isinstance(coroutine, Coroutine):
            coroutine = Contained(coroutine, owner)
        # `rest` is what newer Pythons hand on: name, eager_start.
        if previous is not None:
            # A factory may make any future; asyncio makes tasks.
            task: Any = previous(on, coroutine, **({} if context is None else {"context": context}), **rest)
        else:
            task = asyncio.Task(coroutine, loop=on, context=context, **rest)
        if owner is not None:
            owner.adopt(task)
        made: asyncio.Task[Any] = task
        return made

    loop.set_task_factory(factory)

    def undo() -> None:
        nonlocal undone
        undone = True
        # One that was put over this one calls it, and stays.
        if loop.get_task_factory() is factory:
            loop.set_task_factory(previous)

    return undo
