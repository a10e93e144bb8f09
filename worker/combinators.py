"""Waiting for several durable futures: who was first is what the journal says, in every replay.

`gather`, `select`, `as_completed` and `wait_completed` are as in Restate's Python SDK. Beyond it: `gather_results` ends
with the first failure, `first_success` takes the first that succeeds, `with_timeout` bounds any future. Each takes
what `ctx` returns: futures, and promises of a workflow, of which it waits for the value.

A cancellation of the invocation is raised by whoever waits, and is not taken for the failure of a future.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from perdure.schemas.errors import TerminalError

from .futures import DurableFuture
from .object_context import DurablePromise

T = TypeVar("T")

Waitable = DurableFuture[T] | DurablePromise[T]


async def gather(*futures: Waitable[Any]) -> list[Waitable[Any]]:
    """Wait until all are done, however they end; returns them, to be awaited for their results.

    Raises:
        TerminalError: One of them is not a durable future of this invocation.
    """
    for future in _durable(futures):
        while not (live := future.live).done():
            # Not `await live`: its failure is its own affair, a cancellation of the invocation is not.
            await asyncio.wait([live])
            live.raise_interruption()
    return list(futures)


async def gather_results(*futures: Waitable[T]) -> list[T]:
    """Wait for all results, in the order given; the first failure is raised at once. The others go on.

    Raises:
        TerminalError: One of them failed, or is not a durable future of this invocation.
    """
    durable = _durable(futures)
    waiting = set(durable)
    while waiting:
        done = await _first(waiting)
        waiting.difference_update(done)
        for future in done:
            future.live.result()
    return [future.live.result() for future in durable]


async def select(**futures: Waitable[Any]) -> list[Any]:
    """Wait for the first that is done: `[name, value]`. Where it failed, its error is raised.

    Raises:
        ValueError: There is none to wait for.
        TerminalError: The first one failed, or one is not a durable future of this invocation.
    """
    if not futures:
        raise ValueError("select needs at least one future: select(answer=..., timeout=...).")
    durable = _durable(tuple(futures.values()))
    first = (await _first(set(durable)))[0]
    return [list(futures)[durable.index(first)], first.live.result()]


def as_completed(*futures: Waitable[Any]) -> AsyncIterator[Waitable[Any]]:
    """Iterate, with `async for`, over the futures in the order in which they are done.

    Raises:
        TerminalError: One of them is not a durable future of this invocation.
    """
    return _Completions(futures)


class _Completions(AsyncIterator[Waitable[Any]]):
    # No generator: one that is left early would be closed whenever it is collected.

    def __init__(self, futures: tuple[Waitable[Any], ...]) -> None:
        self._given = dict(zip(_durable(futures), futures, strict=True))

    async def __anext__(self) -> Waitable[Any]:
        if not self._given:
            raise StopAsyncIteration
        return self._given.pop((await _first(set(self._given)))[0])


async def wait_completed(*futures: Waitable[Any]) -> tuple[list[Waitable[Any]], list[Waitable[Any]]]:
    """Wait until at least one is done: those that are, and those that are not, both in the order given.

    Raises:
        TerminalError: One of them is not a durable future of this invocation.
    """
    if not futures:
        return [], []
    durable = _durable(futures)
    await _first(set(durable))
    done = [future.live.done() for future in durable]
    pairs = list(zip(futures, done, strict=True))
    return [future for future, is_done in pairs if is_done], [future for future, is_done in pairs if not is_done]


async def first_success(*futures: Waitable[T]) -> T:
    """The result of the first that succeeds; where all fail, the error of the last one to fail.

    Raises:
        ValueError: There is none to wait for.
        TerminalError: All of them failed, or one is not a durable future of this invocation.
    """
    if not futures:
        raise ValueError("first_success needs at least one future.")
    waiting = set(_durable(futures))
    failure: BaseException | None = None
    while waiting:
        done = await _first(waiting)
        waiting.difference_update(done)
        for future in done:
            live: DurableFuture[T] = future.live
            failure = live.exception()
            if failure is None:
                return live.result()
    assert failure is not None, "every one of them failed"
    raise failure


async def with_timeout(future: Waitable[T], within: timedelta) -> T:
    """The future's result, if it comes `within` that durable time; the future goes on otherwise.

    Raises:
        TimeoutError: It did not.
        TerminalError: The future failed, or is not a durable future of this invocation.
    """
    (durable,) = _durable((future,))
    timer = durable.timer(within)
    if (await _first({durable, timer}))[0] is timer:
        raise TimeoutError(f"{durable.name or 'the future'} was not done within {within}")
    result: T = durable.live.result()
    return result


def _durable(futures: tuple[Waitable[Any], ...]) -> Sequence[DurableFuture[Any]]:
    durable: list[DurableFuture[Any]] = []
    for future in futures:
        value = future.value() if isinstance(future, DurablePromise) else future
        if not isinstance(value, DurableFuture):
            raise TerminalError(
                f"{type(future).__name__} is not a durable future: wait for what ctx returns, such as ctx.run(...), "
                "ctx.sleep(...) or ctx.promise(...). Tasks and other awaitables can be waited for with asyncio.gather "
                "and asyncio.wait."
            )
        if durable and not value.is_beside(durable[0]):
            raise TerminalError(
                f"{value.name or 'One of the futures'} belongs to another invocation: a handler waits for what its own "
                "ctx returns."
            )
        durable.append(value)
    return durable


async def _first(waiting: set[DurableFuture[Any]]) -> list[DurableFuture[Any]]:
    """Those that are done, in the order in which they were completed; waits until there is one."""
    # More than once where another task that waits for one of them gives up.
    while not any(future.live.done() for future in waiting):
        lives = [future.live for future in waiting]
        await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
        for live in lives:
            live.raise_interruption()
    return sorted((future for future in waiting if future.live.done()), key=lambda future: future.live.completed_as)
