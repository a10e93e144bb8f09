"""Offsets move behind the durable point, and never past it: `perdure.worker.committer`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from perdure.schemas.errors import SettingsError, StoreError
from perdure.worker import committer as committer_module
from perdure.worker.broker import Partition, Record
from perdure.worker.committer import Committer
from tests.waiting import wait_until
from tests.worker.attempt_stage import SkippingClock
from tests.worker.scripted_broker import ScriptedBroker

P0, P1 = Partition("t", 0), Partition("t", 1)


class ScriptedBarrier:
    """A durable point that a test opens and closes."""

    def __init__(self) -> None:
        self.connection = 1
        self.lag_ms = 0
        self.passes = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def pass_(self) -> int:
        """See `Barrier.pass_`."""
        self.waiting.set()
        await self.gate.wait()
        self.passes += 1
        if self.error is not None:
            raise self.error
        return self.connection


class Scene:
    """A committer, and what it speaks to."""

    def __init__(self) -> None:
        self.broker = ScriptedBroker()
        self.barrier = ScriptedBarrier()
        self.clock = SkippingClock()
        self.again: list[int] = []
        self.again_fails = False
        self.committer = Committer(self.broker, self.barrier, clock=self.clock, admit_again=self.admit_again)

    async def admit_again(self, records: Sequence[Record]) -> None:
        """Write down what would be admitted again."""
        if self.again_fails:
            raise StoreError("not now")
        self.again += [record.offset for record in records]

    def fetch(self, *offsets: int, partition: Partition = P0) -> list[tuple[Record, int]]:
        """Fetch records."""
        records = [Record(partition, offset, 0, None, b"", ()) for offset in offsets]
        return [(record, self.committer.fetched(record)) for record in records]

    def admit(self, batch: Sequence[tuple[Record, int]]) -> None:
        """Admit what was fetched."""
        for record, generation in batch:
            self.committer.admitted(record, generation)


@pytest.fixture
async def scene() -> Scene:
    """A committer that holds two partitions."""
    scene = Scene()
    await scene.committer.start()
    await scene.committer.assigned([P0, P1])
    return scene


async def test_a_start_during_an_outage_waits_for_its_end() -> None:
    """A Redis that dies while the first pass waits for its disk does not end the worker."""
    scene = Scene()
    scene.barrier.error = StoreError("it closed the connection")
    starting = asyncio.create_task(scene.committer.start())
    await wait_until(lambda: scene.barrier.passes > 2, description="it is tried again")
    assert not starting.done()
    scene.barrier.error = None
    await starting


async def test_a_start_with_a_wrong_login_fails() -> None:
    """Waiting would not mend it."""
    scene = Scene()
    scene.barrier.error = SettingsError("mend the password")
    with pytest.raises(SettingsError):
        await scene.committer.start()


async def test_offsets_move_behind_the_barrier(scene: Scene) -> None:
    """What is admitted and durable is committed, up to the first record that is not."""
    batch = scene.fetch(7, 8, 9)
    scene.admit([batch[0], batch[2]])
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 8}]
    scene.admit([batch[1]])
    await scene.committer.commit()
    assert scene.broker.committed[-1] == {P0: 10}


async def test_nothing_to_vouch_for_asks_nobody(scene: Scene) -> None:
    """An idle worker asks the store for nothing."""
    await scene.committer.commit()
    assert scene.barrier.passes == 1
    assert scene.broker.committed == []


async def test_a_barrier_that_fails_holds_offsets(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is committed past the durable point; it is said once, and once more when it is reached again."""
    caplog.set_level(logging.INFO, logger="perdure.worker.committer")
    scene.barrier.error = StoreError("the disk is slow")
    scene.admit(scene.fetch(1, 2))
    for _ in range(3):
        await scene.committer.commit()
    assert scene.broker.committed == []
    assert len([line for line in caplog.messages if "wait for the durable point" in line]) == 1
    scene.barrier.error = None
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 3}]
    assert len([line for line in caplog.messages if "reached again" in line]) == 1


async def test_what_is_admitted_during_a_pass_waits_for_the_next(scene: Scene) -> None:
    """A pass covers what was admitted before it began."""
    scene.admit(scene.fetch(1))
    scene.barrier.gate.clear()
    scene.barrier.waiting.clear()
    commit = asyncio.create_task(scene.committer.commit())
    await scene.barrier.waiting.wait()
    scene.admit(scene.fetch(2))
    scene.barrier.gate.set()
    await commit
    assert scene.broker.committed == [{P0: 2}]


async def test_a_new_connection_has_everything_admitted_again(scene: Scene) -> None:
    """Where the store may have been restarted, a pass vouches for nothing that came before it."""
    scene.admit(scene.fetch(1, 2))
    scene.barrier.connection = 2
    await scene.committer.commit()
    assert scene.broker.committed == []
    assert scene.again == [1, 2]
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 3}]
    assert scene.again == [1, 2]


async def test_an_admission_that_cannot_be_repeated_is_tried_again(scene: Scene) -> None:
    """Until it succeeded, nothing of it is committed."""
    scene.admit(scene.fetch(1, 2))
    scene.barrier.connection = 2
    scene.again_fails = True
    await scene.committer.commit()
    await scene.committer.commit()
    assert scene.broker.committed == []
    scene.again_fails = False
    await scene.committer.commit()
    assert scene.again == [1, 2]
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 3}]


async def test_a_lagging_barrier_covers_what_is_old_enough(scene: Scene) -> None:
    """Where there is no WAITAOF, a commit lags behind admission."""
    scene.barrier.lag_ms = 2_000
    scene.admit(scene.fetch(1))
    await scene.committer.commit()
    assert scene.broker.committed == []
    scene.clock.skip(2_001)
    scene.admit(scene.fetch(2))
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 2}]


async def test_a_lagging_barrier_lags_behind_repeated_admissions(scene: Scene) -> None:
    """What was admitted again is as young as the repetition, not as old as the first time."""
    scene.barrier.lag_ms = 2_000
    scene.admit(scene.fetch(1))
    scene.clock.skip(10_000)
    scene.barrier.connection = 2
    await scene.committer.commit()
    await scene.committer.commit()
    assert scene.broker.committed == []
    scene.clock.skip(2_001)
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 2}]


async def test_a_revocation_commits_for_the_last_time(scene: Scene) -> None:
    """What is durable is committed before the partitions leave; later words about them change nothing."""
    first, second = scene.fetch(1), scene.fetch(5, partition=P1)
    scene.admit(first)
    await scene.committer.revoked([P0, P1])
    assert scene.broker.committed == [{P0: 2}]
    scene.admit(second)
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 2}]


async def test_records_of_an_earlier_assignment_do_not_count(scene: Scene) -> None:
    """A partition that left and came back begins at what Kafka delivers then, whatever is admitted late."""
    old = scene.fetch(1, 2, 3)
    await scene.committer.revoked([P0, P1])
    await scene.committer.assigned([P0, P1])
    again = scene.fetch(1, 2)
    scene.admit(old)
    await scene.committer.commit()
    assert scene.broker.committed == []
    scene.admit(again)
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 3}]


async def test_refused_commits_are_repeated(scene: Scene) -> None:
    """Kafka may be away; the next round commits the same."""
    scene.broker.commits_fail = True
    scene.admit(scene.fetch(1))
    await scene.committer.commit()
    scene.broker.commits_fail = False
    await scene.committer.commit()
    assert scene.broker.committed == [{P0: 2}]


async def test_intake_waits_while_too_much_is_not_durable(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Admitted records stay in memory until they are durable, so there is a bound on them."""
    monkeypatch.setattr(committer_module, "UNVOUCHED_MAX", 3)
    scene.admit(scene.fetch(1, 2, 3))
    room = asyncio.create_task(scene.committer.room())
    await asyncio.sleep(0)
    assert not room.done()
    await scene.committer.commit()
    await room


async def test_held_partitions_are_those_of_the_last_assignment(scene: Scene) -> None:
    """What was revoked is not among them; each topic has its own."""
    await scene.committer.revoked([P0, P1])
    assert scene.committer.held("t") == []
    await scene.committer.assigned([Partition("t", 3), Partition("u", 1), Partition("t", 2)])
    assert (scene.committer.held("t"), scene.committer.held("u")) == ([2, 3], [1])
    await scene.committer.revoked([Partition("t", 3)])
    assert scene.committer.held("t") == [2]


async def test_a_record_is_this_workers_until_its_partition_goes(scene: Scene) -> None:
    """Also one that is not admitted yet."""
    ((record, generation),) = scene.fetch(7)
    assert scene.committer.current(record, generation)
    await scene.committer.revoked([P0])
    assert not scene.committer.current(record, generation)
    await scene.committer.assigned([P0])
    assert not scene.committer.current(record, generation)
