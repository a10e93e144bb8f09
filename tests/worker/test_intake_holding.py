"""Partitions that are held back while queues are full: `perdure.worker.intake`."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable
from typing import Any

import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission, Admitted, Claim
from perdure.schemas.entries import Output, Success
from perdure.schemas.errors import StoreError
from perdure.worker.application import app
from perdure.worker.arrivals import Fetched
from perdure.worker.broker import Partition, Record
from perdure.worker.intake import Intake, IntakeLimits, Progress
from perdure.worker.outbox import Outbox
from perdure.worker.readings import SubscriptionReading
from perdure.worker.subscriptions import Subscription
from perdure.worker.virtual_object import VirtualObject
from tests.worker.attempt_stage import SkippingClock
from tests.worker.scripted_broker import ScriptedBroker

P0, P1 = Partition("orders", 0), Partition("orders", 1)
DAY_MS = 86_400_000


class Scene:
    """The intake of an object whose queue takes two, and what came of it."""

    def __init__(self) -> None:
        self.clock = SkippingClock()
        self.store = MemoryStore(self.clock, slots=4)
        self.running: list[Claim] = []
        self.settled: list[int] = []
        self.generation = 1
        self.durable: set[int] = set()
        self._tokens = itertools.count(1)
        basket = VirtualObject("Basket", queue_max=2)

        @basket.handler()
        async def add(ctx: Any, number: int) -> None:
            raise AssertionError("nothing runs here")

        application = app([basket])
        subscription = Subscription(topic="orders", handler="Basket/add")
        self.intake = Intake(
            application,
            self.store,
            Outbox(ScriptedBroker(), clock=self.clock),
            clock=self.clock,
            worker="me",
            new_token=lambda: f"token {next(self._tokens)}",
            read=SubscriptionReading(
                application, [subscription], group="g", record_bytes_max=1_000, now_ms=self.clock.now_ms
            ),
            resumes=(),
            limits=IntakeLimits(10_000, "ns.dead"),
            start=self.running.append,
            progress=Progress(
                settled=lambda record, generation: self.settled.append(record.offset),
                current=lambda record, generation: generation == self.generation and record.offset not in self.durable,
            ),
            tell=lambda caller, outcome, then: then(),
        )

    async def take(self, offsets: range, *, partition: Partition = P0, key: bytes = b"hot") -> None:
        """Take a batch of one key."""
        records = [Record(partition, offset, 0, key, b"%d" % offset, ()) for offset in offsets]
        await self.intake.take([Fetched(record, self.generation) for record in records])

    async def finish(self) -> int:
        """Let what runs be completed, and what follows it be claimed; the offset of the former."""
        claim = self.running.pop(0)
        output = Output(0, Success(b"1"))
        concluded = await self.store.complete(
            claim.lease, [output], after=len(claim.entries), seq=1, retention_ms=DAY_MS, journal_retention_ms=DAY_MS
        )
        if concluded.following is not None:
            following, epoch, _ = concluded.following
            next_claim = await self.store.claim(following, epoch, token="next", worker="me", lease_ms=10_000, at_ms=0)
            assert next_claim is not None
            self.running.append(next_claim)
        return int(claim.entries[0].entry.value)  # type: ignore[union-attr] # the first entry is the input


@pytest.fixture
async def scene() -> Scene:
    """An intake of one object."""
    return Scene()


async def test_what_a_full_queue_refuses_is_kept_in_order(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Its offsets wait, its partition is held, and each record runs once, in order; begin and end are said once."""
    caplog.set_level(logging.INFO, logger="perdure.worker.intake")
    await scene.take(range(8))
    assert scene.settled == [0, 1, 2]
    assert scene.intake.held() == {P0}
    done = []
    while scene.running:
        done.append(await scene.finish())
        if scene.intake.held():
            await scene.intake.take_held(500)
    assert done == list(range(8))
    assert scene.settled == list(range(8))
    assert not scene.intake.held()
    assert [message.split()[-1] for message in caplog.messages] == ["room", "on"]
    assert "the queue of Basket/hot is full, or lacks what comes before: orders/0 waits at offset 3" in caplog.text
    assert scene.intake.expected() == []


async def test_each_comes_behind_the_one_before_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store lets none past one that it refused, though there is room again by then; keys are apart."""
    admit, asked = scene.store.admit, []

    def noting(admission: Admission, *, lease_ms: int) -> Awaitable[Admitted]:
        asked.append(admission)
        return admit(admission, lease_ms=lease_ms)

    monkeypatch.setattr(scene.store, "admit", noting)
    records = [Record(P0, n, 0, b"hot" if n % 2 else b"cold", b"1", ()) for n in range(6)]
    await scene.intake.take([Fetched(record, 1) for record in records])
    ids = [admission.invocation_id for admission in asked]
    assert [admission.behind for admission in asked] == ["", "", *ids[:4]]


def lose_everything(scene: Scene) -> None:
    """The store fails over to a server that has nothing."""
    scene.store.__init__(scene.clock, slots=4)  # type: ignore[misc] # it is to be as it was made
    scene.running.clear()


async def test_nothing_overtakes_what_a_failover_has_lost(scene: Scene) -> None:
    """What comes next waits until it is admitted again, though the queue of the object is empty."""
    await scene.take(range(1))
    lose_everything(scene)
    await scene.take(range(1, 3))
    await scene.intake.take_held(500)
    await scene.intake.take_held(500)
    assert scene.running == []
    assert scene.settled == [0]
    await scene.intake.take_again([Record(P0, 0, 0, b"hot", b"0", ())])
    await scene.intake.take_held(500)
    assert not scene.intake.held()
    assert [await scene.finish() for _ in range(3)] == [0, 1, 2]


async def test_what_is_durable_is_not_waited_for(scene: Scene) -> None:
    """It cannot be lost; that it is not there any more only means that it is long over."""
    await scene.take(range(1))
    lose_everything(scene)
    scene.durable.add(0)
    await scene.take(range(1, 2))
    assert [await scene.finish()] == [1]


async def test_what_is_left_behind_is_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that the store refuses comes again with a later worker; those that came with it and after it go on."""
    admit = scene.store.admit

    def refusing(admission: Admission, *, lease_ms: int) -> Awaitable[Admitted]:
        if admission.input.value == b"0":
            raise_later = asyncio.get_running_loop().create_future()
            raise_later.set_exception(StoreError("It is too large."))
            return raise_later
        return admit(admission, lease_ms=lease_ms)

    monkeypatch.setattr(scene.store, "admit", refusing)
    await scene.take(range(2))
    await scene.intake.take_held(500)
    await scene.take(range(2, 3))
    assert scene.settled == [1, 2]
    assert [await scene.finish() for _ in range(2)] == [1, 2]


async def test_other_keys_of_the_batch_are_admitted(scene: Scene) -> None:
    """What has been fetched already does not wait for a key that is not its own."""
    records = [Record(P0, n, 0, b"hot" if n % 2 else b"k%d" % n, b"1", ()) for n in range(12)]
    await scene.intake.take([Fetched(record, 1) for record in records])
    assert scene.settled == [0, 1, 2, 3, 4, 5, 6, 8, 10]
    assert scene.intake.held() == {P0}


async def test_other_partitions_go_on(scene: Scene) -> None:
    """Each is held for itself, and let go for itself."""
    await scene.take(range(5))
    await scene.take(range(10, 12), partition=P1, key=b"cold")
    assert scene.settled == [0, 1, 2, 10, 11]
    await scene.take(range(12, 16), partition=P1, key=b"cold")
    assert scene.intake.held() == {P0, P1}
    scene.running.sort(key=lambda claim: claim.key != "cold")
    await scene.finish()
    await scene.intake.take_held(500)
    assert scene.settled[-1] == 13
    assert scene.intake.held() == {P0, P1}


async def test_no_more_is_tried_again_than_there_is_room_for(scene: Scene) -> None:
    """What may run at once is bounded, for these as for others."""
    await scene.take(range(8))
    for _ in range(3):
        await scene.finish()
    assert scene.running == []
    await scene.intake.take_held(1)
    assert scene.settled == [0, 1, 2, 3, 4]
    await scene.intake.take_held(500)
    assert scene.settled == [0, 1, 2, 3, 4, 5]
    assert scene.intake.held() == {P0}


async def test_a_revoked_partition_is_let_go(scene: Scene) -> None:
    """Whoever has it now begins before what was held; what comes again here is new."""
    await scene.take(range(8))
    scene.generation = 2
    assert not scene.intake.held()
    await scene.take(range(3, 8))
    assert scene.intake.held() == {P0}
    assert scene.settled == [0, 1, 2]
    while scene.running:
        await scene.finish()
        if scene.intake.held():
            await scene.intake.take_held(500)
    assert scene.settled == list(range(8))


async def test_what_redis_lost_waits_for_room_too(scene: Scene) -> None:
    """The committer repeats it until all is known again."""
    records = [Record(P0, offset, 0, b"hot", b"%d" % offset, ()) for offset in range(5)]
    for left in (2, 1):
        with pytest.raises(StoreError, match="Basket/hot is full"):
            await scene.intake.take_again(records)
        assert len(scene.running) == 1
        assert left
        await scene.finish()
    await scene.intake.take_again(records)
    assert scene.settled == []
    assert scene.intake.expected() == []
