"""The store's contract: what people do to an invocation without its handler: kill, pause, resume, purge."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.journal.store import Caller, CascadeDue, Delivery, Due, HintDue, Lease, ReplyDue, ResumeDue
from perdure.schemas.commands import SetState
from perdure.schemas.entries import Failure, Output, PauseAsked, Paused, Resumed, Success
from perdure.schemas.errors import FencedError

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admission,
    admitted,
    claimed,
    completed,
    entries_of,
    fields_of,
    new_id,
    run,
    sleep,
    suspended,
    sweep_all,
)

KILLED = Output(5, Failure(500, "killed", {}))
EXCLUSIVE: dict[str, Any] = {"key": "k", "mode": "exclusive"}


async def test_killing_records_the_outcome_and_keeps_the_attempt_out(bench: Bench) -> None:
    """Whatever the handler does; its worker is hinted, and finds itself fenced."""
    waiter, waiting = bench.keys.outcomes("c1"), Caller(new_id(), 3, 7)
    lease = await admitted(bench, waiter=waiter, reply_to="replies", caller=str(waiting))
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    answer = await bench.store.kill(lease.invocation_id, KILLED)
    reply = ReplyDue(lease.invocation_id, ["replies"], KILLED.outcome, [waiting])
    assert answer == Delivery("delivered", [reply, CascadeDue(lease.invocation_id)])
    assert [channel for channel, _ in await bench.messages()] == [waiter, bench.keys.hints("w1")]
    assert (await fields_of(bench, lease.invocation_id))["status"] == "completed"
    assert (await entries_of(bench, lease.invocation_id))[-1] == KILLED
    with pytest.raises(FencedError):
        await bench.store.append(lease, [run(1)], after=3, seq=2, progress=True)
    with pytest.raises(FencedError):
        await completed(bench, lease, after=3, seq=2)
    assert await bench.store.renew([lease], lease_ms=LEASE_MS) == [None]
    before = await bench.dump()
    again = Delivery("unchanged", (CascadeDue(lease.invocation_id),), "completed")
    assert await bench.store.kill(lease.invocation_id, KILLED) == again
    assert await bench.dump() == before


async def test_killing_goes_on_to_its_callees(bench: Bench) -> None:
    """The next sweep asks for it, and those after it until it is acknowledged; then nothing is left in the end."""
    lease = await suspended(bench)
    await bench.store.kill(lease.invocation_id, KILLED)
    for _ in range(2):
        assert await sweep_all(bench) == [CascadeDue(lease.invocation_id)]
        assert await sweep_all(bench) == []
        await bench.pass_ms(MINUTE_MS)
    assert (await bench.dump())["kept"] == set()
    for _ in range(2):
        await bench.store.acknowledge(lease.invocation_id, cascade=True)
        assert await bench.store.kill(lease.invocation_id, KILLED) == Delivery("unchanged", status="completed")
    await bench.pass_ms(61 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_killing_the_holder_of_an_object_lets_the_next_one_in(bench: Bench) -> None:
    """And one that waits leaves the queue."""
    first = await admitted(bench, **EXCLUSIVE)
    waiting = [admission(**EXCLUSIVE) for _ in range(2)]
    for asked in waiting:
        await bench.store.admit(asked, lease_ms=LEASE_MS)
    second, third = (asked.invocation_id for asked in waiting)
    reply = ReplyDue(second, [], KILLED.outcome, [])
    assert await bench.store.kill(second, KILLED) == Delivery("delivered", [reply, CascadeDue(second)])
    reply = ReplyDue(first.invocation_id, [], KILLED.outcome, [])
    following = ResumeDue(third, 0, "Greeter")
    due: list[Due] = [reply, following, CascadeDue(first.invocation_id)]
    assert await bench.store.kill(first.invocation_id, KILLED) == Delivery("delivered", due)


@pytest.mark.parametrize("status", ["scheduled", "suspended", "backing-off", "paused", "ready"])
async def test_anything_that_has_no_outcome_can_be_killed(bench: Bench, status: str) -> None:
    """Its deadlines do nothing any more."""
    starts_ms = await bench.now_ms() + MINUTE_MS if status == "scheduled" else 0
    asked = admission(not_before_ms=starts_ms)
    await bench.store.admit(asked, lease_ms=LEASE_MS)
    await leave(bench, Lease(asked.invocation_id, 1, "t1", "w1"), status)
    assert (await bench.store.kill(asked.invocation_id, KILLED)).result == "delivered"
    await bench.store.acknowledge(asked.invocation_id, cascade=True)
    await bench.pass_ms(30 * MINUTE_MS)
    assert await sweep_all(bench) == []
    assert (await fields_of(bench, asked.invocation_id))["status"] == "completed"


async def leave(bench: Bench, lease: Lease, status: str) -> None:
    """Have the first attempt of an invocation leave it in that status."""
    if status == "suspended":
        await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=MINUTE_MS)
    elif status == "backing-off":
        await bench.store.back_off(lease, [], after=1, seq=1, retry_in_ms=MINUTE_MS, failure="x")
    elif status == "paused":
        await bench.store.give_up(lease, [], after=1, seq=1, failure="x")
    elif status == "ready":
        await bench.store.release(lease, [], after=1, seq=1)


@pytest.mark.parametrize("status", ["suspended", "backing-off", "ready"])
async def test_pausing_stops_at_once_what_does_not_run(bench: Bench, status: str) -> None:
    """No deadline starts it again, only a person; what comes meanwhile is kept in the journal."""
    lease = await admitted(bench)
    await leave(bench, lease, status)
    for expected in (Delivery("delivered", []), Delivery("unchanged", status="paused")):
        assert await bench.store.pause(lease.invocation_id, at_ms=6, reason="look") == expected
    assert await bench.store.claim(lease.invocation_id, 1, token="t", worker="w", lease_ms=9, at_ms=1) is None
    await bench.pass_ms(30 * MINUTE_MS)
    assert await sweep_all(bench) == []
    assert await bench.store.resume(lease.invocation_id, at_ms=8) == Delivery(
        "delivered", [ResumeDue(lease.invocation_id, 1, "Greeter")]
    )
    assert await entries_of(bench, lease.invocation_id) == [Paused(6, "look"), Resumed(8)]
    assert (await claimed(bench, lease)).failures == 0
    assert await bench.store.resume(lease.invocation_id, at_ms=9) == Delivery("unchanged", status="running")


async def test_pausing_asks_the_attempt_that_runs(bench: Bench) -> None:
    """Once an attempt, however often it is asked; its worker is hinted each time."""
    lease = await admitted(bench)
    hint = Delivery("delivered", [HintDue("w1", lease.invocation_id)])
    for _ in range(2):
        assert await bench.store.pause(lease.invocation_id, at_ms=6, reason="look") == hint
    assert await entries_of(bench, lease.invocation_id) == [PauseAsked(6)]
    assert len(await bench.messages()) == 2
    await bench.store.give_up(lease, [Paused(7, "asked")], after=2, seq=1, failure="")
    await bench.store.resume(lease.invocation_id, at_ms=8)
    await claimed(bench, lease)
    await bench.store.pause(lease.invocation_id, at_ms=9, reason="look")
    assert (await entries_of(bench, lease.invocation_id))[-1] == PauseAsked(9)


async def test_an_object_stays_held_while_its_holder_is_paused(bench: Bench) -> None:
    """A person looks at it: nobody else may change its state meanwhile."""
    first = await admitted(bench, **EXCLUSIVE)
    second = admission(**EXCLUSIVE)
    await bench.store.admit(second, lease_ms=LEASE_MS)
    await leave(bench, first, "suspended")
    await bench.store.pause(first.invocation_id, at_ms=6, reason="look")
    assert (await bench.store.pause(second.invocation_id, at_ms=6, reason="x")) == Delivery(
        "unchanged", status="pending"
    )
    assert await bench.store.edit_state("Greeter/k", [("a", b"1")]) == first.invocation_id
    await bench.store.resume(first.invocation_id, at_ms=7)
    claim = await claimed(bench, first)
    assert (await completed(bench, claim.lease, after=4)).following == ResumeDue(second.invocation_id, 0, "Greeter")


async def test_nobody_can_do_anything_to_what_is_over_or_unknown(bench: Bench) -> None:
    """Each answers what it is, and writes nothing."""
    lease = await admitted(bench)
    await completed(bench, lease)
    before = await bench.dump()
    over, unknown = Delivery("unchanged", status="completed"), Delivery("unknown")
    for who, expected in ((lease.invocation_id, over), (new_id(), unknown)):
        assert await bench.store.kill(who, KILLED) == expected
        assert await bench.store.pause(who, at_ms=1, reason="x") == expected
        assert await bench.store.resume(who, at_ms=1) == expected
    assert await bench.store.purge(new_id()) == unknown
    assert await bench.dump() == before


async def test_what_is_purged_leaves_nothing_behind(bench: Bench) -> None:
    """Not a key, nor its place in an index; again it is not known."""
    lease = await admitted(bench)
    await bench.store.append(lease, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    assert await bench.store.purge(lease.invocation_id) == Delivery("unchanged", status="running")
    await completed(bench, lease, after=2, seq=2)
    assert await bench.store.purge(lease.invocation_id) == Delivery("delivered", [])
    assert await bench.store.purge(lease.invocation_id) == Delivery("unknown")
    await bench.pass_ms(2 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_a_workflow_is_purged_with_its_state_and_promises(bench: Bench) -> None:
    """An object keeps its state: that belongs to the key."""
    for mode, left in (("main", 0), ("exclusive", 1)):
        lease = await admitted(bench, key=mode, mode=mode)
        await bench.store.append(lease, [SetState(0, "a", b"1")], after=1, seq=1, progress=True)
        if mode == "main":
            await bench.store.complete_promise(f"Greeter/{mode}", "p", Success(b"1"), by="me")
        await completed(bench, lease, after=2, seq=2)
        assert (await bench.store.purge(lease.invocation_id)).result == "delivered"
        keys = [key for key in await bench.dump() if key != "kept"]
        assert len(keys) == left


async def test_what_somebody_still_waits_for_is_not_purged(spread_bench: Bench) -> None:
    """Its callers would wait for ever; once they are told it goes."""
    bench = spread_bench
    lease = await admitted(bench, caller=str(Caller(new_id(), 3, 7)))
    await completed(bench, lease)
    assert await bench.store.purge(lease.invocation_id) == Delivery("unchanged", status="completed")
    await bench.store.acknowledge(lease.invocation_id, reply=True)
    assert (await bench.store.purge(lease.invocation_id)).result == "delivered"
    assert await bench.dump() == {"kept": set()}
