"""When records go together: `perdure.worker.gathering`."""

from __future__ import annotations

import asyncio

from perdure.worker.gathering import BUSY_MS, BUSY_RECORDS, GATHER_MS, Gathering
from tests.waiting import wait_until
from tests.worker.attempt_stage import SkippingClock


class Waking(SkippingClock):
    """A clock that stands still, and whose sleepers wake when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ms = 0.0
        self.slept: list[float] = []
        self.wake = asyncio.Event()

    def monotonic_ms(self) -> float:
        """See `Clock.monotonic_ms`."""
        return self.at_ms

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self.slept.append(seconds)
        await self.wake.wait()


class Scene:
    """Records that come to a gathering, and the order in which they went."""

    def __init__(self) -> None:
        self.clock = Waking()
        self.gathering = Gathering(self.clock)
        self.gone: list[int] = []

    def come(self, *numbers: int) -> list[asyncio.Task[None]]:
        """They come, one after the other, at the time that it is."""
        return [asyncio.create_task(self._one(number)) for number in numbers]

    async def _one(self, number: int) -> None:
        await self.gathering.pass_()
        self.gone.append(number)


async def test_few_go_at_once() -> None:
    """So many as one caller could send, or as come in a burst and no more, wait for nobody."""
    scene = Scene()
    for number in range(3 * BUSY_RECORDS):
        scene.clock.at_ms += BUSY_MS / (BUSY_RECORDS - 1) + 0.1
        await asyncio.gather(*scene.come(number))
    scene.clock.at_ms += 2 * BUSY_MS
    await asyncio.gather(*scene.come(*range(90, 90 + BUSY_RECORDS - 1)))
    assert len(scene.gone) == 4 * BUSY_RECORDS - 1
    assert scene.clock.slept == []


async def test_many_go_together() -> None:
    """The first of them waits for a moment and the others for the first; they go in the order in which they came."""
    scene = Scene()
    await asyncio.gather(*scene.come(*range(BUSY_RECORDS - 1)))
    waiting = [*scene.come(100), *scene.come(101, 102)]
    await wait_until(lambda: scene.clock.slept == [GATHER_MS / 1000])
    scene.clock.at_ms += GATHER_MS / 2
    waiting += scene.come(103)
    for _ in range(5):
        await asyncio.sleep(0)
    assert scene.gone == list(range(BUSY_RECORDS - 1))
    scene.clock.wake.set()
    await asyncio.gather(*waiting)
    assert scene.gone[BUSY_RECORDS - 1 :] == [100, 101, 102, 103]
    assert len(scene.clock.slept) == 1


async def test_one_who_is_cancelled_lets_the_others_go() -> None:
    """Nobody waits for the first of many when that one has gone."""
    scene = Scene()
    await asyncio.gather(*scene.come(*range(BUSY_RECORDS - 1)))
    first, *others = scene.come(100, 101, 102)
    await wait_until(lambda: scene.clock.slept)
    first.cancel()
    await asyncio.gather(*others)
    assert scene.gone[BUSY_RECORDS - 1 :] == [101, 102]
