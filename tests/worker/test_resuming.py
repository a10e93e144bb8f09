"""Ready invocations that wait for a place: `perdure.worker.resuming`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest

from perdure.journal.store import ResumeDue
from perdure.schemas.ids import InvocationId
from perdure.worker.resuming import WAIT_MS, WAITING_MAX, Resuming
from tests.waiting import wait_until
from tests.worker.attempt_stage import SkippingClock


class Ticking(SkippingClock):
    """A clock whose sleeps last until it is put forward as far."""

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        until_ms = self.monotonic_ms() + seconds * 1000
        while self.monotonic_ms() < until_ms:  # noqa: ASYNC110 - nobody tells that it was put forward
            await asyncio.sleep(0)


class Scene:
    """A worker with some places."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.places = 0
        self.resumed: list[str] = []
        self.produced: list[str] = []
        self.clock = Ticking()
        self._tasks = tasks
        self.resuming = Resuming(
            resume=self._resume,
            runs=lambda service: service == "Mine",
            produce=lambda due: self.produced.append(due.invocation_id),
            clock=self.clock,
            spawn=self._spawn,
        )

    def _resume(self, due: ResumeDue) -> bool:
        if due.service != "Mine" or not self.places:
            return False
        self.places -= 1
        self.resumed.append(due.invocation_id)
        return True

    def _spawn(self, work: Awaitable[object]) -> None:
        self._tasks.create_task(work)  # type: ignore[arg-type] # a coroutine here

    def put(self, *names: str, service: str = "Mine") -> None:
        """These are ready."""
        for name in names:
            self.resuming.put(ResumeDue(InvocationId(name), 1, service))

    def free(self, places: int = 1) -> None:
        """So many attempts end."""
        for _ in range(places):
            self.places += 1
            self.resuming.freed()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A worker that is full; what waits in it goes elsewhere in the end."""
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(tasks)
        yield scene
        scene.resuming.leave()
        scene.clock.skip(WAIT_MS)


async def test_what_finds_a_place_takes_it(scene: Scene) -> None:
    """At once; without one it waits, and takes the next that comes free."""
    scene.places = 1
    scene.put("a", "b")
    assert (scene.resumed, scene.produced) == (["a"], [])
    scene.free()
    assert (scene.resumed, scene.produced) == (["a", "b"], [])


async def test_places_go_to_those_that_wait_longest(scene: Scene) -> None:
    """One each; who is ready later does not overtake."""
    scene.put("a", "b", "c")
    scene.free(2)
    assert scene.resumed == ["a", "b"]
    scene.places = 1
    scene.put("d")
    assert scene.resumed == ["a", "b"]
    scene.resuming.freed()
    scene.free()
    assert scene.resumed == ["a", "b", "c", "d"]


async def test_what_finds_no_place_soon_goes_elsewhere(scene: Scene) -> None:
    """Each after its own time; a place that comes free then is for others."""
    scene.put("a")
    scene.clock.skip(WAIT_MS * 0.6)
    scene.put("b")
    scene.clock.skip(WAIT_MS * 0.6)
    await wait_until(lambda: scene.produced == ["a"])
    scene.clock.skip(WAIT_MS * 0.6)
    await wait_until(lambda: scene.produced == ["a", "b"])
    scene.free()
    assert scene.resumed == []
    scene.put("c", "d")
    scene.clock.skip(WAIT_MS * 1.1)
    await wait_until(lambda: scene.produced == ["a", "b", "d"])
    assert scene.resumed == ["c"]


async def test_what_runs_elsewhere_does_not_wait_here(scene: Scene) -> None:
    """No place here will ever do."""
    scene.put("a", service="Theirs")
    assert scene.produced == ["a"]


async def test_no_more_wait_than_there_may(scene: Scene) -> None:
    """A crowd that falls due at once is for all workers."""
    scene.put(*(f"{number}" for number in range(WAITING_MAX + 2)))
    assert scene.produced == [f"{WAITING_MAX}", f"{WAITING_MAX + 1}"]


async def test_a_worker_that_leaves_keeps_nothing(scene: Scene) -> None:
    """What waited goes elsewhere, and so does what is ready later."""
    scene.put("a", "b")
    scene.resuming.leave()
    scene.put("c")
    assert scene.produced == ["a", "b", "c"]
