"""The store's contract: claims, leases, and the ways in which an attempt leaves without an outcome."""

from __future__ import annotations

import asyncio

import pytest

from perdure.journal.store import Appended, Lease
from perdure.schemas.entries import AttemptFailed, AttemptStarted, Completion, Paused, Positioned, Success
from perdure.schemas.errors import FencedError

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admitted,
    claimed,
    fields_of,
    output,
    run,
    sleep,
    sweep_all,
)


async def released(bench: Bench, **changes: object) -> Lease:
    """An invocation that its first attempt handed on."""
    lease = await admitted(bench, **changes)
    await bench.store.release(lease, [run(0)], after=1, seq=1)
    return lease


async def test_a_claim_brings_all_that_an_attempt_starts_from(bench: Bench) -> None:
    """The journal is whole, and ends with the new attempt's own entry."""
    lease = await released(bench, key="k", idempotency_key="i")
    claim = await bench.store.claim(lease.invocation_id, 1, token="t2", worker="w2", lease_ms=LEASE_MS, at_ms=77)
    assert claim is not None
    assert claim.lease == Lease(lease.invocation_id, 2, "t2", "w2", "Greeter/k")
    assert (claim.service, claim.handler, claim.key, claim.idempotency_key) == ("Greeter", "greet", "k", "i")
    assert abs(claim.admitted_at_ms - await bench.now_ms()) < MINUTE_MS
    assert list(claim.entries)[1:] == [Positioned(2, 1, run(0)), Positioned(3, 2, AttemptStarted(77, "w2"))]
    assert await bench.store.append(claim.lease, [run(1)], after=3, seq=1, progress=True) == Appended(4, None)


async def test_a_long_journal_is_claimed_whole(bench: Bench) -> None:
    """Also where it comes in several pages."""
    lease = await admitted(bench)
    for seq in range(1, 9):
        steps = [run(index) for index in range((seq - 1) * 400, seq * 400)]
        await bench.store.append(lease, steps, after=1 + (seq - 1) * 400, seq=seq, progress=True)
    await bench.store.release(lease, [], after=3201, seq=9)
    claim = await claimed(bench, lease)
    assert [position for position, _, _ in claim.entries] == list(range(1, 3203))


async def test_one_of_two_claimers_gets_it(bench: Bench) -> None:
    """The claim is a compare-and-set: a resume record that is delivered twice starts one attempt."""
    lease = await released(bench)
    claims = await asyncio.gather(
        *(
            bench.store.claim(lease.invocation_id, 1, token=token, worker=token, lease_ms=LEASE_MS, at_ms=2)
            for token in ("a", "b", "c")
        )
    )
    winners = [claim for claim in claims if claim is not None]
    assert len(winners) == 1
    assert (await fields_of(bench, lease.invocation_id))["token"] == winners[0].lease.token


@pytest.mark.parametrize("epoch", [0, 2, 3])
async def test_a_stale_resume_record_is_dropped(bench: Bench, epoch: int) -> None:
    """A record that ends another epoch than the one in force claims nothing."""
    lease = await released(bench)
    before = await bench.dump()
    answer = await bench.store.claim(lease.invocation_id, epoch, token="t2", worker="w2", lease_ms=LEASE_MS, at_ms=2)
    assert answer is None
    assert await bench.dump() == before


async def test_what_is_not_ready_cannot_be_claimed(bench: Bench) -> None:
    """Running, suspended, backing off, paused, completed: each refuses, with the right epoch too."""
    store = bench.store
    leases = [await admitted(bench) for _ in range(5)]
    await store.suspend(leases[1], [], after=1, seq=1, wake_in_ms=None)
    await store.back_off(leases[2], [], after=1, seq=1, retry_in_ms=MINUTE_MS, failure="x")
    await store.give_up(leases[3], [], after=1, seq=1, failure="x")
    await store.complete(leases[4], [output()], after=1, seq=1, retention_ms=LEASE_MS, journal_retention_ms=LEASE_MS)
    before = await bench.dump()
    for lease in leases:
        claim = await store.claim(lease.invocation_id, 1, token="t2", worker="w2", lease_ms=LEASE_MS, at_ms=2)
        assert claim is None
    assert await bench.dump() == before


async def test_a_lease_that_ends_is_a_failed_attempt(bench: Bench) -> None:
    """Not before its time; then the journal says who stopped answering, and any worker may go on."""
    lease = await admitted(bench)
    await bench.pass_ms(9 * MINUTE_MS)
    assert await sweep_all(bench) == []
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [(lease.invocation_id, 1, "Greeter")]
    fields = await fields_of(bench, lease.invocation_id)
    assert (fields["status"], fields["failures"]) == ("ready", "1")
    claim = await claimed(bench, lease)
    assert claim.failures == 1
    failed = claim.entries[1]
    assert failed[:2] == (2, 1)
    assert isinstance(failed.entry, AttemptFailed)
    assert failed.entry.error == fields["last_failure"] == "worker w1 stopped answering and its lease ended"


async def test_an_odd_worker_name_does_not_spoil_the_journal(bench: Bench) -> None:
    """Quotes, backslashes and control characters in a name are told as they are."""
    name = 'w"\\1\n\x01é'
    lease = await admitted(bench, worker=name)
    await bench.pass_ms(LEASE_MS)
    await sweep_all(bench)
    claim = await claimed(bench, lease, worker=name)
    failed, started = (entry for _, _, entry in list(claim.entries)[1:])
    assert isinstance(failed, AttemptFailed)
    assert failed.error == f"worker {name} stopped answering and its lease ended"
    assert started == AttemptStarted(2, name)


async def test_a_renewed_lease_does_not_end(bench: Bench) -> None:
    """Each renewal answers with the journal's length, and the time runs from it anew."""
    lease, gone = await admitted(bench), await admitted(bench)
    await bench.store.append(lease, [run(0)], after=1, seq=1, progress=True)
    await bench.store.give_up(gone, [], after=1, seq=1, failure="x")
    for _ in range(3):
        await bench.pass_ms(9 * MINUTE_MS)
        assert await bench.store.renew([gone, lease], lease_ms=LEASE_MS) == [None, 2]
        assert await sweep_all(bench) == []
    assert await bench.store.renew([], lease_ms=LEASE_MS) == []


async def test_a_lease_that_nobody_else_claimed_is_taken_up_again(bench: Bench) -> None:
    """A worker that froze for too long goes on where it was; the resume record then finds it running."""
    lease = await admitted(bench)
    await bench.pass_ms(LEASE_MS)
    await sweep_all(bench)
    assert await bench.store.renew([lease], lease_ms=LEASE_MS) == [2]
    assert await bench.store.claim(lease.invocation_id, 1, token="t2", worker="w2", lease_ms=1, at_ms=2) is None
    answer = await bench.store.append(lease, [run(0)], after=1, seq=1, progress=False)
    assert [position for position, _, _ in answer.tail or ()] == [2, 3]
    await bench.pass_ms(LEASE_MS - MINUTE_MS)
    assert await sweep_all(bench) == []


async def test_a_lease_that_another_one_claimed_is_lost(bench: Bench) -> None:
    """The zombie's renewal answers so, and its first append is refused."""
    lease = await admitted(bench)
    await bench.pass_ms(LEASE_MS)
    await sweep_all(bench)
    claim = await claimed(bench, lease)
    assert await bench.store.renew([lease, claim.lease], lease_ms=LEASE_MS) == [None, 3]
    with pytest.raises(FencedError):
        await bench.store.append(lease, [run(0)], after=1, seq=1, progress=True)


@pytest.mark.parametrize("way", ["release", "suspend"])
async def test_a_renewal_that_comes_late_does_not_hold_what_was_left(bench: Bench, way: str) -> None:
    """Renewals leave from another thread: one that passes its attempt's own departure must not take it up again."""
    lease = await admitted(bench)
    if way == "release":
        await bench.store.release(lease, [], after=1, seq=1)
    else:
        await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=0)
        await sweep_all(bench)
    assert (await fields_of(bench, lease.invocation_id))["status"] == "ready"
    assert await bench.store.renew([lease], lease_ms=LEASE_MS) == [None]
    assert (await claimed(bench, lease)).lease.epoch == 2


async def test_the_leases_of_a_dead_worker_end_at_once(bench: Bench) -> None:
    """Its own and nobody else's; what it had left already is not touched."""
    mine = [await admitted(bench, worker="dead") for _ in range(3)]
    left = await admitted(bench, worker="dead")
    await bench.store.give_up(left, [], after=1, seq=1, failure="x")
    await admitted(bench, worker="alive")
    assert await bench.store.expire("dead") == 3
    assert await bench.store.expire("nobody") == 0
    due = await sweep_all(bench)
    assert sorted(due) == sorted((lease.invocation_id, 1, "Greeter") for lease in mine)
    assert await bench.store.expire("dead") == 0


async def test_a_released_invocation_is_ready_with_the_same_epoch(bench: Bench) -> None:
    """No failure is counted, and what was given with it is in the journal."""
    lease = await released(bench)
    fields = await fields_of(bench, lease.invocation_id)
    assert (fields["status"], fields["epoch"], fields.get("failures", "0")) == ("ready", "1", "0")
    assert await sweep_all(bench) == []
    assert (await claimed(bench, lease)).entries[1] == Positioned(2, 1, run(0))


async def test_an_invocation_that_nobody_claims_is_produced_again(bench: Bench) -> None:
    """After ten seconds, then doubling up to an hour; a claim ends it."""
    lease = await released(bench)
    for seconds in (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600):
        # Grace before each deadline: the real store's time goes on by itself.
        await bench.pass_ms(seconds * 1_000 - 8_000)
        assert await sweep_all(bench) == []
        await bench.pass_ms(8_000)
        assert await sweep_all(bench) == [(lease.invocation_id, 1, "Greeter")]
    claim = await claimed(bench, lease)
    assert await bench.store.renew([claim.lease], lease_ms=200 * MINUTE_MS) == [3]
    await bench.pass_ms(120 * MINUTE_MS)
    assert await sweep_all(bench) == []


async def test_a_retry_is_never_early(bench: Bench) -> None:
    """The failure is counted and told; the sweep before the deadline does nothing."""
    lease = await admitted(bench)
    told = AttemptFailed(5, "boom", "", "", 5 * MINUTE_MS)
    await bench.store.back_off(lease, [told], after=1, seq=1, retry_in_ms=5 * MINUTE_MS, failure="boom")
    fields = await fields_of(bench, lease.invocation_id)
    assert (fields["status"], fields["failures"], fields["last_failure"]) == ("backing-off", "1", "boom")
    await bench.pass_ms(4 * MINUTE_MS)
    assert await sweep_all(bench) == []
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [(lease.invocation_id, 1, "Greeter")]
    assert (await claimed(bench, lease)).entries[1].entry == told


async def test_a_paused_invocation_waits_for_an_operator(bench: Bench) -> None:
    """Its lease is gone and nothing falls due, yet a timer that fires in the meantime is recorded."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    await bench.store.give_up(lease, [Paused(5, "diverged")], after=2, seq=2, failure="diverged")
    assert (await fields_of(bench, lease.invocation_id))["last_failure"] == "diverged"
    await bench.pass_ms(3 * LEASE_MS)
    assert await sweep_all(bench) == []
    assert (await fields_of(bench, lease.invocation_id))["status"] == "paused"
    assert isinstance((await bench.store.read_journal(lease.invocation_id))[-1].entry, Completion)


async def test_a_timer_wakes_what_is_suspended(bench: Bench) -> None:
    """Not early, and once: the completion is in the journal when the next attempt reads it."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, 30 * MINUTE_MS)], after=1, seq=1, progress=True)
    assert await bench.store.suspend(lease, [], after=2, seq=2, wake_in_ms=None) is None
    await bench.pass_ms(29 * MINUTE_MS)
    assert await sweep_all(bench) == []
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [(lease.invocation_id, 1, "Greeter")]
    claim = await claimed(bench, lease)
    completions = [entry for _, _, entry in claim.entries if isinstance(entry, Completion)]
    assert [(entry.command_index, entry.outcome) for entry in completions] == [(0, Success(b"null"))]
    assert await sweep_all(bench) == []


async def test_a_timer_of_what_is_backing_off_waits_for_the_retry(bench: Bench) -> None:
    """It is recorded, and the retry keeps its own time."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    await bench.store.back_off(lease, [], after=2, seq=2, retry_in_ms=5 * MINUTE_MS, failure="x")
    await bench.pass_ms(2 * MINUTE_MS)
    assert await sweep_all(bench) == []
    assert len(await bench.store.read_journal(lease.invocation_id)) == 3
    await bench.pass_ms(3 * MINUTE_MS)
    assert await sweep_all(bench) == [(lease.invocation_id, 1, "Greeter")]


@pytest.mark.parametrize("way", ["back off", "pause", "release", "suspend"])
async def test_a_timer_that_is_asked_for_while_leaving_fires(bench: Bench, way: str) -> None:
    """A handler may fail in the very moment in which it asked for a timer; the replay finds it and waits for it."""
    lease = await admitted(bench)
    asked = [sleep(0, 5 * MINUTE_MS)]
    match way:
        case "back off":
            await bench.store.back_off(lease, asked, after=1, seq=1, retry_in_ms=0, failure="x")
        case "pause":
            await bench.store.give_up(lease, asked, after=1, seq=1, failure="x")
        case "release":
            await bench.store.release(lease, asked, after=1, seq=1)
        case _:
            await bench.store.suspend(lease, asked, after=1, seq=1, wake_in_ms=None)
    await bench.pass_ms(4 * MINUTE_MS)
    await sweep_all(bench)
    assert len(await bench.store.read_journal(lease.invocation_id)) == 2
    await bench.pass_ms(MINUTE_MS)
    await sweep_all(bench)
    last = (await bench.store.read_journal(lease.invocation_id))[-1].entry
    assert isinstance(last, Completion)
    assert last.command_index == 0


async def test_a_suspension_may_set_its_own_wake_up(bench: Bench) -> None:
    """The wake-up is not early; where something else wakes it first, it does not wake the next attempt."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    await bench.store.suspend(lease, [], after=2, seq=2, wake_in_ms=5 * MINUTE_MS)
    await bench.pass_ms(MINUTE_MS)
    assert len(await sweep_all(bench)) == 1
    claim = await claimed(bench, lease)
    assert await bench.store.suspend(claim.lease, [], after=4, seq=1, wake_in_ms=20 * MINUTE_MS) is None
    await bench.pass_ms(10 * MINUTE_MS)
    assert await sweep_all(bench) == []
    await bench.pass_ms(10 * MINUTE_MS)
    assert await sweep_all(bench) == [(lease.invocation_id, 2, "Greeter")]


async def test_no_suspension_where_something_arrived(bench: Bench) -> None:
    """What arrived comes back instead, the attempt stays, and its given entries are not written."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    await bench.pass_ms(MINUTE_MS)
    await sweep_all(bench)
    before = await bench.dump()
    answer = await bench.store.suspend(lease, [run(1)], after=2, seq=2, wake_in_ms=1)
    assert answer is not None
    assert answer.length == 3
    assert [position for position, _, _ in answer.tail or ()] == [3]
    assert await bench.dump() == before
    assert await bench.store.append(lease, [run(1)], after=3, seq=2, progress=True) == Appended(4, None)


async def test_a_running_worker_is_told_of_a_timer(bench: Bench) -> None:
    """By a hint on its channel and in the sweep's answer; a hint may be lost, the completion may not."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [("w1", lease.invocation_id)]
    assert await bench.messages() == [(bench.keys.hints("w1"), lease.invocation_id.encode())]
    assert await sweep_all(bench) == []


async def test_the_time_to_the_next_deadline_is_told(bench: Bench) -> None:
    """`None` where there is none, and 0 or more where there is one, however late the sweep."""
    assert (await bench.store.sweep(0)).next_in_ms is None
    lease = await admitted(bench)
    slot = bench.keys.of(lease.invocation_id).slot
    left = (await bench.store.sweep(slot)).next_in_ms
    assert left is not None
    assert LEASE_MS - MINUTE_MS < left <= LEASE_MS
    await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=None)
    assert (await bench.store.sweep(slot)).next_in_ms is None


async def test_a_sweep_is_bounded_and_the_next_one_goes_on(bench: Bench) -> None:
    """A crowd of deadlines is done in pieces; while there is more the next one is due at once."""
    lease = await admitted(bench)
    timers = [sleep(index, MINUTE_MS) for index in range(150)]
    await bench.store.append(lease, timers, after=1, seq=1, progress=True)
    await bench.pass_ms(2 * MINUTE_MS)
    slot = bench.keys.of(lease.invocation_id).slot
    first, second = await bench.store.sweep(slot), await bench.store.sweep(slot)
    assert (len(first.due), first.next_in_ms, len(second.due)) == (100, 0, 50)
    assert second.next_in_ms is not None
    assert second.next_in_ms > 0


async def test_an_older_worker_leaves_a_deadline_alone_that_it_does_not_know(bench: Bench) -> None:
    """What a newer version put into `due` neither stops the sweep nor is lost."""
    lease = await admitted(bench)
    slot, unknown = bench.keys.of(lease.invocation_id).slot, f"outbox:{lease.invocation_id}:3"
    await bench.plant(slot, unknown)
    await bench.plant(slot, f"lease:{lease.invocation_id}")
    assert await sweep_all(bench) == [(lease.invocation_id, 1, "Greeter")]
    assert await sweep_all(bench) == []
    assert unknown in (await bench.dump())[f"{{{slot}}}:due"]  # type: ignore[operator]  # members by score
