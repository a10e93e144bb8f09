"""The store's contract: a sweep that may not end leases leaves them as they are, and does all else."""

from __future__ import annotations

import pytest

from perdure.journal.store import ALWAYS_MS, Swept
from perdure.schemas.ids import InvocationId

from .store_contract import LEASE_MS, MINUTE_MS, SLOTS, Bench, admission, admitted, claimed, fields_of, run, sleep


async def holding(bench: Bench, leases_until_ms: int = 0) -> list[Swept]:
    """Sweep every slot once without leave to end leases."""
    return [await bench.store.sweep(slot, leases_until_ms=leases_until_ms) for slot in range(SLOTS)]


def told(sweeps: list[Swept]) -> list[InvocationId]:
    """Whom the sweeps found."""
    return sorted(due.invocation_id for swept in sweeps for due in swept.due)


async def test_a_held_lease_goes_on_as_if_it_had_not_ended(bench: Bench) -> None:
    """The attempt appends and renews; nothing of a failure is in the journal, and nothing is due at once."""
    lease = await admitted(bench)
    await bench.pass_ms(LEASE_MS)
    for _ in range(2):
        sweeps = await holding(bench)
        assert [(swept.due, swept.next_in_ms) for swept in sweeps] == [([], None)] * SLOTS
    assert (await bench.store.append(lease, [run(0)], after=1, seq=1, progress=True)).length == 2
    assert await bench.store.renew([lease], lease_ms=LEASE_MS) == [2]
    assert told(await holding(bench, ALWAYS_MS)) == []
    assert (await fields_of(bench, lease.invocation_id))["status"] == "running"


async def test_a_held_lease_that_nobody_renews_is_ended_by_the_next_sweep_that_may(bench: Bench) -> None:
    """Whoever makes it; the attempt of before is fenced from the next claim on."""
    lease = await admitted(bench)
    await bench.pass_ms(LEASE_MS)
    await holding(bench)
    assert told(await holding(bench, ALWAYS_MS)) == [lease.invocation_id]
    assert (await claimed(bench, lease)).lease.epoch == 2


async def test_leave_is_judged_by_the_stores_clock_at_the_sweep(bench: Bench) -> None:
    """A sweep that comes late, because it waited through an outage, ends nothing; one in time does."""
    lease = await admitted(bench)
    until_ms = await bench.now_ms() + MINUTE_MS
    await bench.pass_ms(LEASE_MS)
    # Redis's own clock goes on by itself only: there the deadline came nearer.
    asked_ms = (await bench.store.sweep(0, leases_until_ms=0)).at_ms
    assert told(await holding(bench, asked_ms - 1)) == []
    assert told(await holding(bench, max(until_ms, asked_ms + MINUTE_MS))) == [lease.invocation_id]


async def test_the_store_tells_its_time(bench: Bench) -> None:
    """Every sweep says when it was done."""
    before_ms = await bench.now_ms()
    (first, second) = await holding(bench)
    assert before_ms <= first.at_ms <= second.at_ms <= await bench.now_ms()


async def test_the_leases_of_a_dead_worker_are_not_held(bench: Bench) -> None:
    """What was ended on purpose is made ready by the next sweep, beside others that are held."""
    reported = [await admitted(bench, worker="dead") for _ in range(3)]
    await admitted(bench, worker="silent")
    await bench.pass_ms(LEASE_MS)
    assert await bench.store.expire("dead") == 3
    assert told(await holding(bench)) == sorted(lease.invocation_id for lease in reported)
    assert told(await holding(bench)) == []


@pytest.mark.parametrize("held", [1, 150])
async def test_held_leases_hide_no_other_deadlines(bench: Bench, held: int) -> None:
    """More of them than a sweep takes: what fell due after them is done all the same, as many as without them."""
    ids = [InvocationId(f"inv_000{number:024d}") for number in range(held + 1)]
    leases = [await admitted(bench, invocation_id=invocation_id) for invocation_id in ids]
    slot = bench.keys.of(ids[0]).slot
    assert {bench.keys.of(invocation_id).slot for invocation_id in ids} == {slot}
    timers = [sleep(index, LEASE_MS + MINUTE_MS) for index in range(120)]
    await bench.store.append(leases[0], timers, after=1, seq=1, progress=True)
    await bench.pass_ms(LEASE_MS + 2 * MINUTE_MS)
    first, second = [await bench.store.sweep(slot, leases_until_ms=0) for _ in range(2)]
    assert (len(first.due), first.next_in_ms) == (100, 0)
    assert (len(second.due), second.next_in_ms) == (20, None)


async def test_the_next_deadline_is_the_one_after_the_held(bench: Bench) -> None:
    """Else a sweeper would look again at once, for as long as leases are held."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, LEASE_MS + 5 * MINUTE_MS)], after=1, seq=1, progress=True)
    await bench.pass_ms(LEASE_MS)
    (left_ms,) = [swept.next_in_ms for swept in await holding(bench) if swept.next_in_ms is not None]
    assert 4 * MINUTE_MS < left_ms <= 5 * MINUTE_MS
    starts_ms = await bench.now_ms() + MINUTE_MS
    await bench.store.admit(admission(not_before_ms=starts_ms), lease_ms=LEASE_MS)
    assert min(swept.next_in_ms for swept in await holding(bench) if swept.next_in_ms is not None) <= MINUTE_MS


async def test_a_crowd_that_is_ready_is_given_the_time_of_those_before_it(bench: Bench) -> None:
    """Behind many others an invocation is not produced again as early as if it were alone: its record is on its way."""
    leases = [await admitted(bench, invocation_id=InvocationId(f"inv_000{number:024x}")) for number in range(30)]
    for lease in leases:
        await bench.store.release(lease, [], after=1, seq=1)
    waits = [int((await fields_of(bench, lease.invocation_id))["redelivery"]) for lease in leases]
    assert waits == [10_000 + 100 * number for number in range(30)]
    await bench.pass_ms(2_000)
    assert told(await holding(bench)) == []
    await bench.pass_ms(MINUTE_MS)
    assert told(await holding(bench)) == [lease.invocation_id for lease in leases]
    assert (await fields_of(bench, leases[-1].invocation_id))["redelivery"] == "25800"
