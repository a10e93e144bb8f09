"""The store's contract: what comes from outside into a journal comes once, and whoever waits for it wakes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.journal.store import Delivery, HintDue, Lease, ReplyDue, Restart, ResumeDue
from perdure.schemas.codec import encode
from perdure.schemas.commands import Awakeable, Call, Lookup, SetState, SignalWait
from perdure.schemas.entries import Cancelled, Completion, Entry, Failure, Input, Output, Signalled, Success
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import CANCELLATIONS_MAX, RECEIVED_BYTES_MAX, RECEIVED_MAX

from .store_contract import (
    LEASE_MS,
    MINUTE_MS,
    Bench,
    admission,
    admitted,
    answered,
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

DONE = Completion(4, 5, Success(b'"x"'))
BROUGHT: dict[str, Completion | Signalled | Cancelled] = {
    "completion": DONE,
    "signal": Signalled("go", 5, Success(b"\x00")),
    "cancellation": Cancelled(5),
}


@pytest.mark.parametrize("kind", BROUGHT)
async def test_what_is_delivered_wakes_who_is_suspended(bench: Bench, kind: str) -> None:
    """It stands in the journal, the invocation is ready, and the deliverer has the record to produce."""
    lease = await suspended(bench)
    resume = ResumeDue(lease.invocation_id, 1, "Greeter")
    answer = await bench.store.deliver(lease.invocation_id, BROUGHT[kind], once="x:1")
    assert answer == Delivery("delivered", [resume])
    assert await entries_of(bench, lease.invocation_id) == [BROUGHT[kind]]
    assert (await claimed(bench, lease)).entries[1].entry == BROUGHT[kind]


async def test_a_worker_that_runs_it_is_hinted(bench: Bench) -> None:
    """On its channel and in the answer; its next append brings the entry."""
    lease = await admitted(bench)
    answer = await answered(bench, lease.invocation_id, DONE)
    assert answer == Delivery("delivered", [HintDue("w1", lease.invocation_id)])
    assert await bench.messages() == [(bench.keys.hints("w1"), lease.invocation_id.encode())]
    appended = await bench.store.append(lease, [run(0)], after=1, seq=1, progress=True)
    assert [entry for _, _, entry in appended.tail or ()] == [DONE, run(0)]


async def test_a_worker_that_delivers_to_itself_needs_no_hint(bench: Bench) -> None:
    """The answer is all it needs; other workers are still told on their channels."""
    lease = await admitted(bench)
    hint = HintDue("w1", lease.invocation_id)
    assert await bench.store.deliver(lease.invocation_id, DONE, once="c:4", here="w1") == Delivery("delivered", [hint])
    assert await bench.messages() == []
    other = Signalled("go", 5, Success(b"1"))
    assert (await bench.store.deliver(lease.invocation_id, other, once="s:1", here="w2")).due == [hint]
    assert [channel for channel, _ in await bench.messages()] == [bench.keys.hints("w1")]


async def test_a_suspension_that_has_not_seen_it_does_not_happen(bench: Bench) -> None:
    """What came a moment before comes back as the answer."""
    lease = await admitted(bench)
    await answered(bench, lease.invocation_id, DONE)
    stays = await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=None)
    assert stays is not None
    assert [entry for _, _, entry in stays.tail or ()] == [DONE]


@pytest.mark.parametrize("status", ["running", "suspended", "ready", "backing-off", "paused", "scheduled"])
async def test_a_repeat_is_known(bench: Bench, status: str) -> None:
    """Whatever became of the first one, and whatever the repeat says: nothing is written."""
    lease = await in_status(bench, status)
    first = await answered(bench, lease, DONE)
    assert first.result == "delivered"
    await bench.messages()
    before = await bench.dump()
    for entry in (DONE, Completion(4, 9, Success(b"2"))):
        assert await answered(bench, lease, entry) == Delivery("known")
    assert await bench.dump() == before
    assert await bench.messages() == []
    assert (await answered(bench, lease, DONE._replace(command_index=5))).result == "delivered"


async def in_status(bench: Bench, status: str) -> InvocationId:
    """An invocation that has come to that status."""
    starts_ms = await bench.now_ms() + MINUTE_MS if status == "scheduled" else 0
    asked = admission(not_before_ms=starts_ms)
    await bench.store.admit(asked, lease_ms=LEASE_MS)
    lease, store = Lease(asked.invocation_id, 1, "t1", "w1"), bench.store
    if status == "suspended":
        await store.suspend(lease, [], after=1, seq=1, wake_in_ms=None)
    elif status == "ready":
        await store.release(lease, [], after=1, seq=1)
    elif status == "backing-off":
        await store.back_off(lease, [], after=1, seq=1, retry_in_ms=MINUTE_MS, failure="x")
    elif status == "paused":
        await store.give_up(lease, [], after=1, seq=1, failure="x")
    assert (await fields_of(bench, asked.invocation_id))["status"] == status
    return asked.invocation_id


@pytest.mark.parametrize("status", ["ready", "backing-off", "paused", "scheduled"])
async def test_a_result_wakes_nobody_who_waits_for_something_else(bench: Bench, status: str) -> None:
    """It is in the journal when the invocation goes on."""
    lease = await in_status(bench, status)
    assert await answered(bench, lease, DONE) == Delivery("delivered", [])
    assert (await fields_of(bench, lease))["status"] == status
    assert await entries_of(bench, lease) == [DONE]


async def test_names_of_what_came_are_no_fields_for_people(bench: Bench) -> None:
    """Listings show the invocation, and not everything that was ever delivered to it."""
    lease = await admitted(bench)
    for index in range(3):
        await answered(bench, lease.invocation_id, DONE._replace(command_index=index))
    assert not [name for name in await fields_of(bench, lease.invocation_id) if ":" in name]
    (listed,) = await bench.store.list_invocations("running", invocations_max=9)
    assert listed.fields == await fields_of(bench, lease.invocation_id)


async def test_what_has_not_begun_ends_when_it_is_cancelled(bench: Bench) -> None:
    """With a failure 409 that everybody who waits is told; it never starts."""
    waiter = bench.keys.outcomes("c1")
    starts_ms = await bench.now_ms() + MINUTE_MS
    asked = admission(not_before_ms=starts_ms, waiter=waiter, reply_to="replies")
    await bench.store.admit(asked, lease_ms=LEASE_MS)
    answer = await bench.store.deliver(asked.invocation_id, Cancelled(5), once="x:1")
    cancelled = Failure(409, "cancelled", {})
    assert answer == Delivery("delivered", [ReplyDue(asked.invocation_id, ["replies"], cancelled, [])])
    assert [channel for channel, _ in await bench.messages()] == [waiter]
    first, last = await entries_of(bench, asked.invocation_id)
    assert first == Cancelled(5)
    assert isinstance(last, Output)
    assert last.outcome == cancelled
    assert await bench.store.deliver(asked.invocation_id, Cancelled(5), once="x:1") == Delivery("completed")
    await bench.store.acknowledge(asked.invocation_id, reply=True)
    await bench.pass_ms(2 * 60 * MINUTE_MS)
    await sweep_all(bench)
    assert await bench.dump() == {"kept": set()}


async def test_what_was_made_ready_and_never_claimed_has_not_begun(bench: Bench) -> None:
    """Its object was just handed to it: it ends, and the object goes to the next."""
    exclusive: dict[str, Any] = {"key": "k", "mode": "exclusive"}
    first = await admitted(bench, **exclusive)
    waiting = [admission(**exclusive) for _ in range(2)]
    for asked in waiting:
        await bench.store.admit(asked, lease_ms=LEASE_MS)
    second, third = (asked.invocation_id for asked in waiting)
    await completed(bench, first)
    assert (await fields_of(bench, second))["status"] == "ready"
    answer = await bench.store.deliver(second, Cancelled(5), once="x:1")
    reply = ReplyDue(second, [], Failure(409, "cancelled", {}), [])
    assert answer == Delivery("delivered", [reply, ResumeDue(third, 0, "Greeter")])
    assert (await fields_of(bench, second))["status"] == "completed"
    lost = await bench.store.claim(second, 0, token="t", worker="w", lease_ms=LEASE_MS, at_ms=9)
    assert lost is None


async def test_what_was_restarted_with_its_steps_may_compensate_them(bench: Bench) -> None:
    """It was never claimed under its new id, and still has begun."""
    new = new_id()
    await bench.store.restart(Restart(new, "Greeter", "greet", None, Input(7, "w1", (), b"1"), kept=[run(0)]))
    assert await bench.store.deliver(new, Cancelled(5), once="x:1") == Delivery("delivered", [])
    claim = await bench.store.claim(new, 0, token="t", worker="w", lease_ms=LEASE_MS, at_ms=9)
    assert claim is not None
    assert Cancelled(5) in [row.entry for row in claim.entries]


@pytest.mark.parametrize("how", ["killed", "cancelled before it began", "a killed restart"])
async def test_what_ends_from_outside_is_kept_as_long_as_its_handler_wants(bench: Bench, how: str) -> None:
    """The outcome and the journal, each for its time."""
    kept: dict[str, Any] = {"retention_ms": 5 * 60 * MINUTE_MS, "journal_retention_ms": 3 * 60 * MINUTE_MS}
    new, failure = new_id(), Output(5, Failure(500, "killed", {}))
    if how == "a killed restart":
        await bench.store.restart(Restart(new, "Greeter", "greet", None, Input(7, "w1", (), b"1"), **kept))
    else:
        starts_ms = await bench.now_ms() + MINUTE_MS if how != "killed" else 0
        await bench.store.admit(admission(new, not_before_ms=starts_ms, **kept), lease_ms=LEASE_MS)
    if how == "cancelled before it began":
        await bench.store.deliver(new, Cancelled(5), once="x:1")
    else:
        await bench.store.kill(new, failure)
        await bench.store.acknowledge(new, cascade=True)
    for hours, there in ((2, (True, True)), (2, (True, False)), (2, (False, False))):
        await bench.pass_ms(hours * 60 * MINUTE_MS)
        await sweep_all(bench)
        found = await bench.store.read_invocation(new), await bench.store.read_journal(new)
        assert (found[0] is not None, bool(found[1])) == there
    assert await bench.dump() == {"kept": set()}


async def test_an_awakeable_is_completed_once(bench: Bench) -> None:
    """Whoever waits for it wakes; a repeat is known."""
    lease = await admitted(bench)
    await bench.store.append(lease, [Awakeable(0, 5)], after=1, seq=1, progress=True)
    await bench.store.suspend(lease, [], after=2, seq=2, wake_in_ms=None)
    done = Completion(0, 5, Success(b'"x"'))
    answer = await bench.store.complete_awakeable(lease.invocation_id, done)
    assert answer == Delivery("delivered", [ResumeDue(lease.invocation_id, 1, "Greeter")])
    assert await bench.store.complete_awakeable(lease.invocation_id, done) == Delivery("known")
    assert await entries_of(bench, lease.invocation_id) == [Awakeable(0, 5), done]
    assert not [name for name in await fields_of(bench, lease.invocation_id) if ":" in name]


OTHERS: dict[str, Entry] = {
    "run": run(0),
    "sleep": sleep(0, MINUTE_MS),
    "call": Call(0, 5, "S", "h", None, new_id(), "", (), b"1"),
    "signal": SignalWait(0, 5, "go"),
    "set": SetState(0, "name", b"1"),
    "get": Lookup("get", 0, "name", 5, True, Success(b"1")),
}


@pytest.mark.parametrize("kind", OTHERS)
async def test_only_an_awakeable_is_completed_by_its_id(bench: Bench, kind: str) -> None:
    """Another command of that index keeps waiting for its own result, and who asked is told what it is."""
    lease = await admitted(bench, key="k", mode="exclusive")
    await bench.store.append(
        lease._replace(target="Greeter/k"), [OTHERS[kind], Awakeable(1, 5)], after=1, seq=1, progress=True
    )
    before = await bench.dump()
    answer = await bench.store.complete_awakeable(lease.invocation_id, Completion(0, 5, Success(b'"x"')))
    assert answer == Delivery("no-awakeable", status=kind)
    assert await bench.dump() == before
    assert (await answered(bench, lease.invocation_id, Completion(0, 5, Success(b"1")))).due
    assert (await bench.store.complete_awakeable(lease.invocation_id, Completion(1, 5, Success(b"1")))).due


async def test_a_result_for_an_index_that_another_command_takes_keeps_out_nothing(bench: Bench) -> None:
    """It came before any command had that index; the call that has it then gets its own."""
    lease = await admitted(bench)
    forged, real = Completion(0, 5, Success(b'"x"')), Completion(0, 6, Success(b'"y"'))
    assert (await bench.store.complete_awakeable(lease.invocation_id, forged)).result == "delivered"
    await bench.store.append(lease, [OTHERS["call"]], after=2, seq=1, progress=True)
    assert (await answered(bench, lease.invocation_id, real, position=3)).result == "delivered"
    assert await entries_of(bench, lease.invocation_id) == [forged, OTHERS["call"], real]


async def test_an_awakeable_may_be_completed_before_it_is_written(bench: Bench) -> None:
    """Its handler told its name in a step that is not recorded yet; it is kept, however long the journal is."""
    lease = await admitted(bench)
    steps = [run(index) for index in range(400)]
    for start in range(0, 2_400, 400):
        moved = [step._replace(command_index=start + step.command_index) for step in steps]
        await bench.store.append(lease, moved, after=start + 1, seq=start // 400 + 1, progress=True)
    early = Completion(2_401, 5, Success(b'"x"'))
    assert (await bench.store.complete_awakeable(lease.invocation_id, early)).result == "delivered"
    for index in (0, 2_399):
        answer = await bench.store.complete_awakeable(lease.invocation_id, early._replace(command_index=index))
        assert answer == Delivery("no-awakeable", status="run")
    assert await entries_of(bench, lease.invocation_id, after=2_401) == [early]


@pytest.mark.parametrize("what", ["signals", "awakeables"])
async def test_what_an_invocation_is_sent_has_a_bound(bench: Bench, what: str) -> None:
    """The last one within it comes, the next one is refused; answers to commands and cancellations still come."""

    async def send(number: int) -> str:
        if what == "signals":
            signal = Signalled("go", 5, Success(b"1"))
            return (await bench.store.deliver(lease.invocation_id, signal, once=f"s:{number}")).result
        result = Completion(number, 5, Success(b"1"))
        return (await bench.store.complete_awakeable(lease.invocation_id, result)).result

    lease = await admitted(bench)
    if what == "awakeables":
        for start in range(0, RECEIVED_MAX + 500, 500):
            names = [Awakeable(number, 5) for number in range(start, start + 500)]
            await bench.store.append(lease, names, after=start + 1, seq=start // 500 + 1, progress=True)
    for start in range(0, RECEIVED_MAX, 1_000):
        assert set(await asyncio.gather(*map(send, range(start, start + 1_000)))) == {"delivered"}
    fields = await fields_of(bench, lease.invocation_id)
    assert fields["received"] == str(RECEIVED_MAX)
    before = fields["length"]
    assert await send(RECEIVED_MAX + 1) == "full"
    assert await send(RECEIVED_MAX - 1) == "known"
    assert (await fields_of(bench, lease.invocation_id))["length"] == before
    answer = Completion(20_000, 5, Success(b"1"))
    assert (await answered(bench, lease.invocation_id, answer)).result == "delivered"
    assert (await bench.store.deliver(lease.invocation_id, Cancelled(5), once="x:1")).result == "delivered"


async def test_what_an_invocation_is_sent_has_a_bound_in_bytes(bench: Bench) -> None:
    """Up to the last byte, counted as it is written; what is too large changes nothing, what is smaller still fits."""
    lease = await suspended(bench)

    async def send(number: int, size: int) -> str:
        signal = Signalled("go", 5, Success(b'"' + b"x" * (size - 2) + b'"'))
        return (await bench.store.deliver(lease.invocation_id, signal, once=f"s:{number}")).result

    around = len(encode(Signalled("go", 5, Success(b'""')))[1]) - 2
    for number in range(31):
        assert await send(number, 1_000_000 - around) == "delivered"
    assert await send(31, 999_000 - around) == "delivered"
    left = RECEIVED_BYTES_MAX - 31_999_000
    assert (await fields_of(bench, lease.invocation_id))["received_bytes"] == "31999000"
    assert await send(32, left + 1 - around) == "full"
    assert await send(32, left - around) == "delivered"
    assert await send(33, 2) == "full"


async def test_cancellations_have_a_bound_of_their_own(bench: Bench) -> None:
    """However many signals there were; the one beyond is refused, and a repeat is known."""
    lease = await suspended(bench)
    for number in range(CANCELLATIONS_MAX):
        answer = await bench.store.deliver(lease.invocation_id, Cancelled(5), once=f"x:{number}")
        assert answer.result == "delivered"
    before = await bench.dump()
    assert await bench.store.deliver(lease.invocation_id, Cancelled(5), once="x:late") == Delivery("full")
    assert await bench.store.deliver(lease.invocation_id, Cancelled(5), once="x:0") == Delivery("known")
    assert await bench.dump() == before
    assert (await bench.store.kill(lease.invocation_id, Output(5, Failure(409, "killed")))).result == "delivered"


@pytest.mark.parametrize("status", ["backing-off", "paused"])
async def test_a_cancellation_wakes_who_waits_for_a_retry_or_a_person(bench: Bench, status: str) -> None:
    """The handler gets the chance to compensate; its old deadline does nothing."""
    who = await in_status(bench, status)
    answer = await bench.store.deliver(who, Cancelled(5), once="x:1")
    assert answer == Delivery("delivered", [ResumeDue(who, 1, "Greeter")])
    assert await bench.store.deliver(who, Cancelled(5), once="x:1") == Delivery("known")
    # Whatever number of failures it was that stopped it.
    assert (await claimed(bench, Lease(who, 1, "", ""))).failures == 0
    await bench.pass_ms(5 * MINUTE_MS)
    assert await sweep_all(bench) == []


@pytest.mark.parametrize("way", ["back off", "give up"])
async def test_a_cancellation_that_an_attempt_has_not_seen_is_seen_by_the_next_at_once(bench: Bench, way: str) -> None:
    """It came while the attempt failed: nobody waits for the back-off, or for a person."""
    lease = await admitted(bench)
    await bench.store.deliver(lease.invocation_id, Cancelled(5), once="x:1")

    async def leave() -> None:
        if way == "back off":
            await bench.store.back_off(lease, [run(0)], after=1, seq=1, retry_in_ms=60 * MINUTE_MS, failure="x")
        else:
            await bench.store.give_up(lease, [run(0)], after=1, seq=1, failure="x")

    await leave()
    before = await bench.dump()
    await leave()
    assert await bench.dump() == before
    assert await sweep_all(bench) == [ResumeDue(lease.invocation_id, 1, "Greeter")]
    claim = await claimed(bench, lease)
    assert claim.failures == 0
    # One that was seen does not keep the next failure from waiting.
    await bench.store.back_off(claim.lease, [], after=4, seq=1, retry_in_ms=60 * MINUTE_MS, failure="x")
    assert await sweep_all(bench) == []
    assert (await fields_of(bench, lease.invocation_id))["status"] == "backing-off"
