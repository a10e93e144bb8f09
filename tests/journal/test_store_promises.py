"""The store's contract: durable promises of a workflow are completed once, and whoever waits is told with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from perdure.journal.promised import ALREADY, COMPLETED
from perdure.journal.store import Due, Duplicate, HintDue, Lease, Promise, ResumeDue, Store
from perdure.schemas.commands import COMPLETE_PROMISE, Lookup, PromiseWait
from perdure.schemas.entries import Completion, Entry, Failure, Outcome, Success
from perdure.schemas.errors import GapError
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import WAITERS_MAX

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admission,
    admitted,
    completed,
    entries_of,
    output,
    run,
    suspended,
    sweep_all,
)

TARGET = "Greeter/k"
DAY_MS = 24 * 60 * MINUTE_MS
YES = Success(b'"yes"')


async def told(bench: Bench, invocation_id: InvocationId) -> list[Entry]:
    """The completions in a journal, without their times."""
    found = [entry for entry in await entries_of(bench, invocation_id) if isinstance(entry, Completion)]
    return [entry._replace(at_ms=0) for entry in found]


@pytest.mark.parametrize("outcome", [YES, Success(b"\xff"), Success(b""), Failure(418, 'no "tea"', {"why": "x"})])
async def test_a_promise_is_completed_once(bench: Bench, outcome: Outcome) -> None:
    """The first outcome stands; who completed it is told so again, anybody else that it was taken."""
    store = bench.store
    assert await store.peek_promise(TARGET, "p") is None
    assert await store.complete_promise(TARGET, "p", outcome, by="a:1") == (True, [])
    before = await bench.dump()
    assert await store.complete_promise(TARGET, "p", outcome, by="a:1") == (True, [])
    assert await store.complete_promise(TARGET, "p", Success(b"other"), by="a:2") == (False, [])
    assert await bench.dump() == before
    assert await store.peek_promise(TARGET, "p") == Promise(outcome, "a:1")
    assert await store.peek_promise(TARGET, "q") is None
    assert await store.peek_promise("Greeter/other", "p") is None


async def test_all_that_wait_are_told_with_the_completion(bench: Bench) -> None:
    """One is woken, one hinted, one kept for a person: in the transition that completes the promise."""
    away = await suspended(bench, key="k", mode="main")
    runs, paused = await admitted(bench, key="k"), await admitted(bench, key="k")
    await bench.store.give_up(paused, [], after=1, seq=1, failure="x")
    for lease, index in ((away, 4), (runs, 5), (paused, 6)):
        for _ in range(2):
            assert await bench.store.await_promise(TARGET, "p", lease.invocation_id, index) == []
    due: list[Due] = [ResumeDue(away.invocation_id, 1, "Greeter"), HintDue("w1", runs.invocation_id)]
    assert await bench.store.complete_promise(TARGET, "p", YES, by="me") == (True, due)
    assert await bench.messages() == [(bench.keys.hints("w1"), runs.invocation_id.encode())]
    for lease, index in ((away, 4), (runs, 5), (paused, 6)):
        assert await told(bench, lease.invocation_id) == [Completion(index, 0, YES)]


async def test_who_waits_for_what_is_completed_is_told_at_once(bench: Bench) -> None:
    """And once, however often it asks; each of its commands for itself."""
    await bench.store.complete_promise(TARGET, "p", YES, by="me")
    lease = await suspended(bench, key="k", mode="main")
    resume = [ResumeDue(lease.invocation_id, 1, "Greeter")]
    assert await bench.store.await_promise(TARGET, "p", lease.invocation_id, 4) == resume
    before = await bench.dump()
    assert await bench.store.await_promise(TARGET, "p", lease.invocation_id, 4) == []
    assert await bench.dump() == before
    assert await bench.store.await_promise(TARGET, "p", lease.invocation_id, 5) == []
    assert await told(bench, lease.invocation_id) == [Completion(4, 0, YES), Completion(5, 0, YES)]


async def test_who_has_an_outcome_waits_for_nothing(bench: Bench) -> None:
    """Neither is it remembered, nor told."""
    lease = await admitted(bench, key="k")
    await bench.store.await_promise(TARGET, "p", lease.invocation_id, 4)
    await completed(bench, lease)
    assert await bench.store.await_promise(TARGET, "q", lease.invocation_id, 5) == []
    before = await entries_of(bench, lease.invocation_id)
    for name in ("p", "q"):
        assert await bench.store.complete_promise(TARGET, name, YES, by="me") == (True, [])
    assert await entries_of(bench, lease.invocation_id) == before


@pytest.mark.parametrize("made", [False, True])
async def test_a_wait_that_the_store_lost_is_not_answered(bench: Bench, made: bool) -> None:
    """A failover has lost it: an answer would stand before the wait in the journal, and be seen by nobody."""
    lease = await admitted(bench, key="k")
    if made:
        await bench.store.complete_promise(TARGET, "p", YES, by="me")
    before = await bench.dump()
    with pytest.raises(GapError):
        await bench.store.await_promise(TARGET, "p", lease.invocation_id, 0, position=2)
    assert await bench.dump() == before
    await bench.store.append(lease, [PromiseWait(0, 5, "p")], after=1, seq=1, progress=False)
    await bench.store.await_promise(TARGET, "p", lease.invocation_id, 0, position=2)
    if not made:
        await bench.store.complete_promise(TARGET, "p", YES, by="me")
    assert await told(bench, lease.invocation_id) == [Completion(0, 0, YES)]


def said(index: int, outcome: Outcome) -> Lookup:
    """What a handler writes down of a promise that it completed, or found completed."""
    return Lookup(COMPLETE_PROMISE, index, "p", 5, False, outcome)


SAYING: dict[str, Callable[[Store, Lease, Entry], Awaitable[object]]] = {
    "append": lambda store, lease, entry: store.append(lease, [entry, run(9)], after=1, seq=1, progress=True),
    "complete": lambda store, lease, entry: store.complete(
        lease, [entry, output()], after=1, seq=1, retention_ms=LEASE_MS, journal_retention_ms=LEASE_MS
    ),
    "suspend": lambda store, lease, entry: store.suspend(lease, [entry], after=1, seq=1, wake_in_ms=None),
    "back off": lambda store, lease, entry: store.back_off(
        lease, [entry], after=1, seq=1, retry_in_ms=MINUTE_MS, failure="x"
    ),
    "give up": lambda store, lease, entry: store.give_up(lease, [entry], after=1, seq=1, failure="x"),
    "release": lambda store, lease, entry: store.release(lease, [entry], after=1, seq=1),
}
"""All that write entries of an attempt."""


@pytest.mark.parametrize("way", SAYING)
@pytest.mark.parametrize("outcome", [COMPLETED, ALREADY])
async def test_nothing_is_said_of_a_promise_whose_completion_was_lost(bench: Bench, way: str, outcome: Outcome) -> None:
    """A failover has lost it between the answer and the entry: nobody would complete it, had the entry been written."""
    lease = await admitted(bench, key="k")
    before = await bench.dump()
    with pytest.raises(GapError):
        await SAYING[way](bench.store, lease, said(0, outcome))
    assert await bench.dump() == before
    by = f"{lease.invocation_id}:0" if outcome == COMPLETED else "somebody"
    assert await bench.store.complete_promise(TARGET, "p", YES, by=by) == (True, [])
    await SAYING[way](bench.store, lease, said(0, outcome))
    assert said(0, outcome) in await entries_of(bench, lease.invocation_id)


@pytest.mark.parametrize(("outcome", "by"), [(COMPLETED, "somebody"), (ALREADY, "")])
async def test_who_completed_a_promise_after_a_failover_is_asked_for_again(
    bench: Bench, outcome: Outcome, by: str
) -> None:
    """Somebody else did meanwhile, or the command itself, by a repeat that was late: what it was told is not so."""
    lease = await admitted(bench, key="k")
    await bench.store.complete_promise(TARGET, "p", YES, by=by or f"{lease.invocation_id}:0")
    before = await bench.dump()
    with pytest.raises(GapError):
        await bench.store.append(lease, [said(0, outcome)], after=1, seq=1, progress=False)
    assert await bench.dump() == before


async def test_what_was_not_asked_of_a_promise_needs_none(bench: Bench) -> None:
    """A cancellation comes before a completion that has not begun; that is all that its entry says."""
    lease = await admitted(bench, key="k")
    entry = said(0, Failure(409, "cancelled"))
    await bench.store.append(lease, [entry], after=1, seq=1, progress=False)
    assert await entries_of(bench, lease.invocation_id) == [entry]


async def test_waits_are_bounded(bench: Bench) -> None:
    """One completion tells them all in one script: who comes too late asks again later."""
    lease = await admitted(bench, key="k")
    for index in range(WAITERS_MAX):
        assert await bench.store.await_promise(TARGET, "p", lease.invocation_id, index) == []
    before = await bench.dump()
    assert await bench.store.await_promise(TARGET, "p", lease.invocation_id, WAITERS_MAX) is None
    assert await bench.dump() == before
    assert await bench.store.await_promise(TARGET, "q", lease.invocation_id, WAITERS_MAX) == []


async def test_promises_are_kept_as_long_as_the_run(bench: Bench) -> None:
    """A run of many days finds those that were completed before it and at its beginning; they expire with it."""
    await bench.store.complete_promise(TARGET, "early", YES, by="me")
    lease = await admitted(bench, key="k", mode="main")
    await bench.store.complete_promise(TARGET, "late", YES, by="me")
    await bench.pass_ms(3 * DAY_MS)
    await bench.store.renew([lease], lease_ms=LEASE_MS)
    for name in ("early", "late"):
        assert await bench.store.peek_promise(TARGET, name) == Promise(YES, "me")
    await completed(bench, lease)
    await bench.pass_ms(30 * MINUTE_MS)
    await bench.store.complete_promise(TARGET, "after", YES, by="me")
    await bench.pass_ms(40 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_promises_without_a_run_are_forgotten_after_a_day(bench: Bench) -> None:
    """Each write does not keep them longer."""
    lease = await admitted(bench, key="k")
    await bench.store.await_promise(TARGET, "p", lease.invocation_id, 4)
    await bench.pass_ms(DAY_MS - MINUTE_MS)
    await bench.store.complete_promise(TARGET, "q", YES, by="me")
    await bench.pass_ms(2 * MINUTE_MS)
    assert await bench.store.peek_promise(TARGET, "q") is None


async def test_what_a_workflow_has_written_after_its_run_goes_with_it(bench: Bench) -> None:
    """People may change the state of a run that ended: it expires when the run does."""
    lease = await admitted(bench, key="k", mode="main")
    assert await bench.store.edit_state(TARGET, [("a", b"1")]) == lease.invocation_id
    await completed(bench, lease)
    for _ in range(2):
        assert await bench.store.edit_state(TARGET, [("a", b"1")], clear=True) is None
    await bench.pass_ms(61 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_a_run_is_one(bench: Bench) -> None:
    """A second submit is a duplicate of the first one, by the id that a workflow's key has."""
    lease: Lease = await admitted(bench, key="k", mode="main")
    again = admission(key="k", mode="main", token="t9")
    assert again.invocation_id == lease.invocation_id
    assert await bench.store.admit(again, lease_ms=LEASE_MS) == Duplicate("running", None)
