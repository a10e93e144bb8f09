"""`examples/fan_out.py`: parts made by other invocations."""

from __future__ import annotations

import pytest

from examples.fan_out import application, assemble
from perdure import InvocationFilter, TerminalError
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


@both_ways
async def test_all_parts_are_joined(running: Running) -> None:
    """In the order of the order, each made by an invocation of its own."""
    async with running(application) as client:
        boxes = await client.call(assemble, ["wheel", "frame", "saddle"], timeout=PATIENCE)
        made = await client.list_invocations(InvocationFilter(service="Workshop"))
    assert boxes == ["wheel in a box", "frame in a box", "saddle in a box"]
    assert len(made.invocations) == 3


@both_ways
async def test_one_that_cannot_be_made_ends_it(running: Running) -> None:
    """The caller hears why, and what was not made yet is cancelled."""
    async with running(application) as client:
        with pytest.raises(TerminalError, match="make nothing"):
            await client.call(assemble, ["", "frame"], timeout=PATIENCE)

        async def all_ended() -> bool:
            made = await client.list_invocations(InvocationFilter(service="Workshop"))
            return {view.status for view in made.invocations} == {"completed"}

        await wait_until(all_ended)
