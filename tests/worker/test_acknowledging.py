"""What was sent and has arrived: `perdure.worker.acknowledging`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from perdure.schemas.ids import InvocationId
from perdure.worker.acknowledging import Acknowledging

ONE, OTHER = InvocationId("inv-one"), InvocationId("inv-other")


class Store:
    """The part of a store that is told."""

    def __init__(self) -> None:
        self.told: list[tuple[InvocationId, list[int], int | None]] = []

    async def acknowledge(self, invocation_id: InvocationId, *, sent: Sequence[int], as_of: int | None) -> None:
        """See `Store.acknowledge`."""
        self.told.append((invocation_id, list(sent), as_of))


async def test_what_arrived_in_one_turn_of_the_loop_is_told_together() -> None:
    """For each journal, and for each connection that it was told over; what comes later goes by itself."""
    store: Any = Store()
    async with asyncio.TaskGroup() as tasks:

        def spawn(work: Awaitable[object]) -> None:
            tasks.create_task(work)  # type: ignore[arg-type] # a coroutine here

        acknowledging = Acknowledging(store, spawn=spawn)
        for position in (2, 3):
            acknowledging.put(ONE, position, as_of=7)
        acknowledging.put(OTHER, 2, as_of=7)
        acknowledging.put(ONE, 4, as_of=None)
        await asyncio.sleep(0)
        acknowledging.put(ONE, 5, as_of=7)
    assert store.told == [(ONE, [2, 3], 7), (OTHER, [2], 7), (ONE, [4], None), (ONE, [5], 7)]
