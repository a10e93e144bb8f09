"""Looking at deadlines: `perdure.worker.timers`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission, Due, ResumeDue, Swept
from perdure.schemas.entries import Input
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId, new_invocation_id, slot_of
from perdure.worker.clock import SystemClock, system_random
from perdure.worker.timers import Timers
from tests.waiting import wait_until

SLOTS = 8


class Watched:
    """A store in memory that counts who looks where."""

    def __init__(self) -> None:
        self.memory = MemoryStore(SystemClock(), slots=SLOTS)
        self.swept: list[int] = []
        self.refused: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def sweep(self, slot: int) -> asyncio.Future[Swept]:
        """See `Store.sweep`."""
        self.swept.append(slot)
        if slot in self.refused:
            future: asyncio.Future[Swept] = asyncio.get_running_loop().create_future()
            future.set_exception(StoreError("WRONGTYPE"))
            return future
        return self.memory.sweep(slot)


class Scene:
    """Timers, and what they found."""

    def __init__(self) -> None:
        self.store = Watched()
        self.due: list[Due] = []
        self.timers = Timers(self.store, clock=SystemClock(), worker="me", on_due=self.found)

    def found(self, due: Sequence[Due]) -> None:
        """Write it down."""
        self.due += due

    def expiring(self, *, in_ms: int) -> InvocationId:
        """Admit an invocation whose lease ends by itself."""
        invocation_id = new_invocation_id("S", None, system_random())
        admission = Admission(invocation_id, "S", "h", None, Input(0, "gone", (), b""), "t", "gone")
        self.store.memory.admit(admission, lease_ms=in_ms)
        return invocation_id


@asynccontextmanager
async def at_work() -> AsyncIterator[Scene]:
    """Timers that run."""
    scene = Scene()
    task = asyncio.create_task(scene.timers.run())
    yield scene
    task.cancel()
    await asyncio.wait([task])


async def test_what_falls_due_is_told() -> None:
    """A deadline in any slot is found, whoever set it."""
    async with at_work() as scene:
        ids = {scene.expiring(in_ms=20) for _ in range(20)}
        await wait_until(lambda: len(scene.due) == 20)
    assert {due.invocation_id for due in scene.due} == ids
    assert all(isinstance(due, ResumeDue) and due.epoch == 1 for due in scene.due)


async def test_idle_slots_are_looked_at_seldom() -> None:
    """Without deadlines each slot costs a few looks a second."""
    async with at_work() as scene:
        await wait_until(lambda: len(scene.store.swept) >= 3 * SLOTS)
        looks = [scene.store.swept.count(slot) for slot in range(SLOTS)]
    assert max(looks) - min(looks) <= 1


async def test_only_a_share_of_the_slots_is_looked_at() -> None:
    """With others alive a worker keeps to its own slots and those in which it stands in."""
    async with at_work() as scene:
        scene.timers.share_with([f"worker-{number}" for number in range(30)] + ["me"])
        scene.store.swept.clear()
        await asyncio.sleep(0)
        scene.store.swept.clear()
        invocation_id = scene.expiring(in_ms=3_600_000)
        scene.timers.expect(invocation_id, in_ms=5)
        slot = slot_of(invocation_id, SLOTS)
        await wait_until(lambda: slot in scene.store.swept)
        assert set(scene.store.swept) != set(range(SLOTS))


async def test_an_expected_deadline_is_looked_at_then() -> None:
    """Whoever's share the slot is, the worker that set a short timer looks at the moment when it falls due."""
    async with at_work() as scene:
        scene.timers.share_with([f"worker-{number}" for number in range(60)])
        later, sooner = scene.expiring(in_ms=60), scene.expiring(in_ms=10)
        scene.timers.expect(later, in_ms=60)
        scene.timers.expect(sooner, in_ms=10)
        await wait_until(lambda: len(scene.due) == 2)
    assert [due.invocation_id for due in scene.due] == [sooner, later]


async def test_a_damaged_slot_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and looked at again at the usual pace."""
    async with at_work() as scene:
        first = scene.expiring(in_ms=10)
        damaged = (slot_of(first, SLOTS) + 1) % SLOTS
        scene.store.refused.add(damaged)
        with caplog.at_level(logging.ERROR):
            await wait_until(lambda: len(scene.due) == 1)
            await wait_until(lambda: scene.store.swept.count(damaged) >= 2)
    assert f"slot {damaged} could not be swept" in caplog.text


async def test_more_than_one_sweep_takes_is_found_at_once() -> None:
    """Hundreds of deadlines of one moment in one slot do not wait for the next regular look."""
    async with at_work() as scene:
        for _ in range(1_500):
            scene.expiring(in_ms=5)
        await wait_until(lambda: len(scene.due) == 1_500)
