"""The store's contract: admission, fenced writes, the outcome. Each test runs on memory and on the lane's Redis."""

from __future__ import annotations

import asyncio

import pytest

from perdure.journal import (
    memory_promises,
    memory_reads,
    memory_slot,
    memory_sweep,
    redis_outside,
    redis_scripts,
)
from perdure.journal.store import Appended, Claimed, Duplicate, Lease, ReplyDue, Scheduled, Status
from perdure.schemas.codec import encode
from perdure.schemas.entries import Completion, Failure, Output, Positioned, Success
from perdure.schemas.errors import FencedError, GapError
from perdure.schemas.limits import WAITERS_MAX

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admission,
    admitted,
    claimed,
    fields_of,
    new_id,
    output,
    run,
    sleep,
    sweep_all,
)

RETENTION_MS = 60 * MINUTE_MS


async def test_an_admitted_invocation_is_running_under_its_first_lease(bench: Bench) -> None:
    """Admission writes the input at position 1 and answers with the lease of epoch 1."""
    asked = admission(key="k", idempotency_key="i", source="t/0/7")
    answer = await bench.store.admit(asked, lease_ms=LEASE_MS)
    assert answer == Claimed(Lease(asked.invocation_id, 1, "t1", "w1", "Greeter/k"), {})
    fields = await fields_of(bench, asked.invocation_id)
    assert abs(int(fields.pop("admitted_at")) - await bench.now_ms()) < MINUTE_MS
    assert fields == {
        "service": "Greeter",
        "handler": "greet",
        "key": "k",
        "idempotency_key": "i",
        "source": "t/0/7",
        "status": "running",
        "epoch": "1",
        "token": "t1",
        "worker": "w1",
        "length": "1",
    }
    assert await bench.store.read_journal(asked.invocation_id) == [Positioned(1, 1, asked.input)]


async def test_a_delayed_invocation_is_scheduled_and_starts_when_it_is_due(bench: Bench) -> None:
    """It holds no lease, and no sweep starts it early; then the first claim makes epoch 1."""
    asked = admission(not_before_ms=await bench.now_ms() + 10 * MINUTE_MS)
    assert await bench.store.admit(asked, lease_ms=LEASE_MS) == Scheduled()
    await bench.pass_ms(9 * MINUTE_MS)
    assert await sweep_all(bench) == []
    assert (await fields_of(bench, asked.invocation_id))["status"] == "scheduled"
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [(asked.invocation_id, 0, "Greeter")]
    claim = await bench.store.claim(asked.invocation_id, 0, token="t", worker="w", lease_ms=LEASE_MS, at_ms=3)
    assert claim is not None
    assert [entry[:2] for entry in claim.entries] == [(1, 0), (2, 1)]


async def test_a_start_in_the_past_is_a_start_now(bench: Bench) -> None:
    """`not_before` says not before; a past one delays nothing."""
    answer = await bench.store.admit(admission(not_before_ms=await bench.now_ms()), lease_ms=LEASE_MS)
    assert isinstance(answer, Claimed)


async def test_a_second_record_with_a_known_id_is_a_duplicate(bench: Bench) -> None:
    """It changes nothing while the first runs, and brings the outcome once there is one."""
    lease = await admitted(bench)
    again = admission(lease.invocation_id, token="t9", worker="w9", handler="other")
    before = await bench.dump()
    assert await bench.store.admit(again, lease_ms=1) == Duplicate("running", None)
    assert await bench.dump() == before
    await bench.store.complete(
        lease, [output()], after=1, seq=1, retention_ms=RETENTION_MS, journal_retention_ms=RETENTION_MS
    )
    before = await bench.dump()
    assert await bench.store.admit(again, lease_ms=1) == Duplicate("completed", output().outcome)
    assert await bench.dump() == before


async def test_a_duplicate_that_wants_the_outcome_is_remembered(bench: Bench) -> None:
    """Its waiter is told the outcome, and its reply topic joins the first one's; neither twice."""
    lease = await admitted(bench, waiter="", reply_to="replies")
    channel = bench.keys.outcomes("c1")
    for _ in range(2):
        again = admission(lease.invocation_id, token="t9", waiter=channel, reply_to="more")
        assert await bench.store.admit(again, lease_ms=LEASE_MS) == Duplicate("running", None)
    concluded = await bench.store.complete(
        lease, [output()], after=1, seq=1, retention_ms=RETENTION_MS, journal_retention_ms=RETENTION_MS
    )
    assert concluded[:3] == (["replies", "more"], [], None)
    told = b'{"id":"%b","output":%b}' % (lease.invocation_id.encode(), encode(output())[1])
    assert await bench.messages() == [(channel, told)]


async def test_a_duplicate_after_the_outcome_is_told_at_once(bench: Bench) -> None:
    """Its waiter hears the recorded outcome; the reply is the caller's to produce."""
    lease = await admitted(bench)
    await bench.store.complete(
        lease, [output()], after=1, seq=1, retention_ms=RETENTION_MS, journal_retention_ms=RETENTION_MS
    )
    assert await bench.messages() == []
    channel = bench.keys.outcomes("c2")
    await bench.store.admit(admission(lease.invocation_id, waiter=channel, reply_to="replies"), lease_ms=LEASE_MS)
    assert [heard for heard, _ in await bench.messages()] == [channel]
    assert "reply_to" not in await fields_of(bench, lease.invocation_id)


async def test_waiters_are_bounded(bench: Bench) -> None:
    """Beyond WAITERS_MAX nobody joins: a crowd on one outcome cannot grow its hash without end."""
    channels = " ".join(bench.keys.outcomes(f"c{number}") for number in range(WAITERS_MAX - 1))
    lease = await admitted(bench)
    for channel in channels.split():
        await bench.store.attach(lease.invocation_id, channel)
    await bench.store.admit(admission(lease.invocation_id, token="t9", waiter="last"), lease_ms=LEASE_MS)
    for channel in ("late", "later"):
        await bench.store.admit(admission(lease.invocation_id, token="t9", waiter=channel), lease_ms=LEASE_MS)
        await bench.store.attach(lease.invocation_id, channel)
    assert (await fields_of(bench, lease.invocation_id))["waiters"] == f"{channels} last"


async def test_appending_what_nobody_else_appended_answers_with_the_length(bench: Bench) -> None:
    """The tail is left out where it holds the caller's own entries and nothing else."""
    lease = await admitted(bench)
    assert await bench.store.append(lease, [run(0), run(1)], after=1, seq=1, progress=False) == Appended(3, None)
    assert await bench.store.append(lease, [], after=3, seq=2, progress=False) == Appended(3, None)
    assert await bench.store.read_journal(lease.invocation_id, after=1) == [
        Positioned(2, 1, run(0)),
        Positioned(3, 1, run(1)),
    ]
    assert await bench.store.read_journal(lease.invocation_id, after=1, entries_max=1) == [Positioned(2, 1, run(0))]
    assert await bench.store.read_journal(lease.invocation_id, after=3) == []


async def test_an_append_brings_what_others_appended_meanwhile(bench: Bench) -> None:
    """A timer's completion stands before the entry that is appended after it, and both come back in that order."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=False)
    await bench.pass_ms(2 * MINUTE_MS)
    assert await sweep_all(bench) == [("w1", lease.invocation_id)]
    answer = await bench.store.append(lease, [run(1)], after=2, seq=2, progress=False)
    assert answer.length == 4
    assert answer.tail is not None
    (third, epoch, completion), last = answer.tail
    assert (third, epoch) == (3, 1)
    assert isinstance(completion, Completion)
    assert completion._replace(at_ms=0) == Completion(0, 0, Success(b"null"))
    assert last == Positioned(4, 1, run(1))


async def test_a_write_is_not_taken_back_by_giving_up_on_its_answer(bench: Bench) -> None:
    """Whoever is cancelled while waiting leaves a write behind that is done all the same."""
    lease = await admitted(bench)
    waiting = asyncio.ensure_future(bench.store.append(lease, [run(0)], after=1, seq=1, progress=True))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await bench.store.append(lease, [], after=1, seq=2, progress=True)).length == 2


async def test_progress_starts_the_count_of_failures_again(bench: Bench) -> None:
    """Consecutive failures are those without progress between them."""
    lease = await admitted(bench)
    await bench.store.back_off(lease, [], after=1, seq=1, retry_in_ms=0, failure="boom")
    await sweep_all(bench)
    claim = await claimed(bench, lease)
    assert claim.failures == 1
    await bench.store.append(claim.lease, [run(0)], after=2, seq=1, progress=False)
    assert (await fields_of(bench, lease.invocation_id))["failures"] == "1"
    await bench.store.append(claim.lease, [run(1)], after=3, seq=2, progress=True)
    assert (await fields_of(bench, lease.invocation_id))["failures"] == "0"


@pytest.mark.parametrize("changed", [{"epoch": 2}, {"epoch": 0}, {"token": "t0"}])
async def test_every_write_of_another_attempt_is_refused(bench: Bench, changed: dict[str, object]) -> None:
    """A stale epoch, a later one and a wrong token are all fenced, and nothing changes."""
    lease = await admitted(bench)
    other = lease._replace(**changed)  # type: ignore[arg-type]  # fields of Lease
    before = await bench.dump()
    store = bench.store
    with pytest.raises(FencedError):
        await store.append(other, [run(0)], after=1, seq=1, progress=True)
    with pytest.raises(FencedError):
        await store.complete(other, [output()], after=1, seq=1, retention_ms=1, journal_retention_ms=1)
    with pytest.raises(FencedError):
        await store.suspend(other, [], after=1, seq=1, wake_in_ms=1)
    with pytest.raises(FencedError):
        await store.back_off(other, [], after=1, seq=1, retry_in_ms=1, failure="x")
    with pytest.raises(FencedError):
        await store.give_up(other, [], after=1, seq=1, failure="x")
    with pytest.raises(FencedError):
        await store.release(other, [], after=1, seq=1)
    assert await store.renew([other], lease_ms=1) == [None]
    assert await bench.dump() == before


async def test_a_write_after_entries_that_the_store_lost_is_a_gap(bench: Bench) -> None:
    """Who has seen more than there is abandons the attempt; nothing changes."""
    lease = await admitted(bench)
    before = await bench.dump()
    store = bench.store
    with pytest.raises(GapError):
        await store.append(lease, [run(0)], after=2, seq=1, progress=True)
    with pytest.raises(GapError):
        await store.complete(lease, [output()], after=2, seq=1, retention_ms=1, journal_retention_ms=1)
    with pytest.raises(GapError):
        await store.suspend(lease, [], after=2, seq=1, wake_in_ms=1)
    with pytest.raises(GapError):
        await store.back_off(lease, [], after=2, seq=1, retry_in_ms=1, failure="x")
    with pytest.raises(GapError):
        await store.give_up(lease, [], after=2, seq=1, failure="x")
    with pytest.raises(GapError):
        await store.release(lease, [], after=2, seq=1)
    assert await bench.dump() == before


async def test_the_outcome_ends_the_lease_and_is_what_everybody_is_told(bench: Bench) -> None:
    """Both who attached before and who looks afterwards get the one outcome."""
    lease = await admitted(bench, waiter=bench.keys.outcomes("c1"))
    other = bench.keys.outcomes("c2")
    assert await bench.store.attach(lease.invocation_id, other) == Status("running", None)
    failed = Output(9, Failure(409, 'no "more"', {"why": "sold out"}))
    concluded = await bench.store.complete(
        lease, [run(0), failed], after=1, seq=1, retention_ms=RETENTION_MS, journal_retention_ms=RETENTION_MS
    )
    assert concluded[:3] == ([], [], None)
    told = b'{"id":"%b","output":%b}' % (lease.invocation_id.encode(), encode(failed)[1])
    assert await bench.messages() == [(bench.keys.outcomes("c1"), told), (other, told)]
    assert await bench.store.attach(lease.invocation_id, other) == Status("completed", failed.outcome)
    assert [entry for _, _, entry in await bench.store.read_journal(lease.invocation_id, after=1)] == [run(0), failed]
    await bench.pass_ms(2 * LEASE_MS)
    assert await sweep_all(bench) == []


async def test_a_timer_that_nobody_waits_for_does_not_fire_after_the_outcome(bench: Bench) -> None:
    """Those named in `complete` leave `due` with it; one that was not named finds the outcome and does nothing."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS), sleep(1, MINUTE_MS)], after=1, seq=1, progress=False)
    await bench.store.complete(
        lease, [output()], after=3, seq=2, retention_ms=RETENTION_MS, journal_retention_ms=RETENTION_MS, timers=[0]
    )
    slot = bench.keys.of(lease.invocation_id).slot
    assert list((await bench.dump())[f"{{{slot}}}:due"]) == [f"sleep:{lease.invocation_id}:1"]  # type: ignore[call-overload]
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == []
    assert len(await bench.store.read_journal(lease.invocation_id)) == 4


async def test_a_completed_invocation_is_kept_and_then_forgotten(bench: Bench) -> None:
    """Result and journal each live for their time; afterwards nothing of it is left in the namespace."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=False)
    await bench.store.complete(
        lease, [output()], after=2, seq=2, retention_ms=20 * MINUTE_MS, journal_retention_ms=10 * MINUTE_MS
    )
    keys = {
        f"{{{bench.keys.of(lease.invocation_id).slot}}}:{kind}:{lease.invocation_id}"
        for kind in ("invocation", "journal")
    }
    assert (await bench.dump())["kept"] == keys
    await bench.pass_ms(15 * MINUTE_MS)
    assert await bench.store.read_journal(lease.invocation_id) == []
    assert await bench.store.attach(lease.invocation_id, "c") == Status("completed", Success(b'"done"'))
    await bench.pass_ms(10 * MINUTE_MS)
    assert await bench.store.attach(lease.invocation_id, "c") is None
    assert await bench.store.read_invocation(lease.invocation_id) is None
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_an_id_may_be_used_again_after_its_retention(bench: Bench) -> None:
    """Even where its journal is still kept: the new invocation has a journal of its own."""
    lease = await admitted(bench)
    await bench.store.complete(
        lease, [output()], after=1, seq=1, retention_ms=MINUTE_MS, journal_retention_ms=60 * MINUTE_MS
    )
    await bench.pass_ms(2 * MINUTE_MS)
    again = admission(lease.invocation_id, token="t9")
    assert isinstance(await bench.store.admit(again, lease_ms=LEASE_MS), Claimed)
    assert await bench.store.read_journal(lease.invocation_id) == [Positioned(1, 1, again.input)]
    assert (await bench.dump())["kept"] == set()


async def test_a_reply_is_handed_out_until_it_is_acknowledged(bench: Bench) -> None:
    """Retention waits for the acknowledgement, so that an outage of Kafka cannot outlast the outcome."""
    lease = await admitted(bench, reply_to="replies")
    await bench.store.complete(
        lease, [output()], after=1, seq=1, retention_ms=MINUTE_MS, journal_retention_ms=MINUTE_MS
    )
    assert (await bench.dump())["kept"] == set()
    assert await sweep_all(bench) == []
    for _ in range(3):
        await bench.pass_ms(5 * MINUTE_MS)
        assert await sweep_all(bench) == [ReplyDue(lease.invocation_id, ["replies"], Success(b'"done"'), [])]
        assert await sweep_all(bench) == []
    await bench.store.acknowledge(lease.invocation_id, reply=True)
    assert len((await bench.dump())["kept"]) == 2  # type: ignore[arg-type]  # a set
    assert [found.invocation_id for found in await bench.store.list_invocations("completed", invocations_max=9)] == [
        lease.invocation_id
    ]
    await bench.pass_ms(2 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_nothing_is_known_of_an_unknown_id(bench: Bench) -> None:
    """Every question and every act on it answers so and writes nothing."""
    nobody, store = new_id(), bench.store
    assert await store.read_invocation(nobody) is None
    assert await store.attach(nobody, "c") is None
    assert await store.read_journal(nobody) == []
    assert await store.claim(nobody, 0, token="t", worker="w", lease_ms=1, at_ms=1) is None
    await store.acknowledge(nobody, reply=True)
    assert await bench.dump() == {"kept": set()}


async def test_invocations_are_listed_newest_first(bench: Bench) -> None:
    """Over all slots, as many as asked for, and of one status."""
    leases = []
    for _ in range(5):
        leases.append(await admitted(bench))
        await bench.tick()
    await bench.store.give_up(leases[2], [], after=1, seq=1, failure="stuck")
    newest = [lease.invocation_id for lease in reversed(leases) if lease is not leases[2]]
    found = await bench.store.list_invocations("running", invocations_max=3)
    assert [summary.invocation_id for summary in found] == newest[:3]
    assert found[0].fields == await fields_of(bench, newest[0])
    paused = await bench.store.list_invocations("paused", invocations_max=3)
    assert [summary.invocation_id for summary in paused] == [leases[2].invocation_id]


async def test_workers_live_by_their_heartbeats(bench: Bench) -> None:
    """Each beat answers with all that live, sorted; who retires is gone at once."""
    assert await bench.store.heartbeat("w2", {"concurrency": "10"}) == ["w2"]
    assert await bench.store.heartbeat("w1", {}) == ["w1", "w2"]
    await bench.store.retire("w2")
    assert await bench.store.heartbeat("w1", {}) == ["w1"]


def test_both_stores_have_the_same_measures() -> None:
    """The simulation on the store in memory keeps the deadlines of the real one."""
    assert memory_slot.REPLY_LEASE_MS == redis_scripts.REPLY_LEASE_MS
    assert memory_sweep.SWEEP_MEMBERS_MAX == redis_scripts.SWEEP_MEMBERS_MAX
    assert memory_sweep.SWEEP_BYTES_MAX == redis_scripts.SWEEP_BYTES_MAX
    assert memory_reads.WORKER_LIFE_MS == redis_scripts.WORKER_LIFE_MS
    assert memory_promises.PROMISE_RETENTION_MS == redis_outside.PROMISE_RETENTION_MS
