"""Several consumer groups in one worker: `perdure.worker.sources`."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Set

import pytest

from perdure.worker.arrivals import Fetched
from perdure.worker.broker import NONE_HELD, Partition, Record
from perdure.worker.committer import Committer
from perdure.worker.sources import BATCH_MAX, GATHER_MS, Source, Turns
from tests.waiting import wait_until
from tests.worker.attempt_stage import SkippingClock
from tests.worker.scripted_broker import ScriptedBroker

ROOM = 10


class Stocked(ScriptedBroker):
    """A broker that has records."""

    def __init__(self, topic: str, count: int) -> None:
        super().__init__()
        self.stock = deque(Record(Partition(topic, 0), n, 0, None, b"", ()) for n in range(count))
        self.asked: list[int] = []
        self.held: list[Set[Partition]] = []

    async def poll(
        self, *, first: Callable[[str], bool], records_max: int, wait_ms: int, held: Set[Partition] = NONE_HELD
    ) -> list[Record]:
        """See `Broker.poll`."""
        assert wait_ms == 0, "nobody waits while it is his turn"
        self.asked.append(records_max)
        self.held.append(frozenset(held))
        # A poll may be suspended: that is when another one would take the same room.
        await asyncio.sleep(0)
        if held:
            return []
        return [self.stock.popleft() for _ in range(min(records_max, len(self.stock)))]


class Barrier:
    """A durable point that is always reached."""

    lag_ms = 0

    async def pass_(self) -> int:
        """See `Barrier.pass_`."""
        return 1


class Worker:
    """Room for some attempts, which end when a test says so."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most = 0
        self.changed = asyncio.Event()
        self.turns = Turns(self.room)

    async def room(self) -> int:
        """See `Attempts.room`."""
        while self.running.total() >= ROOM:
            self.changed.clear()
            await self.changed.wait()
        return ROOM - self.running.total()

    def begin(self, topic: str, count: int) -> None:
        """Attempts begin."""
        self.running[topic] += count
        self.most = max(self.most, self.running.total())

    def end(self, topic: str, count: int) -> None:
        """Attempts end."""
        self.running[topic] -= count
        self.changed.set()


class Beginning:
    """The part of an intake that a source speaks to: every record is an attempt."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.taken: list[Fetched] = []
        self.refused: list[Fetched] = []
        self.retries: list[int] = []
        self.queued = False
        self.pause = asyncio.Event()
        self.pause.set()

    async def take(self, records: Iterable[Fetched]) -> int:
        """See `Intake.take`."""
        await self.pause.wait()
        batch = list(records)
        self.taken += batch
        if self.queued:
            return 0
        self.worker.begin(batch[0].record.partition.topic, len(batch))
        return len(batch)

    def held(self) -> Set[Partition]:
        """See `Intake.held`."""
        return {fetched.record.partition for fetched in self.refused}

    async def take_held(self, records_max: int) -> None:
        """See `Intake.take_held`."""
        self.retries.append(records_max)
        if len(self.retries) >= 3:
            self.refused.clear()


class Napping(SkippingClock):
    """A clock that remembers how long each sleep was to be."""

    def __init__(self) -> None:
        super().__init__()
        self.naps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self.naps.append(seconds)
        await super().sleep(seconds)


def source(
    worker: Worker,
    broker: Stocked,
    intake: Beginning,
    *,
    admits: Callable[[], bool] = lambda: True,
    clock: SkippingClock | None = None,
) -> Source:
    """One that reads from this broker."""
    clock = clock or SkippingClock()

    async def never(records: object) -> None:
        raise AssertionError("nothing was lost")

    committer = Committer(broker, Barrier(), clock=clock, admit_again=never)
    return Source(
        broker,
        committer,
        intake,  # type: ignore[arg-type] # all that is asked of it
        turns=worker.turns,
        clock=clock,
        first=lambda topic: topic.endswith("resume"),
        admits=admits,
    )


async def test_all_share_the_room_and_take_turns() -> None:
    """There are never more attempts than the worker has room for, and nobody starves."""
    worker = Worker()
    brokers = [Stocked(topic, 50) for topic in "abc"]
    intakes = [Beginning(worker) for _ in brokers]
    sources = [source(worker, *pair) for pair in zip(brokers, intakes, strict=True)]
    tasks = [asyncio.create_task(each.run()) for each in sources]
    done = 0
    while done < 150:
        await wait_until(lambda: worker.running.total() > 0, description="something runs")
        topic = next(name for name, count in worker.running.items() if count)
        worker.end(topic, 1)
        done += 1
    assert worker.most <= ROOM
    assert [len(intake.taken) for intake in intakes] == [50, 50, 50]
    assert all(0 < asked <= min(ROOM, BATCH_MAX) for broker in brokers for asked in broker.asked)
    await worker.turns.end(tasks, patience_s=5)
    await asyncio.wait(tasks)


async def test_a_batch_is_taken_to_its_end() -> None:
    """Whoever stops the worker waits for the one that is being taken, and for no other."""
    worker = Worker()
    broker, intake = Stocked("a", 5), Beginning(worker)
    intake.pause.clear()
    task = asyncio.create_task(source(worker, broker, intake).run())
    await wait_until(lambda: worker.turns.taking.locked(), description="a batch is being taken")
    ending = asyncio.create_task(worker.turns.end([task], patience_s=20))
    await asyncio.sleep(0)
    intake.pause.set()
    await ending
    await asyncio.wait([task])
    assert len(intake.taken) == 5


@pytest.mark.parametrize(("queued", "count", "gathers"), [(True, 3, 1), (False, 3, 0), (True, 2 * ROOM, 0)])
async def test_what_comes_next_is_gathered_while_nothing_could_begin(queued: bool, count: int, gathers: int) -> None:
    """Records of an object that is busy come a few at once, and no record of anything that could begin waits for it."""
    worker = Worker()
    broker, intake, clock = Stocked("a", count), Beginning(worker), Napping()
    intake.queued = queued
    task = asyncio.create_task(source(worker, broker, intake, clock=clock).run())
    await wait_until(lambda: len(intake.taken) == count and len(broker.asked) > -(-count // ROOM))
    assert clock.naps.count(GATHER_MS / 1000) == gathers
    await worker.turns.end([task], patience_s=5)
    await asyncio.wait([task])


async def test_patience_with_a_batch_ends() -> None:
    """A worker stops though Redis does not answer."""
    worker = Worker()
    broker, intake = Stocked("a", 5), Beginning(worker)
    intake.pause.clear()
    task = asyncio.create_task(source(worker, broker, intake).run())
    await wait_until(lambda: worker.turns.taking.locked(), description="a batch is being taken")
    await worker.turns.end([task], patience_s=0.01)
    await asyncio.wait([task])
    assert intake.taken == []


@pytest.mark.parametrize("count", [0, 3])
async def test_what_is_held_is_tried_again(count: int) -> None:
    """Now and then, with the room that there is, and not polled meanwhile."""
    worker = Worker()
    broker, intake = Stocked("a", count), Beginning(worker)
    partition = Partition("a", 0)
    intake.refused = [Fetched(Record(partition, 9, 0, None, b"", ()), 1)]
    task = asyncio.create_task(source(worker, broker, intake).run())
    await wait_until(lambda: len(intake.retries) >= 3, description="three tries")
    await wait_until(lambda: len(intake.taken) == count, description="then the rest is taken")
    assert intake.retries == [ROOM] * 3
    assert {partition} in broker.held
    await worker.turns.end([task], patience_s=5)
    await asyncio.wait([task])


async def test_while_no_new_work_is_taken_only_what_goes_on_is_read() -> None:
    """Records of other topics stay where they are, also those that a full queue has refused."""
    worker, broker = Worker(), Stocked("a", 5)
    intake, admits = Beginning(worker), False
    each = source(worker, broker, intake, admits=lambda: admits)
    new, resumed = Partition("a", 0), Partition("a.resume", 0)
    await each.committer.assigned([new, resumed])
    intake.refused.append(Fetched(Record(Partition("b", 0), 0, 0, None, b"", ()), 0))
    task = asyncio.create_task(each.run())
    await wait_until(lambda: len(broker.held) > 3)
    assert set(broker.held) == {frozenset({new, Partition("b", 0)})}
    assert intake.retries == []
    admits = True
    await wait_until(lambda: len(intake.taken) == 5)
    task.cancel()
    await asyncio.wait([task])
