"""`docs/cancellation.md`."""

from __future__ import annotations

from types import ModuleType

from .conftest import Running, both_ways


@both_ways
async def test_a_change_of_mind(running: Running, page: ModuleType) -> None:
    """The flight is cancelled, once, and the caller is told that the trip was."""
    async with running() as client:
        assert await page.change_of_mind(client) == "cancelled (409)"
    assert page.done == ["flight to Oslo", "no flight to Oslo"]
