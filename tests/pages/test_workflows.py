"""`docs/workflows.md`."""

from __future__ import annotations

from types import ModuleType

import pytest

from perdure import TerminalError
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


@both_ways
async def test_a_loan_is_decided_once(running: Running, page: ModuleType) -> None:
    """The run of a key is one; the first decision stands, and what came of it can be read afterwards."""
    async with running() as client:
        assert await client.call(page.status, key="ada", timeout=PATIENCE) == "not asked for"
        assert await page.apply_twice(client) == ("granted", "granted")
        assert await client.call(page.status, key="ada", timeout=PATIENCE) == "granted"
        with pytest.raises(TerminalError) as late:
            await client.call(page.decide, False, key="ada", timeout=PATIENCE)
    assert late.value.status_code == 409


async def test_a_client_decides(running: Running, page: ModuleType) -> None:
    """Even before there is a run."""
    async with running() as client:
        await client.resolve_promise("Loan", "ben", "decision", False)
        assert await client.peek_promise("Loan", "ben", "decision") is False
        assert await client.call(page.run, 10, key="ben", timeout=PATIENCE) == "declined"
        again = await client.send(page.run, 10, key="ben")
        assert again.already_accepted


async def test_it_can_be_watched(running: Running, page: ModuleType) -> None:
    """Shared handlers answer while the run waits."""
    async with running() as client:
        await client.send(page.run, 10, key="cleo")

        async def waits() -> bool:
            said = await client.call(page.status, key="cleo", timeout=PATIENCE)
            return bool(said == "waits for somebody to decide")

        await wait_until(waits)
