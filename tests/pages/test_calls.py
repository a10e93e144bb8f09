"""`docs/calls.md`."""

from __future__ import annotations

import asyncio
from types import ModuleType

import pytest

from perdure import InvocationFilter, TerminalError
from perdure.testing import HarnessFactory
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


@both_ways
async def test_calls_and_sends(running: Running, page: ModuleType) -> None:
    """Results and failures come back, and what was sent runs."""
    async with running() as client:
        assert await client.call(page.buy, "tea", timeout=PATIENCE) == 9
        assert await client.call(page.buy_all, ["tea", "cake"], timeout=PATIENCE) == [8, 9]
        refused = await client.call(page.buy_or_give_up, "cake", timeout=PATIENCE)
        assert refused == "No cake left. (409, 90 missing)"

        async def thanked() -> bool:
            found = await client.list_invocations(InvocationFilter(service="Mail", statuses=("completed",)))
            return len(found.invocations) == 1

        await wait_until(thanked)


async def test_from_python(running: Running, page: ModuleType) -> None:
    """What the client of the page is told."""
    async with running() as client:
        assert await page.order(client) == (9, "thank you, ben")
        with pytest.raises(TerminalError, match="No tea left"):
            await client.call("Stock/reserve", 99, key="tea", timeout=PATIENCE)


async def test_from_a_script(perdure_harness: HarnessFactory, page: ModuleType) -> None:
    """In a thread without a loop."""
    async with perdure_harness(page.application) as env:
        assert await asyncio.to_thread(page.order_from_a_script, env.settings) == 9
