"""`docs/waiting.md`."""

from __future__ import annotations

from types import ModuleType

import pytest

from perdure import Client, TerminalError
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


@both_ways
async def test_awakeables_and_signals(running: Running, page: ModuleType) -> None:
    """The first completion counts; signals are taken in their order, also those that came early."""
    async with running() as client:
        handle = await client.send(page.ask, "tea?")
        await wait_until(lambda: len(page.mails) == 1)
        assert await client.resolve_awakeable(page.mails[0], "yes")
        assert not await client.resolve_awakeable(page.mails[0], "no")
        assert await handle.result(timeout=PATIENCE) == "yes"
        talk = await client.send(page.chat)
        await wait_until(lambda: _is_there(client, talk.invocation_id))
        for text in ("hello", "hello", "bye"):
            assert await client.send_signal(talk.invocation_id, "said", text)
        assert not await client.send_signal(handle.invocation_id, "said", "too late")
        assert await talk.result(timeout=PATIENCE) == ["hello", "hello", "bye"]


async def _is_there(client: Client, invocation_id: str) -> bool:
    found = await client.list_invocations()
    return invocation_id in {view.id for view in found.invocations}


@both_ways
async def test_several_at_once(running: Running, page: ModuleType) -> None:
    """Every combinator of the page."""
    async with running() as client:
        assert await client.call(page.race, timeout=PATIENCE) == {
            "select": ["fast", "fast"],
            "wait_completed": [1, 1],
            "as_completed": ["fast", None],
            "gather": ["fast", None],
            "gather_results": ["fast", "again"],
            "first_success": "fast",
        }


@both_ways
async def test_asyncio(running: Running, page: ModuleType) -> None:
    """Groups and timeouts replay; threads are refused."""
    async with running(disable_retries=True) as client:
        assert await client.call(page.plainly, timeout=PATIENCE) == ["a1a2", "b1b2"]
        with pytest.raises(TerminalError, match="to_thread was called by a handler"):
            await client.call(page.threaded, timeout=PATIENCE)
