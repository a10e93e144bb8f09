"""Waiting for several durable futures: who was first is what the journal says, in every replay.

`gather`, `select`, `as_completed` and `wait_completed` are as in Restate's Python SDK. Beyond it: `gather_results` ends
with the first failure, `first_success` takes the first that succeeds, `with_timeout` bounds any future.

A cancellation of the invocation is raised by whoever waits, and is not taken for the failure of a future.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypeVar

from perdure.schemas.errors import TerminalError

from .futures import DurableFuture

T = TypeVar("T")


async def gather(*futures: DurableFuture[Any]) -> list[DurableFuture[Any]]:
    """Wait until all are done, however they end; returns them, to be awaited for their results.

    Raises:
        TerminalError: One of them is not a durable future.
    """
    for future in _checked(futures):
        await _done(future)
    return list(futures)


async def gather_results(*futures: DurableFuture[T]) -> list[T]:
    """Wait for all results, in the order given; the first failure is raised at once. The others go on.

    Raises:
        TerminalError: One of them failed, or is not a durable future.
    """
    waiting = set(_checked(futures))
    while waiting:
        done, waiting = await _first(waiting)
        for future in done:
            future.live.result()
    return [future.live.result() for future in futures]


async def select(**futures: DurableFuture[Any]) -> list[Any]:
    """Wait for the first that is done: `[name, value]`. Where it failed, its error is raised.

    Raises:
        ValueError: There is none to wait for.
        TerminalError: The first one failed, or one is not a durable future.
    """
    if not futures:
        raise ValueError("select needs at least one future: select(answer=..., timeout=...).")
    names = {future: name for name, future in futures.items()}
    done, _ = await _first(set(_checked(tuple(futures.values()))))
    return [names[done[0]], done[0].live.result()]


async def as_completed(*futures: DurableFuture[Any]) -> AsyncIterator[DurableFuture[Any]]:
    """Yield the futures in the order in which they are done.

    Raises:
        TerminalError: One of them is not a durable future.
    """
    waiting = set(_checked(futures))
    while waiting:
        done, waiting = await _first(waiting)
        for future in done:
            yield future


async def wait_completed(
    *futures: DurableFuture[Any],
) -> tuple[list[DurableFuture[Any]], list[DurableFuture[Any]]]:
    """Wait until at least one is done: those that are, and those that are not, both in the order given.

    Raises:
        TerminalError: One of them is not a durable future.
    """
    if not futures:
        return [], []
    await _first(set(_checked(futures)))
    completed = [future for future in futures if future.live.done()]
    return completed, [future for future in futures if future not in completed]


async def first_success(*futures: DurableFuture[T]) -> T:
    """The result of the first that succeeds; where all fail, the error of the last one to fail.

    Raises:
        ValueError: There is none to wait for.
        TerminalError: All of them failed, or one is not a durable future.
    """
    if not futures:
        raise ValueError("first_success needs at least one future.")
    waiting = set(_checked(futures))
    failure: BaseException | None = None
    while waiting:
        done, waiting = await _first(waiting)
        for future in done:
            live: DurableFuture[T] = future.live
            failure = live.exception()
            if failure is None:
                return live.result()
    assert failure is not None, "every one of them failed"
    raise failure


async def with_timeout(future: DurableFuture[T], within: timedelta) -> T:
    """The future's result, if it comes `within` that durable time; the future goes on otherwise.

    Raises:
        TimeoutError: It did not.
        TerminalError: The future failed, or is not a durable future.
    """
    (checked,) = _checked((future,))
    timer = checked.timer(within)
    done, _ = await _first({checked, timer})
    if done[0] is timer:
        raise TimeoutError(f"{future.name or 'the future'} was not done within {within}")
    result: T = checked.live.result()
    return result


def _checked(futures: tuple[DurableFuture[Any], ...]) -> tuple[DurableFuture[Any], ...]:
    for future in futures:
        if not isinstance(future, DurableFuture):
            raise TerminalError(
                f"{type(future).__name__} is not a durable future: wait for what ctx returns, such as ctx.run(...), "
                "ctx.sleep(...) or promise.value()."
            )
    return futures


async def _done(future: DurableFuture[Any]) -> None:
    live = future.live
    if not live.done():
        # Not `await live`: its failure is its own affair, a cancellation of the invocation is not.
        await asyncio.wait([live])
        live.raise_interruption()


async def _first(waiting: set[DurableFuture[Any]]) -> tuple[list[DurableFuture[Any]], set[DurableFuture[Any]]]:
    """Those that are done, in the order in which they were completed, and the rest; waits until there is one."""
    if not any(future.live.done() for future in waiting):
        lives = [future.live for future in waiting]
        await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
        for live in lives:
            live.raise_interruption()
    done = sorted((future for future in waiting if future.live.done()), key=lambda future: future.live.completed_as)
    return done, waiting.difference(done)
