"""The future of one durable command: what `ctx.run` and `ctx.sleep` return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Protocol, TypeVar

from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import PerdureError

from .serde import Serde, decode_value

T = TypeVar("T")


class Awaited(Protocol):
    """An attempt, as its futures see it."""

    def awaiting(self, future: DurableFuture[Any]) -> None:
        """The handler is about to wait for this future; it may be completed at once, in a replay."""

    def watched(self) -> None:
        """Something waits for one of the futures through a callback, such as `asyncio.wait`."""


class DurableFuture(asyncio.Future[T]):
    """The result of a durable command: await it, any number of times, directly or through asyncio.

    Completed by the attempt only, in the order of the journal.
    """

    __slots__ = ("_attempt", "command_index", "name")

    # Set by `durable_future`: an __init__ in Python would double what a future costs.
    _attempt: Awaited
    command_index: int
    name: str

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            self._attempt.awaiting(self)
            if not self.done():
                # What asyncio.Future does: the task that runs this sees the flag and waits for us.
                self._asyncio_future_blocking = True
                yield self
        return self.result()

    __iter__ = __await__

    def __hash__(self) -> int:
        # By address, what asyncio.wait returns as a set would be iterated in another order by each replay.
        return self.command_index

    def add_done_callback(self, callback: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        """See `asyncio.Future.add_done_callback`."""
        # Not through super(), which costs as much as the call.
        asyncio.Future.add_done_callback(self, callback, context=context)
        if not self.done():
            self._attempt.watched()


def durable_future(
    attempt: Awaited, command_index: int, name: str, *, loop: asyncio.AbstractEventLoop
) -> DurableFuture[Any]:
    """Make the future of a command."""
    future: DurableFuture[Any] = DurableFuture(loop=loop)
    future._attempt = attempt
    future.command_index = command_index
    future.name = name
    return future


def complete(future: DurableFuture[Any], outcome: Outcome, serde: Serde[Any]) -> None:
    """Give a future, which is not done yet, what the journal holds: the value, or the error."""
    match outcome:
        case Failure() as failure:
            future.set_exception(failure.to_error())
        case Success(raw):
            try:
                future.set_result(decode_value(serde, raw, what=f"The recorded result of step {future.name!r}"))
            except PerdureError as error:
                future.set_exception(error)
