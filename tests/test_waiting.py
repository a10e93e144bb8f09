"""Waiting in tests: `tests.waiting`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.waiting import wait_until


async def test_a_true_predicate_is_not_waited_for() -> None:
    """What holds already returns at once, without giving the loop away."""
    await wait_until(lambda: True, timeout_s=0)


async def test_predicates_may_be_async() -> None:
    """An async predicate is awaited, and what another task does meanwhile is seen."""
    done = asyncio.Event()

    async def is_done() -> bool:
        return done.is_set()

    async with asyncio.TaskGroup() as group:
        group.create_task(wait_until(is_done, description="the event"))
        done.set()


async def test_a_failure_says_what_was_waited_for_and_the_last_answer() -> None:
    """The message has the description, or else the predicate's source, or else its name."""
    with pytest.raises(AssertionError, match=r"Not within 0\.02 s: two records .*answer was \[\]"):
        await wait_until(list, timeout_s=0.02, description="two records")
    never = False
    with pytest.raises(AssertionError, match="lambda: never"):
        await wait_until(lambda: never, timeout_s=0)
    with pytest.raises(AssertionError, match="class 'list'"):
        await wait_until(list, timeout_s=0)


async def test_the_fixture_is_the_function(wait_until: Callable[..., Awaitable[None]]) -> None:
    """Both ways to get at it wait alike."""
    await wait_until(lambda: True, description="the fixture")
