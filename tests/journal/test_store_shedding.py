"""The store's contract: journals of what is completed make room before their time; what they ended with stays."""

from __future__ import annotations

import asyncio

from perdure.journal.transitions import Shed
from perdure.schemas.ids import InvocationId, slot_of

from .store_contract import LEASE_MS, MINUTE_MS, SLOTS, Bench, admission, admitted, fields_of, new_id, output


async def ended(bench: Bench, retention_ms: int, **changes: object) -> InvocationId:
    """A completed invocation of the first slot."""
    invocation_id = new_id()
    while slot_of(invocation_id, SLOTS) != 0:
        invocation_id = new_id()
    lease = await admitted(bench, invocation_id=invocation_id, **changes)
    await bench.store.complete(
        lease, [output()], after=1, seq=1, retention_ms=retention_ms, journal_retention_ms=retention_ms
    )
    return invocation_id


async def journals(bench: Bench, ids: list[InvocationId]) -> list[bool]:
    """Which of these have a journal."""
    return [bool(await bench.store.read_journal(invocation_id)) for invocation_id in ids]


async def test_journals_of_what_is_completed_are_removed(bench: Bench) -> None:
    """The outcomes stay, for their time, and so does every journal of what is not completed or of another slot."""
    done, owing = await ended(bench, 9 * MINUTE_MS), await ended(bench, 9 * MINUTE_MS, reply_to="replies")
    running = await admitted(bench)
    assert await bench.store.shed(1, journals_max=9) == Shed(0, None)
    assert await bench.store.shed(0, journals_max=9) == Shed(1, None)
    assert await bench.store.shed(0, journals_max=9) == Shed(0, None)
    assert await journals(bench, [done, owing, running.invocation_id]) == [False, True, True]
    assert (await fields_of(bench, done))["status"] == "completed"
    status = await bench.store.attach(done, "")
    assert status is not None
    assert status.outcome == output().outcome


async def test_those_go_first_that_expire_first(bench: Bench) -> None:
    """A bounded number at a time; the place goes on where the last call came to, and passes nobody over."""
    late = await ended(bench, 60 * MINUTE_MS)
    ids = list(await asyncio.gather(*(ended(bench, 9 * MINUTE_MS) for _ in range(30))))
    first = await bench.store.shed(0, journals_max=20)
    assert first.removed == 20
    assert first.place is not None
    assert (await journals(bench, [late])) == [True]
    assert await bench.store.shed(0, journals_max=20, after=first.place) == Shed(11, None)
    assert not any(await journals(bench, [late, *ids]))


async def test_what_was_admitted_anew_keeps_its_journal(bench: Bench) -> None:
    """Its predecessor has expired and stands in the index of completed ones until the next sweep."""
    done = await ended(bench, MINUTE_MS)
    await bench.pass_ms(2 * MINUTE_MS)
    await bench.store.admit(admission(done), lease_ms=LEASE_MS)
    assert await bench.store.shed(0, journals_max=9) == Shed(0, None)
    assert await journals(bench, [done]) == [True]


async def test_memory_is_told(bench: Bench) -> None:
    """Of the server of each slot. Those of tests have no bound: their share is nothing."""
    memories = await bench.store.memory()
    assert [(memory.bytes_max, memory.share) for memory in memories] == [(0, 0.0)] * SLOTS
