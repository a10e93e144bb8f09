"""Timers that a handler sets through asyncio: each one is a durable timer of its attempt.

`asyncio.sleep`, `timeout` and `wait_for`, and `wait` and `as_completed` with a timeout, all ask their loop to call
something back later. Asked from a handler, the loop hands that to the handler's attempt, which issues a timer as
`ctx.sleep` does: it is in the journal, fires in the journal's order in every replay, and outlives the worker.

Timers of steps, of the engine, and of whoever calls the loop's own methods, stay timers of the loop.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from contextvars import Context
from typing import Any

from perdure.schemas.errors import TerminalError, UsageError

from .futures import DurableFuture
from .scope import SCOPE, StepInfo, TaskOwner, install_task_factory

SECONDS_MAX = 100 * 365 * 86_400.0
"""What `asyncio.sleep(math.inf)` means here: longer than any invocation is kept."""

# Where asyncio's waits live. Not all of asyncio: its transports have timers, too, which are no waits of a handler.
_WAITS = frozenset({"asyncio.tasks", "asyncio.timeouts"})

# How a timeout sets its timer, or finds that it is over already.
_BEGIN = asyncio.Timeout.reschedule.__code__

# What `asyncio.sleep` has called back: how a sleep is told from a timeout, whose wait is for something else.
_WAKE = getattr(asyncio.futures, "_set_result_unless_cancelled", None)


def prepare_loop(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Have the loop tell attempts of all that their handlers start: tasks and timers. Returns what undoes it.

    Several may be undone in any order.
    """
    undo_tasks = install_task_factory(loop)
    undo_timers = _install_timers(loop)

    def undo() -> None:
        undo_timers()
        undo_tasks()

    return undo


def _install_timers(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    # On the loop itself, because asyncio asks the loop that runs, whoever the caller is. A loop has no hook for timers.
    call_later, call_at, run_in_executor, time = loop.call_later, loop.call_at, loop.run_in_executor, loop.time
    undone = False

    def durable(
        delay: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle | None:
        owner = None if undone else _owner()
        if owner is None or _caller() not in _WAITS:
            return None
        return owner.set_timer(delay, callback, args, context)

    def later(
        delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = durable(delay, callback, args, context)
        return call_later(delay, callback, *args, context=context) if handle is None else handle

    def at(
        when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = durable(when - time(), callback, args, context)
        return call_at(when, callback, *args, context=context) if handle is None else handle

    def now() -> float:
        # Asked by a timeout that begins: whether it is over already must not be decided by this machine's clock.
        if not undone and _owner() is not None and sys._getframe(1).f_code is _BEGIN:
            return -math.inf
        return time()

    def in_executor(executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        owner = None if undone else _owner()
        if owner is not None and owner.by_handler:
            _refuse_threads(_caller(2))
        return run_in_executor(executor, func, *args)

    mine: dict[str, Any] = {"call_later": later, "call_at": at, "run_in_executor": in_executor, "time": now}
    take_off = _put_on(loop, mine)

    def undo() -> None:
        nonlocal undone
        undone = True
        take_off()

    return undo


def _put_on(loop: asyncio.AbstractEventLoop, methods: dict[str, Any]) -> Callable[[], None]:
    attributes = vars(loop)
    before = {name: attributes[name] for name in methods if name in attributes}
    attributes.update(methods)

    def take_off() -> None:
        for name, method in methods.items():
            # One that was put over this one calls it, and stays.
            if attributes.get(name) is method:
                del attributes[name]
                if name in before:
                    attributes[name] = before[name]

    return take_off


def _caller(frames: int = 3) -> str:
    """The module that called the loop, so many frames up."""
    name: str = sys._getframe(frames).f_globals.get("__name__", "")
    return name


def _refuse_threads(caller: str) -> None:
    # asyncio's own, such as for names of hosts, go with I/O that a handler does by itself; those of steps are ours.
    if caller == "asyncio.threads" or not caller.startswith(("asyncio.", "perdure.")):
        what = "asyncio.to_thread" if caller == "asyncio.threads" else "loop.run_in_executor"
        raise UsageError(
            f"{what} was called by a handler: what a thread returns is not recorded, and every replay would run it "
            "again. Use ctx.run(name, function): a plain function runs in a thread, once."
        )


def _owner() -> TaskOwner | None:
    scope = SCOPE.get()
    return None if isinstance(scope, StepInfo) else scope


class DurableTimer(asyncio.TimerHandle):
    """What asyncio holds of a timer that is a durable one: it can be cancelled, and is called back when that fires."""

    __slots__ = ("_future", "_sleeper")

    def __init__(
        self,
        future: DurableFuture[None],
        callback: Callable[..., object],
        args: tuple[Any, ...],
        *,
        when: float,
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._future = future
        self._sleeper: asyncio.Future[Any] | None = args[0] if callback is _WAKE is not None else None
        future.add_done_callback(self._fire)

    def _fire(self, future: asyncio.Future[None]) -> None:
        if not self.cancelled():
            self._run()

    def cancel(self) -> None:
        """See `asyncio.Handle.cancel`. The timer stays in the journal, and nobody waits for it."""
        if not self.cancelled():
            asyncio.Handle.cancel(self)
            self._future.remove_done_callback(self._fire)

    @property
    def sleeper(self) -> asyncio.Future[Any] | None:
        """The future that `asyncio.sleep` waits for; `None` for a timeout, whose wait is for something else."""
        found = self._sleeper
        return None if found is None or found.done() or self.cancelled() else found

    def interrupt(self, error: TerminalError) -> None:
        """Raise `error` in a sleep. A timeout goes on."""
        sleeper = self.sleeper
        if sleeper is not None:
            self.cancel()
            sleeper.set_exception(error)
