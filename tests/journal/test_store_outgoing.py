"""The store's contract: what an invocation sends and whom it tells is handed out until it is acknowledged."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.journal.store import Caller, Claimed, Duplicate, Full, Lease, OutgoingDue, ReplyDue, Status
from perdure.schemas.commands import Attach, Call, CancelOther, PromiseWait, Resolve, Send
from perdure.schemas.entries import CancelChild, Entry, Success
from perdure.schemas.limits import ENTRIES_PER_APPEND_MAX, WAITERS_MAX

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admission,
    admitted,
    completed,
    fields_of,
    new_id,
    output,
    run,
    sweep_all,
)

CALLEE = new_id()
SENT: dict[str, Entry] = {
    "call": Call(0, 5, "S", "h", "k", CALLEE, "", (("h", b"\xff"),), b'"x"'),
    "send": Send(0, 5, "S", "h", None, CALLEE, "i", (), 99, b"\x00"),
    "attach": Attach(0, 5, CALLEE),
    "resolve": Resolve(0, 5, CALLEE, 3, "", Success(b"1")),
    "cancel": CancelOther(0, 5, CALLEE),
    "cancel child": CancelChild(5, 2, CALLEE),
    "promise": PromiseWait(0, 5, "approved"),
}


def caller(index: int = 3) -> Caller:
    """Somebody who waits for an outcome."""
    return Caller(new_id(), index, 7)


@pytest.mark.parametrize("kind", SENT)
@pytest.mark.parametrize("way", ["append", "release", "complete"])
async def test_what_is_sent_is_told_until_it_is_acknowledged(bench: Bench, kind: str, way: str) -> None:
    """Whichever write it came with; in the meantime it is somebody's turn, and nobody else is told."""
    lease = await admitted(bench)
    entries = [run(0), SENT[kind]]
    if way == "append":
        await bench.store.append(lease, entries, after=1, seq=1, progress=True)
    elif way == "release":
        await bench.store.release(lease, entries, after=1, seq=1)
    else:
        await bench.store.complete(
            lease, [*entries, output()], after=1, seq=1, retention_ms=MINUTE_MS, journal_retention_ms=MINUTE_MS
        )
    told = OutgoingDue(lease.invocation_id, 3, SENT[kind])
    for _ in range(2):
        assert [due for due in await sweep_all(bench) if isinstance(due, OutgoingDue)] == []
        await bench.pass_ms(MINUTE_MS // 2)
        assert [due for due in await sweep_all(bench) if isinstance(due, OutgoingDue)] == [told]
    assert (await fields_of(bench, lease.invocation_id))["outgoing"] == "1"
    for _ in range(2):
        await bench.store.acknowledge(lease.invocation_id, sent=[3])
        assert (await fields_of(bench, lease.invocation_id))["outgoing"] == "0"
    await bench.pass_ms(MINUTE_MS // 2)
    assert [due for due in await sweep_all(bench) if isinstance(due, OutgoingDue)] == []


async def test_one_sweep_tells_a_few_of_the_largest(bench: Bench) -> None:
    """So that no answer fills the connection; the next one follows at once, and all are told."""
    lease = await admitted(bench)
    huge = b'"%b"' % (b"x" * 999_000)
    sent: list[Entry] = [Send(index, 5, "S", "h", None, CALLEE, "", (), 0, huge) for index in range(6)]
    for number, entry in enumerate(sent):
        await bench.store.append(lease, [entry], after=1 + number, seq=1 + number, progress=True)
    await bench.pass_ms(MINUTE_MS)
    slot = bench.keys.of(lease.invocation_id).slot
    first = await bench.store.sweep(slot)
    assert (len(first.due), first.next_in_ms) == (5, 0)
    second = await bench.store.sweep(slot)
    assert {due.position for due in (*first.due, *second.due) if isinstance(due, OutgoingDue)} == set(range(2, 8))


async def test_thousands_are_acknowledged_at_once(bench: Bench) -> None:
    """More than Lua's stack holds in one command; each counts."""
    lease = await admitted(bench)
    entries = [Send(index, 5, "S", "h", None, CALLEE, "i", (), 99, b"\x00") for index in range(ENTRIES_PER_APPEND_MAX)]
    appends = 20
    for at in range(appends):
        await bench.store.append(lease, entries, after=1 + at * len(entries), seq=1 + at, progress=True)
    count = appends * len(entries)
    await bench.store.acknowledge(lease.invocation_id, sent=range(2, count + 1))
    assert (await fields_of(bench, lease.invocation_id))["outgoing"] == "1"
    await bench.pass_ms(MINUTE_MS)
    assert [due.position for due in await sweep_all(bench) if isinstance(due, OutgoingDue)] == [count + 1]


async def test_many_are_acknowledged_at_once(bench: Bench) -> None:
    """Those that were before, and those that are not known, do not count."""
    lease = await admitted(bench)
    entries = [Send(index, 5, "S", "h", None, CALLEE, "i", (), 99, b"\x00") for index in range(4)]
    await bench.store.append(lease, entries, after=1, seq=1, progress=True)
    await bench.store.append(lease, entries, after=1, seq=1, progress=True)
    assert (await fields_of(bench, lease.invocation_id))["outgoing"] == "4"
    await bench.store.acknowledge(lease.invocation_id, sent=[2, 4])
    await bench.store.acknowledge(lease.invocation_id, sent=[2, 3, 99])
    assert (await fields_of(bench, lease.invocation_id))["outgoing"] == "1"
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [OutgoingDue(lease.invocation_id, 5, entries[3])]


async def test_retention_begins_with_the_last_acknowledgement(spread_bench: Bench) -> None:
    """Of its reply, of its callers and of all that it sent, in any order; then nothing of it is left behind."""
    bench = spread_bench
    waiting = caller()
    lease = await admitted(bench, reply_to="replies", caller=str(waiting))
    await bench.store.append(lease, [SENT["call"], SENT["send"]], after=1, seq=1, progress=True)
    concluded = await completed(bench, lease, after=3, seq=2)
    assert concluded[:3] == (["replies"], [waiting], None)
    acknowledgements: tuple[dict[str, Any], ...] = ({"sent": [3]}, {"reply": True})
    for done in acknowledgements:
        await bench.pass_ms(5 * 60 * MINUTE_MS)
        await sweep_all(bench)
        await bench.store.acknowledge(lease.invocation_id, **done)
        assert (await bench.dump())["kept"] == set()
    await bench.store.acknowledge(lease.invocation_id, sent=[2])
    assert len((await bench.dump())["kept"]) == 2  # type: ignore[arg-type]  # a set
    await bench.pass_ms(61 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_what_was_sent_and_acknowledged_before_does_not_hold_retention_back(bench: Bench) -> None:
    """Nothing is owed at the outcome, so that the time runs from there."""
    lease = await admitted(bench)
    await bench.store.append(lease, [SENT["call"]], after=1, seq=1, progress=True)
    await bench.store.acknowledge(lease.invocation_id, sent=[2])
    await completed(bench, lease, after=2, seq=2)
    assert len((await bench.dump())["kept"]) == 2  # type: ignore[arg-type]  # a set


async def test_callers_are_told_until_they_are_acknowledged(spread_bench: Bench) -> None:
    """Those of the admission, of duplicates and of whoever attached; each once."""
    bench = spread_bench
    first, second, third = caller(1), caller(2), caller(3)
    lease = await admitted(bench, caller=str(first))
    for _ in range(2):
        again = admission(lease.invocation_id, token="t9", caller=str(second))
        assert await bench.store.admit(again, lease_ms=LEASE_MS) == Duplicate("running", None)
        assert await bench.store.attach(lease.invocation_id, "", caller=str(third)) == Status("running", None, True)
    assert (await completed(bench, lease)).callers == [first, second, third]
    for _ in range(2):
        await bench.pass_ms(MINUTE_MS)
        told = ReplyDue(lease.invocation_id, [], output().outcome, [first, second, third])
        assert await sweep_all(bench) == [told]
    await bench.store.acknowledge(lease.invocation_id, reply=True)
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == []


async def test_a_caller_that_comes_after_the_outcome_gets_it_at_once(bench: Bench) -> None:
    """As the answer, which is its to carry home: nothing is written."""
    lease = await admitted(bench)
    await completed(bench, lease)
    before = await bench.dump()
    again = admission(lease.invocation_id, token="t9", caller=str(caller()))
    assert await bench.store.admit(again, lease_ms=LEASE_MS) == Duplicate("completed", output().outcome)
    attached = await bench.store.attach(lease.invocation_id, "", caller=str(caller()))
    assert attached == Status("completed", output().outcome)
    assert await bench.dump() == before


async def test_callers_are_bounded(bench: Bench) -> None:
    """Beyond WAITERS_MAX one is refused rather than forgotten; one that is there already is not."""
    lease = await admitted(bench)
    callers = [str(caller(index)) for index in range(WAITERS_MAX)]
    for text in callers:
        await bench.store.attach(lease.invocation_id, "", caller=text)
    before = await bench.dump()
    late = admission(lease.invocation_id, token="t9", waiter="c", reply_to="r", caller=str(caller(9999)))
    assert await bench.store.admit(late, lease_ms=LEASE_MS) == Full()
    assert await bench.store.attach(lease.invocation_id, "", caller=str(caller(9999))) == Status("running", None, False)
    known = late._replace(caller=callers[-1], waiter="", reply_to="")
    assert await bench.store.admit(known, lease_ms=LEASE_MS) == Duplicate("running", None)
    assert await bench.dump() == before


async def test_reply_topics_are_bounded(bench: Bench) -> None:
    """Beyond WAITERS_MAX a record that wants a reply waits rather than that its reply is forgotten."""
    lease = await admitted(bench)
    for number in range(WAITERS_MAX):
        asked = admission(lease.invocation_id, token="t9", reply_to=f"topic-{number}")
        assert await bench.store.admit(asked, lease_ms=LEASE_MS) == Duplicate("running", None)
    before = await bench.dump()
    late = admission(lease.invocation_id, token="t9", reply_to="late", caller=str(caller()))
    assert await bench.store.admit(late, lease_ms=LEASE_MS) == Full()
    assert await bench.dump() == before
    known = late._replace(reply_to="topic-7")
    assert await bench.store.admit(known, lease_ms=LEASE_MS) == Duplicate("running", None)


async def test_a_workflow_keeps_what_it_owes_for_as_long(spread_bench: Bench) -> None:
    """Its state and promises expire with its run, and not before the last acknowledgement."""
    bench = spread_bench
    answer = await bench.store.admit(admission(key="k", mode="main", caller=str(caller())), lease_ms=LEASE_MS)
    assert isinstance(answer, Claimed)
    assert await bench.store.edit_state("Greeter/k", [("a", b"1")], force=True) is None
    await bench.store.complete_promise("Greeter/k", "p", Success(b"1"), by="me")
    lease: Lease = answer.lease
    await completed(bench, lease)
    assert (await bench.dump())["kept"] == set()
    await bench.store.acknowledge(lease.invocation_id, reply=True)
    assert len((await bench.dump())["kept"]) == 4  # type: ignore[arg-type]  # a set
    await bench.pass_ms(61 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}
