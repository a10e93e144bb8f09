"""The store's contract: invocations whose journal has begun, and deadlines that clients hasten."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.journal.store import (
    Caller,
    CascadeDue,
    Claimed,
    Delivery,
    HintDue,
    OutgoingDue,
    ReplyDue,
    Restart,
    ResumeDue,
)
from perdure.schemas.commands import Send
from perdure.schemas.entries import Completion, Failure, Input, Output, Resumed, Signalled, Success
from perdure.schemas.ids import InvocationId

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admission,
    admitted,
    answered,
    completed,
    entries_of,
    fields_of,
    new_id,
    run,
    suspended,
    sweep_all,
)

INPUT = Input(7, "w1", (("a", b"b"),), b'{"n":1}')
EXCLUSIVE: dict[str, Any] = {"key": "k", "mode": "exclusive"}


def restart(invocation_id: InvocationId, **changes: Any) -> Restart:
    """What a test restarts."""
    return Restart(invocation_id, "Greeter", "greet", changes.pop("key", None), INPUT, **changes)


async def test_what_is_kept_is_replayed_by_the_first_attempt(bench: Bench) -> None:
    """It is ready, and whoever claims it has the input and everything that was kept."""
    new = new_id()
    kept = (run(0), Signalled("go", 3, Success(b"1")), run(1))
    answer = await bench.store.restart(restart(new, kept=kept, source="restart of another"))
    assert answer == Delivery("delivered", [ResumeDue(new, 0, "Greeter")])
    fields = await fields_of(bench, new)
    assert (fields["status"], fields["length"], fields["source"]) == ("ready", "4", "restart of another")
    claim = await bench.store.claim(new, 0, token="t", worker="w", lease_ms=LEASE_MS, at_ms=9)
    assert claim is not None
    assert [row.entry for row in claim.entries][:4] == [INPUT, *kept]
    assert (claim.handler, claim.source, claim.failures) == ("greet", "restart of another", 0)
    await bench.store.append(claim.lease, [run(2)], after=5, seq=1, progress=True)
    assert [row.position for row in await bench.store.read_journal(new)] == [1, 2, 3, 4, 5, 6]


async def test_a_repeat_changes_nothing(bench: Bench) -> None:
    """The same id is one invocation."""
    new = new_id()
    await bench.store.restart(restart(new))
    before = await bench.dump()
    await bench.tick()
    assert await bench.store.restart(restart(new, kept=(run(0),))) == Delivery("known")
    assert await bench.dump() == before


async def test_a_restart_waits_for_its_object(bench: Bench) -> None:
    """In the queue, which has a bound."""
    holder = await admitted(bench, **EXCLUSIVE)
    first, second = new_id("k"), new_id("k")
    waiting = await bench.store.restart(restart(first, **EXCLUSIVE))
    assert (waiting.result, list(waiting.due)) == ("delivered", [])
    assert (await fields_of(bench, first))["status"] == "pending"
    assert await bench.store.restart(restart(second, queue_max=1, **EXCLUSIVE)) == Delivery("full")
    assert await bench.store.read_invocation(second) is None
    assert (await completed(bench, holder)).following == ResumeDue(first, 0, "Greeter")
    assert await entries_of(bench, first, after=0) == [INPUT]


async def test_what_is_hastened_is_done_by_the_next_sweep(bench: Bench) -> None:
    """Resume records, replies and what is sent, instead of after their lease."""
    lease = await admitted(bench)
    await bench.store.give_up(lease, [], after=1, seq=1, failure="no")
    resumed = await bench.store.resume(lease.invocation_id, at_ms=1)
    caller = Caller(new_id(), 0, 2)
    other = await admitted(bench, caller=str(caller))
    killed = await bench.store.kill(other.invocation_id, Output(1, Failure(409, "killed")))
    sender = await admitted(bench)
    send = Send(0, 1, "Greeter", "greet", None, new_id(), "", (), 0, b"")
    await bench.store.append(sender, [send], after=1, seq=1, progress=True)
    cascade = CascadeDue(other.invocation_id)
    outgoing = OutgoingDue(sender.invocation_id, 2, send)
    await sweep_all(bench)
    await bench.tick()
    assert await sweep_all(bench) == []
    for _ in range(2):
        await bench.store.hasten([*resumed.due, *killed.due, outgoing, cascade])
    reply = ReplyDue(other.invocation_id, [], Failure(409, "killed"), [caller])
    found = await sweep_all(bench)
    assert sorted(map(repr, found)) == sorted(
        map(repr, [*resumed.due, reply, outgoing, CascadeDue(other.invocation_id)])
    )
    assert await sweep_all(bench) == []
    assert (await entries_of(bench, lease.invocation_id))[-1] == Resumed(1)


async def test_a_worker_is_hinted_of_what_is_hastened(bench: Bench) -> None:
    """The one that was seen last, once for each slot."""
    lease = await suspended(bench)
    answer = await answered(bench, lease.invocation_id, Completion(0, 5, Success(b"")))
    for worker in ("w2", "w3"):
        await bench.tick()
        await bench.store.heartbeat(worker, {})
    await bench.messages()
    await bench.store.hasten([*answer.due, *answer.due, HintDue("w4", lease.invocation_id)])
    assert await bench.messages() == [(bench.keys.hints("w3"), lease.invocation_id.encode())]


@pytest.mark.parametrize("late", ["claimed", "gone"])
async def test_what_is_done_already_is_not_hastened(bench: Bench, late: str) -> None:
    """A deadline that somebody removed does not come back."""
    lease = await suspended(bench)
    answer = await answered(bench, lease.invocation_id, Completion(0, 5, Success(b"")))
    assert answer.due == [ResumeDue(lease.invocation_id, 1, "Greeter")]
    if late == "claimed":
        claim = await bench.store.claim(lease.invocation_id, 1, token="t2", worker="w2", lease_ms=LEASE_MS, at_ms=1)
        assert claim is not None
    else:
        await bench.store.kill(lease.invocation_id, Output(1, Failure(409, "killed")))
        await bench.store.acknowledge(lease.invocation_id, cascade=True)
    before = await bench.dump()
    await bench.store.hasten(answer.due)
    assert await bench.dump() == before


async def test_services_are_described(bench: Bench) -> None:
    """What the last worker said is kept."""
    assert await bench.store.description("Greeter") is None
    await bench.store.describe({})
    await bench.store.describe({"Greeter": "a", "Bank": "b"})
    await bench.store.describe({"Greeter": "c"})
    assert await bench.store.description("Greeter") == "c"
    assert await bench.store.description("Bank") == "b"


async def test_pages_hold_every_row_once(bench: Bench) -> None:
    """Newest first over all slots, also where many share a place in time, and none twice."""
    ids: list[InvocationId] = []
    for moment in range(4):
        for _ in range(5):
            asked = admission()
            assert isinstance(await bench.store.admit(asked, lease_ms=LEASE_MS), Claimed)
            ids.append(asked.invocation_id)
        if moment % 2:
            await bench.tick()
    for size in (1, 3, 20, 50):
        rows = []
        after = None
        while True:
            page = await bench.store.list_page("running", rows_max=size, after=after)
            rows += page
            if len(page) < size:
                break
            after = page[-1].place
        assert {row.place.invocation_id for row in rows} == set(ids)
        assert len(rows) == len(ids)
        assert [row.place for row in rows] == sorted((row.place for row in rows), reverse=True)
        assert all(row.summary is not None and row.summary.invocation_id == row.place.invocation_id for row in rows)
    assert await bench.store.list_page("paused", rows_max=3) == []


async def test_rows_of_what_expired_are_empty(bench: Bench) -> None:
    """Until the next sweep takes them out."""
    lease = await admitted(bench)
    await completed(bench, lease)
    await bench.pass_ms(10_000 * MINUTE_MS)
    (row,) = await bench.store.list_page("completed", rows_max=3)
    assert row.summary is None
    await sweep_all(bench)
    assert await bench.store.list_page("completed", rows_max=3) == []
