"""Many deadlines on one timer: `perdure.worker.deadlines`."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from perdure.worker.deadlines import GRAIN_S, Deadlines
from tests.waiting import wait_until


async def test_each_deadline_is_called_once_in_order_and_never_early() -> None:
    """Also where a later one was there first; those of one span fall due together, in whatever order."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    began_s = loop.time()
    called: list[tuple[float, float]] = []

    def call(seconds: float) -> None:
        called.append((seconds, loop.time() - began_s))

    spans = {
        seconds: deadlines.call_in(seconds, partial(call, seconds))._slot
        for seconds in (3 * GRAIN_S, GRAIN_S / 2, 60.0, 0.0, GRAIN_S)
    }
    await wait_until(lambda: len(called) == 4)
    assert [spans[seconds] for seconds, _ in called] == sorted(spans[seconds] for seconds, _ in called)
    assert all(after_s >= seconds for seconds, after_s in called)
    deadlines.close()


async def test_a_cancelled_deadline_is_not_called() -> None:
    """Not even by another one of the same moment; and cancelling again changes nothing."""
    deadlines = Deadlines()
    called: list[str] = []

    def cancel_second() -> None:
        called.append("first")
        second.cancel()

    first = deadlines.call_in(0.0, cancel_second)
    second = deadlines.call_in(0.0, lambda: called.append("second"))
    third = deadlines.call_in(0.0, lambda: called.append("third"))
    third.cancel()
    deadlines.call_in(3 * GRAIN_S, lambda: called.append("last"))
    await wait_until(lambda: "last" in called)
    assert called == ["first", "last"]
    for deadline in (first, second, third):
        deadline.cancel()


async def test_a_callback_may_set_the_next_deadline() -> None:
    """One that begins while others are called is not forgotten."""
    deadlines = Deadlines()
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        if len(called) < 3:
            deadlines.call_in(0.0, again)

    deadlines.call_in(0.0, again)
    await wait_until(lambda: called == [0, 1, 2])


async def test_nothing_is_called_after_closing() -> None:
    """And what is set afterwards is."""
    deadlines = Deadlines()
    called: list[str] = []
    deadlines.call_in(0.0, lambda: called.append("before"))
    deadlines.close()
    deadlines.call_in(GRAIN_S, lambda: called.append("after"))
    await wait_until(lambda: called)
    assert called == ["after"]


async def test_a_limit_ends_what_takes_too_long() -> None:
    """With a `TimeoutError`, and the task goes on as if it had never been cancelled."""
    deadlines = Deadlines()
    with pytest.raises(TimeoutError), deadlines.within(0.0):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with deadlines.within(60.0):
        await asyncio.sleep(0)
    with deadlines.within(None):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="own"), deadlines.within(60.0):
        raise ValueError("own")


async def test_a_cancellation_of_others_goes_through_a_limit() -> None:
    """Whoever is cancelled learns of that, and of no timeout."""
    deadlines = Deadlines()

    async def wait() -> None:
        with deadlines.within(60.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_of_two_limits_the_first_one_ends_the_wait() -> None:
    """The outer one goes on with what is after it."""
    deadlines = Deadlines()
    with deadlines.within(60.0):
        with pytest.raises(TimeoutError), deadlines.within(0.0):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
