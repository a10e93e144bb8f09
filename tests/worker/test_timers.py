"""Looking at deadlines: `perdure.worker.timers`."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import ALWAYS_MS, Admission, Due, ResumeDue, Swept
from perdure.schemas.entries import Input
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId, new_invocation_id, slot_of
from perdure.worker.clock import Clock, SystemClock, system_random
from perdure.worker.placement import slots_of
from perdure.worker.timers import EARLY_MS, IDLE_SWEEP_MS, Timers
from tests.waiting import wait_until

SLOTS = 8


class StoreClock:
    """The store's time, which a test may set."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        # Of the same kind as the worker's, or a step of the machine's wall clock would move one and not the other.
        return 1_700_000_000_000 + int(SystemClock().monotonic_ms()) + self.ahead_ms


class HandClock(SystemClock):
    """A worker's clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at_ms = 0.0

    def monotonic_ms(self) -> float:
        """See `Clock.monotonic_ms`."""
        return self.at_ms


class Watched:
    """A store in memory that counts who looks where."""

    def __init__(self) -> None:
        self.clock = StoreClock()
        self.kept = MemoryStore(self.clock, slots=SLOTS)
        self.swept: list[int] = []
        self.permissions: list[int] = []
        self.refused: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kept, name)

    def sweep(self, slot: int, *, leases_until_ms: int = ALWAYS_MS) -> asyncio.Future[Swept]:
        """See `Store.sweep`."""
        self.swept.append(slot)
        self.permissions.append(leases_until_ms)
        if slot in self.refused:
            future: asyncio.Future[Swept] = asyncio.get_running_loop().create_future()
            future.set_exception(StoreError("WRONGTYPE"))
            return future
        return self.kept.sweep(slot, leases_until_ms=leases_until_ms)


class Scene:
    """Timers, and what they found."""

    def __init__(self, lease_ms: int, clock: Clock) -> None:
        self.store = Watched()
        self.due: list[Due] = []
        self.timers = Timers(self.store, clock=clock, worker="me", lease_ms=lease_ms, on_due=self.found)

    def found(self, due: Sequence[Due]) -> None:
        """Write it down."""
        self.due += due

    def expiring(self, *, in_ms: int, worker: str = "gone") -> InvocationId:
        """Admit an invocation whose lease ends by itself."""
        return self._admit(worker, lease_ms=in_ms, not_before_ms=0)

    def starting(self, *, in_ms: int) -> InvocationId:
        """Admit an invocation that starts by itself."""
        return self._admit("", lease_ms=0, not_before_ms=self.store.clock.now_ms() + in_ms)

    def _admit(self, worker: str, *, lease_ms: int, not_before_ms: int) -> InvocationId:
        invocation_id = new_invocation_id("S", None, system_random())
        first = Input(0, worker, (), b"")
        admission = Admission(invocation_id, "S", "h", None, first, "t", worker, not_before_ms=not_before_ms)
        self.store.kept.admit(admission, lease_ms=lease_ms)
        return invocation_id


@asynccontextmanager
async def at_work(*, lease_ms: int = 3, clock: Clock | None = None) -> AsyncIterator[Scene]:
    """Timers that run; soon after they began they may end leases."""
    scene = Scene(lease_ms, clock or SystemClock())
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
        later, sooner = scene.starting(in_ms=60), scene.starting(in_ms=10)
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


async def test_a_worker_that_just_began_ends_no_leases() -> None:
    """It may have begun right after an outage; what was ended on purpose goes on at once, and so does all else."""
    async with at_work(lease_ms=3_600_000) as scene:
        scene.expiring(in_ms=0)
        started = scene.starting(in_ms=1)
        await wait_until(lambda: len(scene.due) == 1)
        reported = scene.expiring(in_ms=3_600_000, worker="dead")
        scene.store.kept.expire("dead")
        await wait_until(lambda: len(scene.due) == 2)
    assert scene.due == [ResumeDue(started, 0, "S"), ResumeDue(reported, 1, "S")]
    assert set(scene.store.permissions) == {0}


async def test_a_worker_that_was_silent_ends_no_leases() -> None:
    """After an hour without an answer its first looks are without permission, and later ones have it again."""
    async with at_work() as scene:
        await wait_until(lambda: any(scene.store.permissions))
        scene.store.clock.ahead_ms = 3_600_000
        held = {scene.expiring(in_ms=-1) for _ in range(20)}
        asked = len(scene.store.permissions)
        await wait_until(lambda: len(scene.due) == 20)
    assert {due.invocation_id for due in scene.due} == held
    # The first look had a permission that had lapsed, which is as good as none.
    assert 0 in scene.store.permissions[asked : asked + 2 * SLOTS]


async def test_a_worker_that_only_stands_in_looks_as_often_as_others() -> None:
    """Without slots of its own it would lose contact between two looks."""
    hand = HandClock()
    workers = next(
        rivals
        for number in itertools.count()
        if not slots_of("me", workers=(rivals := [f"{number}-{n}" for n in range(8)]), slots=SLOTS)
        and slots_of("me", workers=rivals, slots=SLOTS, rank=1)
    )
    stands_in = slots_of("me", workers=workers, slots=SLOTS, rank=1)
    async with at_work(clock=hand) as scene:
        scene.timers.share_with(workers)
        await wait_until(lambda: stands_in <= set(scene.store.swept))
        scene.store.swept.clear()
        scene.timers.expect(scene.expiring(in_ms=3_600_000), in_ms=IDLE_SWEEP_MS - EARLY_MS)
        hand.at_ms = IDLE_SWEEP_MS
        await wait_until(lambda: stands_in <= set(scene.store.swept))
