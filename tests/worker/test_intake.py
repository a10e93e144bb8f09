"""From fetched records to admissions, claims and dead letters: `perdure.worker.intake`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Caller, Claim
from perdure.schemas.entries import Outcome, Output, Success
from perdure.schemas.errors import StoreError
from perdure.schemas.records import Resume
from perdure.worker.application import app
from perdure.worker.arrivals import Fetched
from perdure.worker.broker import Headers, Partition, Record
from perdure.worker.context import Context
from perdure.worker.intake import Intake, IntakeLimits, Progress
from perdure.worker.outbox import Outbox
from perdure.worker.readings import EnvelopeReading
from perdure.worker.service import Service
from tests.worker.attempt_stage import SkippingClock
from tests.worker.scripted_broker import ScriptedBroker

NEW, RESUME = Partition("ns.S", 0), Partition("ns.S.resume", 0)
DAY_MS = 86_400_000


class Refusing:
    """A store in memory that refuses some invocations."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self.refused: set[bytes] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def admit(self, admission: Any, *, lease_ms: int) -> Any:
        """See `Store.admit`."""
        if admission.input.value not in self.refused:
            return self._memory.admit(admission, lease_ms=lease_ms)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(StoreError("WRONGTYPE"))
        return future


class Scene:
    """An intake, and what came of it."""

    def __init__(self) -> None:
        self.clock = SkippingClock()
        self.memory = MemoryStore(self.clock, slots=4)
        self.store = Refusing(self.memory)
        self.broker = ScriptedBroker()
        self.outbox = Outbox(self.broker, clock=self.clock)
        self.claims: list[Claim] = []
        self.settled: list[tuple[int, int]] = []
        self._tokens = itertools.count(1)
        self._offsets = itertools.count()
        service = Service("S")

        @service.handler()
        async def h(ctx: Context, argument: Any) -> None:
            raise AssertionError("nothing runs here")

        self.told: list[tuple[str, Outcome]] = []
        application = app([service])
        self.intake = Intake(
            application,
            self.store,
            self.outbox,
            clock=self.clock,
            worker="me",
            new_token=lambda: f"token {next(self._tokens)}",
            read=EnvelopeReading(application, {NEW.topic: "S"}, record_bytes_max=1_000, now_ms=self.clock.now_ms),
            resumes={RESUME.topic},
            limits=IntakeLimits(10_000, "ns.dead"),
            start=self.claims.append,
            progress=Progress(
                settled=lambda record, generation: self.settled.append((record.offset, generation)),
                current=lambda record, generation: True,
            ),
            tell=self._tell,
        )

    def _tell(self, caller: str, outcome: Outcome, then: Callable[[], None]) -> None:
        self.told.append((caller, outcome))
        then()

    def record(
        self, value: bytes | None, *, partition: Partition = NEW, headers: Headers = (), offset: int | None = None
    ) -> Record:
        """A fetched record."""
        number = next(self._offsets) if offset is None else offset
        return Record(partition, number, 1_700_000_000_000, b"key", value, headers)

    def new(self, argument: object, **fields: Any) -> Record:
        """A record of an invocation."""
        return self.record(orjson.dumps({"handler": "h", "argument": argument} | fields))

    async def take(self, *records: Record) -> int:
        """Take a batch of generation 1; how many attempts began."""
        return await self.intake.take([Fetched(record, 1) for record in records])

    async def produce(self) -> None:
        """Let the outbox work until it is empty."""
        task = asyncio.create_task(self.outbox.run())
        await self.outbox.emptied()
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def scene() -> Scene:
    """An intake of one service."""
    return Scene()


async def test_a_batch_is_admitted_and_started(scene: Scene) -> None:
    """Each record becomes an invocation that runs here, and its offset may move."""
    assert await scene.take(scene.new("a"), scene.new("b")) == 2
    assert [claim.entries[0].entry.value for claim in scene.claims] == [b'"a"', b'"b"']  # type: ignore[union-attr]
    assert scene.settled == [(0, 1), (1, 1)]
    assert len({claim.lease.token for claim in scene.claims}) == 2
    assert scene.intake.expected() == []


async def test_a_record_is_admitted_once(scene: Scene) -> None:
    """Its id follows from where it stands, so that Kafka may deliver it again, in the same batch too."""
    record = scene.new("a")
    assert await scene.take(record, record) == 1
    assert await scene.take(record) == 0
    assert len(scene.claims) == 1
    assert scene.settled == [(0, 1)] * 3


async def test_a_recreated_topic_is_another(scene: Scene) -> None:
    """The same offset at another time is another record."""
    record = scene.new("a")
    await scene.take(record, record._replace(timestamp_ms=record.timestamp_ms + 1))
    assert len(scene.claims) == 2


async def test_bad_records_wait_for_their_dead_letters(scene: Scene) -> None:
    """Their offsets may move once Kafka has the letter; those around them move at once."""
    await scene.take(scene.new("a"), scene.record(b"nonsense"), scene.new("b"))
    assert scene.settled == [(0, 1), (2, 1)]
    await scene.produce()
    assert scene.settled[-1] == (1, 1)
    assert [letter.topic for letter in scene.broker.produced] == ["ns.dead"]
    assert scene.broker.produced[0].value == b"nonsense"


async def test_records_with_too_many_headers_are_dead_letters(scene: Scene) -> None:
    """They would be stored with each invocation."""
    headers = tuple((f"h{number}", b"") for number in range(101))
    await scene.take(scene.record(b'{"handler": "h"}', headers=headers))
    await scene.produce()
    assert ("perdure-reason", b"The record has 101 headers; at most 100 are allowed.") in scene.broker.produced[
        0
    ].headers


@pytest.mark.parametrize("partition", [NEW, RESUME])
async def test_header_names_that_are_not_utf8_are_kept_beside_their_values(scene: Scene, partition: Partition) -> None:
    """The letter can be read by every client, and what the names were follows from it byte for byte."""
    value = orjson.dumps({"handler": "h"} if partition == NEW else {"id": "inv_" + "0" * 26, "epoch": 1})
    names = (b"caf\xe9", b"caf\xc3\xa9", b"\xff", b"\xff", b"plain")
    headers = tuple((name.decode("utf-8", "surrogateescape"), b"%d" % at) for at, name in enumerate(names))
    await scene.take(scene.record(value, partition=partition, headers=headers))
    await scene.produce()
    (letter,) = scene.broker.produced
    assert (letter.topic, letter.key, letter.value) == ("ns.dead", b"key", value)
    assert letter.headers[:8] == (
        ("caf\N{REPLACEMENT CHARACTER}", b"0"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", b"1"),
        ("\N{REPLACEMENT CHARACTER}", b"2"),
        ("\N{REPLACEMENT CHARACTER}", b"3"),
        ("plain", b"4"),
        ("perdure-header-0-name", b"caf\xe9"),
        ("perdure-header-2-name", b"\xff"),
        ("perdure-header-3-name", b"\xff"),
    )
    assert (dict(letter.headers)["perdure-reason"] or b"").startswith(
        b"The name of header 0, counted from 0, is not UTF-8"
    )
    assert scene.claims == []
    assert scene.settled == [(0, 1)]


async def test_a_record_of_a_topic_that_is_nobodys(scene: Scene) -> None:
    """A subscription that is wider than the application loses nothing."""
    await scene.take(scene.record(b'{"handler": "h"}', partition=Partition("ns.Other", 0)))
    await scene.produce()
    assert scene.broker.produced[0].topic == "ns.dead"


async def test_a_refused_record_keeps_its_offset_and_holds_up_no_other(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged key of one invocation is said; the others of the batch run."""
    scene.store.refused.add(b'"bad"')
    await scene.take(scene.new("a"), scene.new("bad"), scene.new("b"))
    assert len(scene.claims) == 2
    assert scene.settled == [(0, 1), (2, 1)]
    assert "was refused by Redis" in caplog.text
    assert scene.intake.expected() == []


async def test_resume_notices_are_claimed_once(scene: Scene) -> None:
    """The epoch decides: duplicates and stale ones are dropped, and their offsets move."""
    await scene.take(scene.new("a"))
    first = scene.claims[0].lease
    await scene.memory.release(first, [], after=1, seq=1)
    value = Resume(first.invocation_id, first.epoch).encode()
    notice = scene.record(value, partition=RESUME, offset=7)
    await scene.take(notice, notice._replace(offset=8))
    assert [claim.lease.epoch for claim in scene.claims] == [1, 2]
    assert sorted(scene.settled[1:]) == [(7, 1), (8, 1)]
    await scene.take(notice._replace(offset=9))
    assert len(scene.claims) == 2


async def test_a_duplicate_of_what_is_complete_gets_its_reply(scene: Scene) -> None:
    """Its offset waits for the reply, which nothing else remembers."""
    await scene.take(scene.new("a", idempotency_key="k"))
    lease = scene.claims[0].lease
    output = Output(0, Success(b"7"))
    await scene.memory.complete(lease, [output], after=1, seq=1, retention_ms=DAY_MS, journal_retention_ms=DAY_MS)
    await scene.take(scene.new("a", idempotency_key="k", reply_to="answers"))
    assert scene.settled == [(0, 1)]
    await scene.produce()
    assert scene.settled == [(0, 1), (1, 1)]
    assert scene.broker.produced[0].topic == "answers"
    assert orjson.loads(scene.broker.produced[0].value or b"")["value"] == 7


async def test_what_a_store_lost_is_admitted_again(scene: Scene) -> None:
    """After a restart of Redis known ids change nothing, and lost ones run again; bad ones are left out."""
    known, lost = scene.new("known"), scene.new("lost")
    await scene.take(known)
    await scene.intake.take_again([known, lost, scene.record(b"bad"), scene.record(b"{}", partition=RESUME)])
    assert [claim.entries[0].entry.value for claim in scene.claims] == [b'"known"', b'"lost"']  # type: ignore[union-attr]
    assert scene.settled == [(0, 1)]


async def test_a_caller_that_a_store_may_have_lost_the_answer_of_is_told_again(scene: Scene) -> None:
    """The record alone knows of it, where the invocation had ended before it came."""
    await scene.take(scene.new("a", idempotency_key="k"))
    output = Output(0, Success(b"7"))
    lease = scene.claims[0].lease
    await scene.memory.complete(lease, [output], after=1, seq=1, retention_ms=DAY_MS, journal_retention_ms=DAY_MS)
    caller = str(Caller(lease.invocation_id, 0, 2))
    called = scene.new("a", idempotency_key="k", caller=caller)
    await scene.take(called)
    await scene.intake.take_again([called])
    assert scene.told == [(caller, Success(b"7"))] * 2


async def test_a_claim_that_a_store_lost_is_made_again(scene: Scene) -> None:
    """After a restart of Redis that forgot the claim, the invocation is ready and does not wait for its redelivery."""
    await scene.take(scene.new("a"))
    first = scene.claims[0].lease
    await scene.memory.release(first, [], after=1, seq=1)
    notice = scene.record(Resume(first.invocation_id, first.epoch).encode(), partition=RESUME, offset=7)
    await scene.intake.take_again([notice])
    assert [claim.lease.epoch for claim in scene.claims] == [1, 2]
    await scene.intake.take_again([notice])
    assert len(scene.claims) == 2
    assert scene.intake.expected() == []


async def test_an_invocation_for_later_is_not_started(scene: Scene) -> None:
    """Its offset moves, since the store starts it."""
    await scene.take(scene.new("a", not_before="2100-01-01T00:00:00Z"))
    assert scene.claims == []
    assert scene.settled == [(0, 1)]


async def test_an_admission_that_is_refused_again_leaves_no_lease_behind(scene: Scene) -> None:
    """Whoever repeats it makes new leases; the old ones are not renewed for ever."""
    scene.store.refused.add(b'"bad"')
    with pytest.raises(StoreError):
        await scene.intake.take_again([scene.new("bad"), scene.new("a")])
    assert scene.intake.expected() == []
