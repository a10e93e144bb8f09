"""Queues of objects that are full, on both stores: what is refused is not overtaken."""

from __future__ import annotations

from perdure.journal.store import Admission, Claimed, Duplicate, Full, Queued
from perdure.schemas.entries import Input, Output, Success
from perdure.schemas.ids import InvocationId, new_invocation_id
from perdure.worker.clock import system_random
from tests.journal.store_contract import LEASE_MS, MINUTE_MS, Bench


def joining(*, behind: str = "", queue_max: int = 1) -> Admission:
    """An invocation of one object's exclusive handler."""
    invocation_id = new_invocation_id("Cart", "ada", system_random())
    about = Input(0, "w", (), b"1")
    return Admission(
        invocation_id, "Cart", "add", "ada", about, "t", "w", mode="exclusive", queue_max=queue_max, behind=behind
    )


async def test_what_is_refused_is_not_overtaken(bench: Bench) -> None:
    """The queue has moved when the next one comes, which waits all the same until the one before is known."""
    first, second = joining(), joining()
    third = joining(behind=second.invocation_id)
    fourth = joining(behind=third.invocation_id)
    held = await bench.store.admit(first, lease_ms=LEASE_MS)
    assert isinstance(held, Claimed)
    assert isinstance(await bench.store.admit(second._replace(queue_max=0), lease_ms=LEASE_MS), Full)
    dump = await bench.dump()
    assert isinstance(await bench.store.admit(third, lease_ms=LEASE_MS), Full)
    assert await bench.dump() == dump
    assert isinstance(await bench.store.admit(second, lease_ms=LEASE_MS), Queued)
    assert isinstance(await bench.store.admit(third, lease_ms=LEASE_MS), Full)
    await bench.store.complete(
        held.lease, [Output(0, Success(b"1"))], after=1, seq=1, retention_ms=MINUTE_MS, journal_retention_ms=MINUTE_MS
    )
    assert isinstance(await bench.store.admit(fourth, lease_ms=LEASE_MS), Full)
    assert isinstance(await bench.store.admit(third, lease_ms=LEASE_MS), Queued)
    assert isinstance(await bench.store.admit(third, lease_ms=LEASE_MS), Duplicate)


async def test_the_first_comes_behind_what_is_known(bench: Bench) -> None:
    """Where the object is free, it is held at once."""
    known = joining()
    await bench.store.admit(known, lease_ms=LEASE_MS)
    other = new_invocation_id("Cart", "ada", system_random())
    assert isinstance(await bench.store.admit(joining(behind=other, queue_max=9), lease_ms=LEASE_MS), Full)
    assert isinstance(await bench.store.admit(joining(behind=known.invocation_id), lease_ms=LEASE_MS), Queued)


async def test_a_claim_knows_where_its_record_stood(bench: Bench) -> None:
    """So that each attempt can tell its handler."""
    admission = joining()._replace(source="orders/1/2/3")
    held = await bench.store.admit(admission, lease_ms=LEASE_MS)
    assert isinstance(held, Claimed)
    await bench.store.release(held.lease, [], after=1, seq=1)
    for known, expected in ((admission.invocation_id, "orders/1/2/3"), (InvocationId("inv_" + "0" * 27), None)):
        claim = await bench.store.claim(known, 1, token="u", worker="w", lease_ms=LEASE_MS, at_ms=0)
        assert (claim.source if claim is not None else None) == expected
