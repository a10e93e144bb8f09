"""The store's contract: every call may arrive twice, and late; the second time changes nothing. Scripts may be lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.journal.store import Appended, Claimed, Lease, Store
from perdure.schemas.commands import ClearAll, Send, SetState
from perdure.schemas.entries import Cancelled, Completion, Entry, Paused, Positioned, Signalled, Success
from perdure.schemas.errors import GapError
from perdure.schemas.ids import InvocationId

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    Dump,
    admission,
    admitted,
    answered,
    claimed,
    output,
    run,
    sleep,
    sweep_all,
)

ONE = Success(b"1")
OTHER = InvocationId("inv_" + "0" * 27)
CALLER = f"{OTHER}:3:4"
SEND = Send(0, 5, "S", "h", None, OTHER, "", (), 0, b"1")

Call = Callable[[Store, Lease], Awaitable[object]]

WRITES: dict[str, Call] = {
    "append": lambda store, lease: store.append(lease, [run(0), sleep(1, MINUTE_MS)], after=1, seq=1, progress=True),
    "append nothing": lambda store, lease: store.append(lease, [], after=1, seq=1, progress=False),
    "complete": lambda store, lease: store.complete(
        lease, [run(0), output()], after=1, seq=1, retention_ms=LEASE_MS, journal_retention_ms=LEASE_MS
    ),
    "suspend": lambda store, lease: store.suspend(lease, [run(0)], after=1, seq=1, wake_in_ms=MINUTE_MS),
    "back off": lambda store, lease: store.back_off(lease, [run(0)], after=1, seq=1, retry_in_ms=9, failure="x"),
    "give_up": lambda store, lease: store.give_up(lease, [Paused(1, "x")], after=1, seq=1, failure="x"),
    "release": lambda store, lease: store.release(lease, [run(0)], after=1, seq=1),
    "renew": lambda store, lease: store.renew([lease], lease_ms=LEASE_MS),
    "attach": lambda store, lease: store.attach(lease.invocation_id, "somewhere"),
    "expire": lambda store, lease: store.expire(lease.worker),
    "append effects": lambda store, lease: store.append(
        lease, [SetState(0, "a", b"1"), SEND, ClearAll(2)], after=1, seq=1, progress=True
    ),
    "complete with effects": lambda store, lease: store.complete(
        lease, [SEND, output()], after=1, seq=1, retention_ms=LEASE_MS, journal_retention_ms=LEASE_MS
    ),
    "attach a caller": lambda store, lease: store.attach(lease.invocation_id, "", caller=CALLER),
    "answer": lambda store, lease: store.answer(lease.invocation_id, [(2, Completion(n, 4, ONE)) for n in (3, 4)]),
    "signal": lambda store, lease: store.deliver(lease.invocation_id, Signalled("go", 4, ONE), once="s:1"),
    "cancel": lambda store, lease: store.deliver(lease.invocation_id, Cancelled(4), once="x:1"),
    "kill": lambda store, lease: store.kill(lease.invocation_id, output()),
    "pause": lambda store, lease: store.pause(lease.invocation_id, at_ms=4, reason="look"),
    "resume": lambda store, lease: store.resume(lease.invocation_id, at_ms=4),
    "purge": lambda store, lease: store.purge(lease.invocation_id),
    "await a promise": lambda store, lease: store.await_promise("Greeter/k", "p", lease.invocation_id, 3),
    "complete a promise": lambda store, lease: store.complete_promise("Greeter/k", "p", ONE, by="me"),
    "edit state": lambda store, lease: store.edit_state("Greeter/k", [("a", b"1")], clear=True, force=True),
    "acknowledge what was sent": lambda store, lease: store.acknowledge(lease.invocation_id, sent=[2], cascade=True),
    "acknowledge": lambda store, lease: store.acknowledge(lease.invocation_id, reply=True),
    "admit": lambda store, lease: store.admit(admission(lease.invocation_id, key="k"), lease_ms=LEASE_MS),
}

# Their second answer differs in what is told and not in what is done: a repeated append tells the entries too.
TELLS_MORE = {"append", "append nothing", "append effects"}

# Their second answer says that it is one, or that there is nothing to do.
SAYS_SO = {"answer", "signal", "cancel", "kill"}


def without(dump: Dump, member: str) -> Dump:
    """The dump without the time of one deadline, which a repeat sets from its own now on."""
    return {
        key: value | {member: 0} if isinstance(value, dict) and member in value else value
        for key, value in dump.items()
    }


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    "about", [{}, {"reply_to": "replies"}, {"key": "k", "mode": "exclusive"}, {"key": "k", "mode": "main"}]
)
async def test_a_call_that_arrives_twice_is_done_once(bench: Bench, name: str, about: dict[str, str]) -> None:
    """The second time answers as the first did, and the namespace holds what it held."""
    changes: dict[str, Any] = {"key": "k", **about}
    lease = await admitted(bench, waiter=bench.keys.outcomes("c1"), **changes)
    await bench.store.admit(admission(**{**changes, "mode": "exclusive"}), lease_ms=LEASE_MS)
    call = WRITES[name]
    first = await call(bench.store, lease)
    await bench.messages()
    before = await bench.dump()
    await bench.tick()
    second = await call(bench.store, lease)
    renewed = f"lease:{lease.invocation_id}" if name == "renew" else ""
    assert without(await bench.dump(), renewed) == without(before, renewed)
    # A pause is hinted again: the first hint may have been lost.
    assert await bench.messages() == [] or name == "pause"
    if name not in TELLS_MORE | SAYS_SO:
        assert second == first


async def test_a_repeated_append_tells_what_stands_past_the_known(bench: Bench) -> None:
    """The first answer was lost: the second one holds the own entries, and whatever came after them."""
    lease = await admitted(bench)
    entries: list[Entry] = [run(0), sleep(1, MINUTE_MS)]
    await bench.store.append(lease, entries, after=1, seq=1, progress=True)
    tail = [Positioned(2, 1, entries[0]), Positioned(3, 1, entries[1])]
    again = await bench.store.append(lease, entries, after=1, seq=1, progress=True)
    assert again == Appended(3, tail)
    await bench.pass_ms(2 * MINUTE_MS)
    await sweep_all(bench)
    again = await bench.store.append(lease, entries, after=1, seq=1, progress=True)
    assert again.length == 4
    assert list(again.tail or ())[:2] == tail


@pytest.mark.parametrize("name", ["append", "append nothing", "complete", "suspend", "back off", "give_up", "release"])
async def test_an_old_write_that_arrives_late_is_a_repeat(bench: Bench, name: str) -> None:
    """One that stayed on a connection which was given up comes after newer ones and changes nothing."""
    lease = await admitted(bench)
    await bench.store.append(lease, [run(0)], after=1, seq=1, progress=True)
    await bench.store.append(lease, [run(1)], after=2, seq=2, progress=True)
    before = await bench.dump()
    await WRITES[name](bench.store, lease)
    assert await bench.dump() == before


@pytest.mark.parametrize("name", ["append", "complete", "suspend"])
async def test_a_write_whose_predecessor_was_lost_is_a_gap(bench: Bench, name: str) -> None:
    """A failover lost an entry, and somebody outside has filled its place: the length alone would not tell."""
    lease = await admitted(bench)
    await bench.store.append(lease, [run(0)], after=1, seq=1, progress=True)
    await answered(bench, lease.invocation_id, Completion(9, 4, ONE))
    before = await bench.dump()
    third: dict[str, Callable[[], Awaitable[object]]] = {
        "append": lambda: bench.store.append(lease, [run(2)], after=3, seq=3, progress=True),
        "complete": lambda: bench.store.complete(
            lease, [output()], after=3, seq=3, retention_ms=MINUTE_MS, journal_retention_ms=MINUTE_MS
        ),
        "suspend": lambda: bench.store.suspend(lease, [], after=3, seq=3, wake_in_ms=None),
    }
    with pytest.raises(GapError):
        await third[name]()
    assert await bench.dump() == before
    await bench.store.release(lease, [], after=0, seq=4)
    assert (await claimed(bench, lease)).entries[1].entry == run(0)


async def test_a_suspension_that_does_not_take_place_uses_no_number(bench: Bench) -> None:
    """Something has come meanwhile: the next write has its number, and a late repeat of it changes nothing."""
    lease = await admitted(bench)
    await answered(bench, lease.invocation_id, Completion(9, 4, ONE))
    stayed = await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=None)
    assert stayed is not None
    await bench.store.append(lease, [run(0)], after=2, seq=1, progress=True)
    before = await bench.dump()
    await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=None)
    assert await bench.dump() == before


async def test_a_claim_that_arrives_twice_is_one_attempt(bench: Bench) -> None:
    """The same claimer gets the same answer; the journal holds one start of the attempt."""
    lease = await admitted(bench)
    await bench.store.release(lease, [run(0)], after=1, seq=1)
    first = await claimed(bench, lease)
    before = await bench.dump()
    assert await claimed(bench, lease) == first
    assert await bench.dump() == before
    # A claim that is sent again after its attempt wrote already must not set the writes' count back.
    await bench.store.append(first.lease, [run(1)], after=3, seq=1, progress=False)
    await claimed(bench, lease)
    answer = await bench.store.append(first.lease, [run(1)], after=3, seq=1, progress=False)
    assert answer == Appended(4, [Positioned(4, 2, run(1))])


async def test_a_delayed_admission_that_arrives_twice_is_one_invocation(bench: Bench) -> None:
    """The second one is a duplicate and changes nothing, whichever attempt of the worker's sends it."""
    asked = admission(not_before_ms=await bench.now_ms() + LEASE_MS, waiter="c", reply_to="t")
    await bench.store.admit(asked, lease_ms=LEASE_MS)
    before = await bench.dump()
    await bench.store.admit(asked, lease_ms=LEASE_MS)
    assert await bench.dump() == before


async def test_a_sweep_that_runs_twice_does_everything_once(bench: Bench) -> None:
    """Two workers may look at one slot at the same time."""
    ended, retried, woken, timed = [await admitted(bench) for _ in range(4)]
    await bench.store.back_off(retried, [], after=1, seq=1, retry_in_ms=MINUTE_MS, failure="x")
    await bench.store.suspend(woken, [], after=1, seq=1, wake_in_ms=MINUTE_MS)
    await bench.store.append(timed, [sleep(0, MINUTE_MS)], after=1, seq=1, progress=True)
    await bench.store.suspend(timed, [], after=2, seq=2, wake_in_ms=None)
    await bench.pass_ms(LEASE_MS)
    assert {due[0] for due in await sweep_all(bench)} == {
        lease.invocation_id for lease in (ended, retried, woken, timed)
    }
    before = await bench.dump()
    assert await sweep_all(bench) == []
    assert await bench.dump() == before


async def test_scripts_that_the_server_forgot_are_loaded_again(bench: Bench) -> None:
    """`SCRIPT FLUSH` or a failover in the middle of work is not noticed by anybody."""
    await bench.forget_scripts()
    lease = await admitted(bench)
    await bench.forget_scripts()
    answers = [
        bench.store.append(lease, [run(index)], after=index + 1, seq=index + 1, progress=True) for index in range(3)
    ]
    await bench.forget_scripts()
    assert [(await answer).length for answer in answers][-1] == 4
    await bench.store.release(lease, [], after=4, seq=4)
    await bench.forget_scripts()
    claim = await claimed(bench, lease)
    assert [entry for _, _, entry in claim.entries][1:4] == [run(0), run(1), run(2)]
    await bench.forget_scripts()
    assert isinstance(await bench.store.admit(admission(), lease_ms=LEASE_MS), Claimed)
    await bench.forget_scripts()
    assert (await bench.store.deliver(lease.invocation_id, Cancelled(4), once="x:1")).result == "delivered"
    await bench.forget_scripts()
    assert (await bench.store.kill(lease.invocation_id, output())).result == "delivered"
    await bench.forget_scripts()
    assert await bench.store.complete_promise("Greeter/k", "p", ONE, by="me") == (True, [])
    await bench.forget_scripts()
    assert await bench.store.edit_state("Greeter/k", [("a", b"1")]) is None
