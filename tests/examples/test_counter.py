"""`examples/counter.py`: an object for each key, with a value that stays."""

from __future__ import annotations

import asyncio

import pytest

from examples.counter import add, application, reset, value
from perdure import TerminalError
from tests.waiting import PATIENCE

from .conftest import Running, both_ways


@both_ways
async def test_no_addition_is_lost(running: Running) -> None:
    """Additions at the same time come one after the other, and other keys have counters of their own."""
    async with running(application) as client:
        sums = await asyncio.gather(*(client.call(add, 1, key="ada", timeout=PATIENCE) for _ in range(5)))
        assert sorted(sums) == [1, 2, 3, 4, 5]
        assert await client.call(value, key="ada", timeout=PATIENCE) == 5
        assert await client.call(value, key="ben", timeout=PATIENCE) == 0


@both_ways
async def test_it_does_not_go_below_zero(running: Running) -> None:
    """What is refused changes nothing; a reset forgets it all."""
    async with running(application) as client:
        await client.call(add, 3, key="ada", timeout=PATIENCE)
        with pytest.raises(TerminalError, match="below zero"):
            await client.call(add, -4, key="ada", timeout=PATIENCE)
        assert await client.read_state("Counter", "ada") == {"value": 3}
        await client.call(reset, key="ada", timeout=PATIENCE)
        assert await client.read_state("Counter", "ada") == {}
