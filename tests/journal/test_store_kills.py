"""The store's contract: an object whose holder was killed stays taken until the holder's callees are killed, too."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.journal.store import CascadeDue, Claimed, Delivery, Lease, Queued, ReplyDue, ResumeDue
from perdure.schemas.commands import Call, Send
from perdure.schemas.entries import Completion, Entry, Failure, Output, Success

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admission,
    admitted,
    claimed,
    completed,
    new_id,
    run,
    sweep_all,
)

KILLED = Output(5, Failure(409, "killed", {}))
EXCLUSIVE: dict[str, Any] = {"key": "k", "mode": "exclusive"}
LOOKED_AT_MAX = 1_000


def call(index: int) -> Call:
    """A call."""
    return Call(index, 5, "Greeter", "greet", "k", new_id("k"), "", (), b"1")


async def holder(bench: Bench, *entries: Entry) -> Lease:
    """Who holds the object, and has written that."""
    lease = await admitted(bench, **EXCLUSIVE)
    for start in range(0, len(entries), 500):
        some = entries[start : start + 500]
        await bench.store.append(lease, some, after=1 + start, seq=1 + start // 500, progress=True)
    return lease


async def killed(bench: Bench, lease: Lease) -> list[object]:
    """Kill it; what is due then beside telling those who wait for it."""
    delivery = await bench.store.kill(lease.invocation_id, KILLED)
    assert delivery.result == "delivered"
    assert delivery.due[0] == ReplyDue(lease.invocation_id, [], KILLED.outcome, [])
    assert delivery.due[-1] == CascadeDue(lease.invocation_id)
    return list(delivery.due[1:-1])


@pytest.mark.parametrize("entries", [[call(0)], [call(0), call(1), Completion(1, 5, Success(b"1"))]])
async def test_the_object_is_kept_until_the_cascade_is_acknowledged(bench: Bench, entries: list[Entry]) -> None:
    """The outcome is told at once; neither who waits nor who comes meanwhile gets a turn; then the first who waits."""
    first = await holder(bench, *entries)
    second, third = admission(**EXCLUSIVE), admission(**EXCLUSIVE)
    assert await bench.store.admit(second, lease_ms=LEASE_MS) == Queued()
    assert await killed(bench, first) == []
    assert await bench.store.admit(third, lease_ms=LEASE_MS) == Queued()
    await bench.pass_ms(30 * MINUTE_MS)
    assert CascadeDue(first.invocation_id) in await sweep_all(bench)
    following = ResumeDue(second.invocation_id, 0, "Greeter")
    assert await bench.store.acknowledge(first.invocation_id, cascade=True) == following
    assert await bench.store.acknowledge(first.invocation_id, cascade=True) is None
    claim = await claimed(bench, Lease(second.invocation_id, 0, "", ""))
    assert (await completed(bench, claim.lease, after=2)).following == ResumeDue(third.invocation_id, 0, "Greeter")


async def test_without_a_queue_the_object_is_free_with_the_acknowledgement(bench: Bench) -> None:
    """Until then a callee whose record comes now would begin; nothing is left in the end."""
    first = await holder(bench, call(0))
    await killed(bench, first)
    callee = admission(**EXCLUSIVE)
    assert await bench.store.admit(callee, lease_ms=LEASE_MS) == Queued()
    await bench.store.kill(callee.invocation_id, KILLED)
    for lost in (first.invocation_id, callee.invocation_id):
        assert await bench.store.acknowledge(lost, cascade=True, sent=[2]) is None
    assert isinstance(await bench.store.admit(admission(**EXCLUSIVE), lease_ms=LEASE_MS), Claimed)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [run(0)],
        [call(0), Completion(0, 5, Success(b"1"))],
        [Send(0, 5, "Greeter", "greet", None, new_id(), "", (), 0, b"1")],
        [run(index) for index in range(LOOKED_AT_MAX - 2)],
    ],
    ids=["nothing", "a step", "a call with its answer", "sent", "many steps"],
)
async def test_who_waits_for_no_answer_frees_the_object_at_once(bench: Bench, entries: list[Entry]) -> None:
    """A call that is answered, and what was sent, are not killed; and the acknowledgement frees nothing of others."""
    first = await holder(bench, *entries)
    second, third = admission(**EXCLUSIVE), admission(**EXCLUSIVE)
    for asked in (second, third):
        await bench.store.admit(asked, lease_ms=LEASE_MS)
    assert await killed(bench, first) == [ResumeDue(second.invocation_id, 0, "Greeter")]
    assert await bench.store.acknowledge(first.invocation_id, cascade=True) is None
    assert await bench.store.admit(admission(**EXCLUSIVE), lease_ms=LEASE_MS) == Queued()
    claim = await claimed(bench, Lease(second.invocation_id, 0, "", ""))
    assert (await completed(bench, claim.lease, after=2)).following == ResumeDue(third.invocation_id, 0, "Greeter")


async def test_a_long_journal_is_taken_to_have_a_call(bench: Bench) -> None:
    """It may stand before the part that is looked at."""
    first = await holder(bench, call(0), *[run(index) for index in range(1, LOOKED_AT_MAX + 1)])
    second = admission(**EXCLUSIVE)
    await bench.store.admit(second, lease_ms=LEASE_MS)
    assert await killed(bench, first) == []
    following = ResumeDue(second.invocation_id, 0, "Greeter")
    assert await bench.store.acknowledge(first.invocation_id, cascade=True) == following


async def test_what_is_killed_again_says_whether_its_callees_are(bench: Bench) -> None:
    """For who kills a tree of calls, and was cut off."""
    first = await holder(bench, call(0))
    await killed(bench, first)
    cascade = CascadeDue(first.invocation_id)
    assert await bench.store.kill(first.invocation_id, KILLED) == Delivery("unchanged", (cascade,), "completed")
    await bench.store.acknowledge(first.invocation_id, cascade=True)
    assert await bench.store.kill(first.invocation_id, KILLED) == Delivery("unchanged", status="completed")
