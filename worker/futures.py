"""The future of one durable command: what `ctx.run` and `ctx.sleep` return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import PerdureError, TerminalError

from .serde import Serde, decode_value

T = TypeVar("T")


class Awaited(Protocol):
    """An attempt, as its futures see it."""

    def awaiting(self, future: DurableFuture[Any]) -> None:
        """The handler is about to wait for this future; it may be completed at once, in a replay."""

    def watched(self) -> None:
        """Something waits for one of the futures through a callback, such as `asyncio.wait`."""

    def forsaken(self, future: DurableFuture[Any]) -> DurableFuture[Any] | None:
        """Nobody waits for this future any more: the one that takes its place, where the command is not done yet."""

    def sleep(self, name: str, delta: timedelta) -> DurableFuture[None]:
        """Issue a durable timer."""


class DurableFuture(asyncio.Future[T]):
    """The result of a durable command: await it, any number of times, directly or through asyncio.

    Completed by the attempt only, in the order of the journal.
    """

    __slots__ = ("_attempt", "_next", "command_index", "completed_as", "name")

    # `_next` is there once the wait for it was interrupted: the future of the command's real result. `completed_as` is
    # there once it is done: the how many-eth of its attempt. The others are set by `bind`: an __init__ in Python would
    # double what a future costs.
    _attempt: Awaited
    _next: DurableFuture[T]
    command_index: int
    completed_as: int
    name: str

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            self._attempt.awaiting(self)
            if not self.done():
                # What asyncio.Future does: the task that runs this sees the flag and waits for us.
                self._asyncio_future_blocking = True
                try:
                    yield self
                except asyncio.CancelledError:
                    if self._is_another_ones():
                        return (yield from self._next.__await__())
                    raise
        elif hasattr(self, "_next"):
            return (yield from self._next.__await__())
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

    def cancel(self, msg: Any | None = None) -> bool:
        """Give up waiting. The command goes on, and who awaits this future again waits for its result."""
        if self.done():
            return False
        successor = self._attempt.forsaken(self)
        if successor is not None:
            self._next = successor
        return super().cancel(msg)

    def _is_another_ones(self) -> bool:
        """Whether a cancellation of this future was meant for another task that waited for it, too."""
        task = asyncio.current_task()
        return self.cancelled() and hasattr(self, "_next") and task is not None and not task.cancelling()

    def set_exception(self, exception: type | BaseException, /) -> None:
        """See `asyncio.Future.set_exception`."""
        super().set_exception(exception)
        # It counts as retrieved: the journal holds it, and who leaves before awaiting it sees it in the next attempt.
        self.exception()

    @property
    def live(self) -> DurableFuture[T]:
        """The future of the command's result: another one once a wait for this one was interrupted."""
        return self._next.live if hasattr(self, "_next") else self

    @property
    def watched(self) -> bool:
        """Whether something waits for it."""
        # asyncio's own attribute, and the only way to know.
        return bool(self._callbacks)

    def interrupt(self, error: TerminalError) -> DurableFuture[T]:
        """Raise `error` in whatever waits for it now; returns the future that takes its place."""
        successor = durable_future(self._attempt, self.command_index, self.name, loop=self.get_loop())
        self._next = successor
        self.set_exception(error)
        # One of those who wait raises it; asyncio would complain of each one that nobody asks for its exception.
        self._log_traceback = False
        return successor

    def raise_interruption(self) -> None:
        """Raise what interrupted the wait for it, if something has.

        Raises:
            TerminalError: The invocation was cancelled while this was waited for.
        """
        if hasattr(self, "_next") and not self.cancelled():
            self.result()

    def is_beside(self, other: DurableFuture[Any]) -> bool:
        """Whether both are of the same attempt."""
        return self._attempt is other._attempt

    def timer(self, timeout: timedelta) -> DurableFuture[None]:
        """A durable timer of the same attempt."""
        return self._attempt.sleep("timeout", timeout)


class DurableCallFuture(DurableFuture[T]):
    """The outcome of a call; knows whom it waits for."""

    __slots__ = ("_cancel_callee", "_invocation_id")

    _cancel_callee: Callable[[], None]
    _invocation_id: str

    async def invocation_id(self) -> str:
        """The callee's id."""
        return self._invocation_id

    async def cancel_invocation(self) -> None:
        """Ask the callee to end; see `Context.cancel_invocation`."""
        self._cancel_callee()


def durable_future(
    attempt: Awaited, command_index: int, name: str, *, loop: asyncio.AbstractEventLoop
) -> DurableFuture[Any]:
    """Make the future of a command."""
    return bind(DurableFuture(loop=loop), attempt, command_index, name)


def bind(future: DurableFuture[Any], attempt: Awaited, command_index: int, name: str) -> DurableFuture[Any]:
    """Make a future that of a command."""
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
