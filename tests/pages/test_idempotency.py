"""`docs/idempotency.md`."""

from __future__ import annotations

from types import ModuleType

from .conftest import Running, both_ways


@both_ways
async def test_the_second_gets_the_result_of_the_first(running: Running, page: ModuleType) -> None:
    """Though it has another argument."""
    async with running() as client:
        assert await page.charge_twice(client) == [990, 990]
    assert page.charged == [990]
