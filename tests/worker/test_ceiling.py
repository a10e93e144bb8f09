"""What a worker does when memory runs short: `perdure.worker.ceiling`. The real thing: tests/integration."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.journal.transitions import Memory, Shed, ShedPlace
from perdure.schemas.errors import StoreError
from perdure.worker.ceiling import BLIND_S, LOOK_S, PACE_MAX, PACE_MIN, ROUND_S, Ceiling
from tests.waiting import wait_until
from tests.worker.attempt_stage import SkippingClock


class Server:
    """A server whose memory is as a test says; it has some journals in each of four slots."""

    slots = 4

    def __init__(self) -> None:
        self.share: float | None = 0.0
        self.others: list[float] = []
        self.journals = [1_000] * self.slots
        self.asked: list[tuple[int, int, ShedPlace | None]] = []
        self.silent = False

    async def memory(self) -> list[Memory]:
        """See `Store.memory`."""
        if self.share is None:
            raise StoreError("Redis forbids a command (INFO).")
        shares = [*self.others, *[self.share] * self.slots][: self.slots]
        return [Memory(int(share * 1000), 1000) for share in shares]

    async def shed(self, slot: int, *, journals_max: int, after: ShedPlace | None = None) -> Shed:
        """See `Store.shed`."""
        self.asked.append((slot, journals_max, after))
        if self.silent:
            await asyncio.Event().wait()
        removed = min(journals_max, self.journals[slot])
        self.journals[slot] -= removed
        return Shed(removed, ShedPlace(1_000 - self.journals[slot], 1) if self.journals[slot] else None)


class Pausing(SkippingClock):
    """A clock that tells how long it was asked to sleep, and wakes when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.wake = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self.slept.append(seconds)
        await self.wake.wait()
        self.wake.clear()


class Scene:
    """A ceiling that looks when it is told to."""

    def __init__(self) -> None:
        self.server, self.clock = Server(), Pausing()
        store: Any = self.server
        self.ceiling = Ceiling(store, clock=self.clock, worker="me")

    async def look(self, share: float | None) -> float:
        """Have it look at a memory of which that share is in use; how long it waits until the next look."""
        self.server.share = share
        looks = len(self.clock.slept)
        self.clock.wake.set()
        await wait_until(lambda: len(self.clock.slept) > looks)
        return self.clock.slept[-1]


@asynccontextmanager
async def watching() -> AsyncIterator[Scene]:
    """A ceiling that has looked once."""
    scene = Scene()
    task = asyncio.create_task(scene.ceiling.run())
    await wait_until(lambda: scene.clock.slept)
    yield scene
    task.cancel()
    await asyncio.wait([task])


async def test_new_work_waits_from_ninety_percent_on(caplog: pytest.LogCaptureFixture) -> None:
    """And goes on a little below, so that the two do not take turns; each is said once."""
    async with watching() as scene:
        with caplog.at_level(logging.INFO):
            seen = []
            for share in (0.899, 0.9, 0.95, 0.88, 0.87, 0.869, 0.89):
                await scene.look(share)
                seen.append(scene.ceiling.admits)
        assert seen == [True, False, False, False, False, True, True]
        assert caplog.text.count("new work waits in Kafka: Redis has 90% of its maxmemory") == 1
        assert caplog.text.count("new work is taken again") == 1


async def test_journals_are_removed_from_seventy_five_percent_on() -> None:
    """A few of each slot at first, more while it lasts, up to a bound; where the last round ended the next begins."""
    async with watching() as scene:
        assert await scene.look(0.749) == LOOK_S
        assert scene.server.asked == []
        for _ in range(6):
            assert await scene.look(0.75) == ROUND_S
        paces = [pace for slot, pace, _ in scene.server.asked if slot == 3]
        assert paces == [PACE_MIN, 16, 32, 64, PACE_MAX, PACE_MAX]
        assert [place for slot, _, place in scene.server.asked if slot == 0][:3] == [None, (8, 1), (24, 1)]
        await scene.look(0.5)
        await scene.look(0.8)
        assert scene.server.asked[-4:] == [(slot, PACE_MIN, None) for slot in range(4)]


async def test_where_nothing_is_left_to_remove_it_looks_as_seldom_as_before() -> None:
    """A memory that is full of something else is no reason for haste."""
    async with watching() as scene:
        scene.server.journals = [0] * 4
        assert await scene.look(0.8) == LOOK_S


async def test_every_slot_is_asked_before_the_first_answers() -> None:
    """One round trip; a worker that ends meanwhile leaves no question behind that nobody asks any more."""
    async with watching() as scene:
        scene.server.silent, scene.server.share = True, 0.8
        scene.clock.wake.set()
        await wait_until(lambda: len(scene.server.asked) == scene.server.slots)


async def test_of_a_cluster_only_the_full_nodes_lose_journals() -> None:
    """New work waits for the fullest: which node it would be on, nobody knows before it is read."""
    async with watching() as scene:
        scene.server.others = [0.5, 0.5]
        await scene.look(0.93)
        assert not scene.ceiling.admits
        assert {slot for slot, *_ in scene.server.asked} == {2, 3}


async def test_workers_share_the_slots() -> None:
    """Each removes journals where it sweeps."""
    async with watching() as scene:
        scene.ceiling.share_with(["me", "you"])
        await scene.look(0.8)
        mine = {slot for slot, *_ in scene.server.asked}
        other = Ceiling(MemoryStore(scene.clock, slots=4), clock=scene.clock, worker="you")
        other.share_with(["me", "you"])
        assert mine | set(other._slots) == set(range(4))
        assert not mine & set(other._slots)


async def test_a_server_that_does_not_tell_is_asked_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and work goes on as if there were no bound."""
    async with watching() as scene:
        assert await scene.look(None) == BLIND_S
        assert await scene.look(None) == BLIND_S
        assert scene.ceiling.admits
        assert caplog.text.count("nobody watches the memory of Redis") == 1
        assert await scene.look(0.1) == LOOK_S
