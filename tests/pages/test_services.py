"""`docs/services.md`."""

from __future__ import annotations

from types import ModuleType

import pytest

from perdure import TerminalError
from tests.waiting import PATIENCE

from .conftest import Running, both_ways


@both_ways
async def test_steps(running: Running, page: ModuleType) -> None:
    """Each has a key of its own, and what is not recorded is the same in every replay."""
    async with running() as client:
        handle = await client.send(page.place, "tea")
        said = await handle.result(timeout=PATIENCE)
        assert said.startswith(f"tea: paid once as {handle.invocation_id}:0, parcel ")
        assert await client.call(page.compare, "tea", timeout=PATIENCE) == len("here") + len("tea")


@both_ways
async def test_failures(running: Running, page: ModuleType) -> None:
    """Two failures are retried; the third one ends the step and not the handler."""
    async with running() as client:
        assert await client.call(page.forecast, 2, timeout=PATIENCE) == "sunny"
        assert page.asked == 3
        vars(page)["asked"] = 0
        assert await client.call(page.forecast, 9, timeout=PATIENCE) == "it is dark outside"
        assert page.asked == 3


async def test_an_argument_of_another_type(running: Running) -> None:
    """It is refused for good."""
    async with running() as client:
        with pytest.raises(TerminalError) as refused:
            await client.call("Shop/forecast", "soon", timeout=PATIENCE)
    assert refused.value.status_code == 400
