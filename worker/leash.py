"""Coroutines of handlers, held so that a worker survives what they do: `sys.exit`, and not letting themselves be ended.

A task ends when its coroutine does, and a coroutine may catch whatever is thrown into it, for ever. These stand between
the two: once an attempt has abandoned its handler, what is thrown ends the task and is not shown to the coroutine.
"""

from __future__ import annotations

import asyncio
import signal
import types
from collections.abc import Awaitable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Holder(Protocol):
    """An attempt, as what holds its handler's coroutines sees it."""

    abandoned: bool
    """Whether nothing more is thrown into them."""

    shaken: bool
    """Whether something was thrown into the handler's own one."""


@types.coroutine
def leashed(called: Awaitable[T], holder: Holder) -> Generator[Any, None, T]:
    """Await what a handler's function returned, or let go of it once `holder` has abandoned it."""
    # Handlers are coroutine functions, whatever decorates them.
    coroutine: Any = called
    # A generator and not a class: this is on the way of every wait of every handler.
    send = coroutine.send
    try:
        waited = send(None)
        while True:
            try:
                yield waited
            except BaseException as error:
                # What was waited for may hold the error, and the error this frame: no circle, so that both are freed.
                waited = None
                if holder.abandoned:
                    _let_go(coroutine)
                    raise
                holder.shaken = True
                waited = coroutine.throw(error)
            else:
                waited = send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _let_go(coroutine: Coroutine[Any, Any, Any]) -> None:
    # One that ignores even this stays where it is, until it is collected.
    with suppress(BaseException):
        coroutine.close()


def raised_by_author(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether the code of a handler or step raised it by itself, in its task, and it is to fail an attempt only.

    Otherwise a KeyboardInterrupt is Ctrl-C, and a GeneratorExit the end of a coroutine that nobody runs any more.
    """
    match error:
        case KeyboardInterrupt():
            # Workers hear of SIGINT by their loop, and never by an exception.
            return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        case GeneratorExit():
            return task is not None and asyncio.current_task() is task
        case _:
            return True


class Contained(Coroutine[Any, Any, Any]):
    """The coroutine of a task that a handler started: `sys.exit` and the like are errors, and it can be let go of."""

    def __init__(self, inner: Coroutine[Any, Any, Any], holder: Holder) -> None:
        self._inner = inner
        self._holder = holder

    def send(self, value: Any) -> Any:
        """See `Coroutine.send`."""
        try:
            return self._inner.send(value)
        except GeneratorExit as error:
            # Not the end of this coroutine, which comes by `close`; thrown into others, it would end those.
            raise RuntimeError("a task of a handler raised GeneratorExit") from error
        except (SystemExit, KeyboardInterrupt) as error:
            if not raised_by_author(error, None):
                raise
            raise _as_error(error) from error

    def throw(self, *error: Any) -> Any:
        """See `Coroutine.throw`."""
        if self._holder.abandoned:
            _let_go(self._inner)
            raise error[0]
        try:
            return self._inner.throw(*error)
        except (SystemExit, KeyboardInterrupt) as exit_:
            if not raised_by_author(exit_, None):
                raise
            raise _as_error(exit_) from exit_

    def close(self) -> None:
        """See `Coroutine.close`."""
        self._inner.close()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._inner.__await__()


def _as_error(error: SystemExit | KeyboardInterrupt) -> RuntimeError:
    if isinstance(error, SystemExit):
        return RuntimeError(f"a task of a handler called sys.exit({error.code!r})")
    return RuntimeError("a task of a handler raised KeyboardInterrupt")
