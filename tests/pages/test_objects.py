"""`docs/objects.md`."""

from __future__ import annotations

import asyncio
from types import ModuleType

import pytest

from perdure import InvocationFilter, TerminalError
from perdure.journal.inspection import InvocationView
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


@both_ways
async def test_a_basket(running: Running, page: ModuleType) -> None:
    """Lines at the same time are all kept; an empty basket cannot be checked out, and is when it was."""
    async with running() as client:
        lines = [page.Line(item=item) for item in ("tea", "cake", "salt")]
        await asyncio.gather(*(client.call(page.add, line, key="ada", timeout=PATIENCE) for line in lines))
        assert sorted(await client.call(page.items, key="ada", timeout=PATIENCE)) == ["cake", "salt", "tea"]
        assert await client.call(page.check_out, key="ada", timeout=PATIENCE) == "3 paid"
        with pytest.raises(TerminalError, match="is empty"):
            await client.call(page.check_out, key="ada", timeout=PATIENCE)
        assert await client.read_state("Basket", "ada") == {}


async def test_a_shared_handler_that_writes(running: Running, page: ModuleType) -> None:
    """The message names the call, and what to do instead."""
    async with running(disable_retries=True) as client:
        with pytest.raises(TerminalError, match=r"ctx.set\('lines'\) was called by a shared handler"):
            await client.call(page.steal, key="ada", timeout=PATIENCE)


async def test_state_from_outside(running: Running, page: ModuleType) -> None:
    """It is written, and handlers read it."""
    async with running() as client:
        assert await page.give(client, "ada") == {"lines": [{"item": "a voucher"}]}
        assert await client.call(page.items, key="ada", timeout=PATIENCE) == ["a voucher"]


@both_ways
async def test_an_object_that_calls_itself_waits(running: Running, page: ModuleType) -> None:
    """For ever, until it is cancelled; then the object is free again."""
    async with running() as client:
        handle = await client.send(page.wait_for_myself, key="ada")

        async def waiting() -> list[InvocationView]:
            pending = InvocationFilter(key="ada", statuses=("pending",))
            return list((await client.list_invocations(pending)).invocations)

        await wait_until(waiting)
        (stuck,) = await waiting()
        assert stuck.handler == "add"
        await handle.cancel()
        with pytest.raises(TerminalError, match="cancelled"):
            await handle.result(timeout=PATIENCE)
        # What it had called may get its turn before the cancellation comes to it.
        assert await client.call(page.add, page.Line(item="tea"), key="ada", timeout=PATIENCE) in (1, 2)
