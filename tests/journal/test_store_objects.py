"""The store's contract: objects are held one at a time, in order, and their state changes with the journal."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.journal.store import Claimed, Duplicate, Follow, Full, Lease, Queued, ResumeDue, Scheduled
from perdure.schemas.commands import ClearAll, ClearState, SetState
from perdure.schemas.entries import AttemptStarted, Cancelled, Entry, Signalled, Success
from perdure.schemas.errors import FencedError
from perdure.schemas.ids import InvocationId

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
    output,
    run,
    sweep_all,
)

TARGET = "Greeter/k"
EXCLUSIVE: dict[str, Any] = {"key": "k", "mode": "exclusive"}


async def queued(bench: Bench, **changes: object) -> InvocationId:
    """Admit an exclusive invocation behind another one."""
    asked = admission(**{**EXCLUSIVE, **changes})
    assert await bench.store.admit(asked, lease_ms=LEASE_MS) == Queued()
    return asked.invocation_id


async def test_exclusive_invocations_of_a_key_run_in_the_order_of_admission(bench: Bench) -> None:
    """One holds the object, the others are pending; each outcome hands it to the next, ready to be claimed."""
    first = await admitted(bench, **EXCLUSIVE)
    second, third = await queued(bench), await queued(bench)
    assert (await fields_of(bench, second))["status"] == "pending"
    assert await bench.store.claim(second, 0, token="t", worker="w", lease_ms=LEASE_MS, at_ms=1) is None
    assert (await completed(bench, first)).following == ResumeDue(second, 0, "Greeter")
    claim = await claimed(bench, Lease(second, 0, "", ""))
    assert (claim.lease.target, claim.mode) == (TARGET, "exclusive")
    assert (await completed(bench, claim.lease, after=2)).following == ResumeDue(third, 0, "Greeter")
    claim = await claimed(bench, Lease(third, 0, "", ""))
    assert (await completed(bench, claim.lease, after=2)).following is None
    assert not [key for key in await bench.dump() if ":object:" in key or ":queue:" in key]


async def test_a_repeated_outcome_names_the_next_again(bench: Bench) -> None:
    """The first answer may be lost, and somebody has to claim what became ready."""
    first = await admitted(bench, **EXCLUSIVE)
    second = await queued(bench)
    assert await completed(bench, first) == await completed(bench, first)
    await claimed(bench, Lease(second, 0, "", ""))
    assert (await completed(bench, first)).following is None


async def test_the_next_is_claimed_with_the_outcome(bench: Bench) -> None:
    """In the same transition, with the state as the outcome left it; a repeat brings the same claim again."""
    first = await admitted(bench, **EXCLUSIVE)
    second = await queued(bench)
    given: dict[str, Any] = {"retention_ms": MINUTE_MS, "journal_retention_ms": MINUTE_MS}
    given["follow"] = Follow("next", LEASE_MS, 7)
    told = await bench.store.complete(first, [SetState(0, "n", b"1"), output()], after=1, seq=1, **given)
    claim = told.claim
    assert claim is not None
    assert claim.lease == Lease(second, 1, "next", first.worker, TARGET)
    assert [entry for _, _, entry in claim.entries][1:] == [AttemptStarted(7, first.worker)]
    assert claim.state == {"n": b"1"}
    assert (claim.mode, claim.handler) == ("exclusive", "greet")
    assert (await fields_of(bench, second))["status"] == "running"
    again = await bench.store.complete(first, [SetState(0, "n", b"1"), output()], after=1, seq=1, **given)
    assert again.claim == claim
    assert (await bench.store.append(claim.lease, [run(0)], after=2, seq=1, progress=True)).length == 3
    await bench.pass_ms(LEASE_MS + 1)
    assert [type(due) for due in await sweep_all(bench)] == [ResumeDue]


async def test_a_long_journal_is_not_handed_over(bench: Bench) -> None:
    """One with many signals before it began is ready, and read in pages by who claims it."""
    first = await admitted(bench, **EXCLUSIVE)
    second = await queued(bench)
    for number in range(100):
        await bench.store.deliver(second, Signalled("go", 1, Success(b"1")), once=f"s:{number}")
    given: dict[str, Any] = {"retention_ms": MINUTE_MS, "journal_retention_ms": MINUTE_MS}
    told = await bench.store.complete(first, [output()], after=1, seq=1, **given, follow=Follow("next", LEASE_MS, 7))
    assert told.claim is None
    assert told.following == ResumeDue(second, 0, "Greeter")
    assert len((await claimed(bench, Lease(second, 0, "", ""))).entries) == 102


async def test_nobody_claims_what_was_handed_over(bench: Bench) -> None:
    """Its resume record is produced again, as that of anything that is ready."""
    first = await admitted(bench, **EXCLUSIVE)
    second = await queued(bench)
    await completed(bench, first)
    await bench.pass_ms(2 * MINUTE_MS)
    assert await sweep_all(bench) == [ResumeDue(second, 0, "Greeter")]


async def test_other_keys_and_other_handlers_do_not_wait(bench: Bench) -> None:
    """Neither a shared handler of the key, nor an exclusive one of another."""
    await admitted(bench, **EXCLUSIVE)
    others: list[dict[str, Any]] = [{"key": "k"}, {"key": "other", "mode": "exclusive"}, {}]
    for other in others:
        assert isinstance(await bench.store.admit(admission(**other), lease_ms=LEASE_MS), Claimed)


@pytest.mark.parametrize("way", ["suspend", "back off", "give up", "release", "lose the lease"])
async def test_an_object_is_held_while_its_holder_is_away(bench: Bench, way: str) -> None:
    """Only an outcome lets the next one in."""
    lease = await admitted(bench, **EXCLUSIVE)
    store = bench.store
    if way == "suspend":
        await store.suspend(lease, [], after=1, seq=1, wake_in_ms=None)
    elif way == "back off":
        await store.back_off(lease, [], after=1, seq=1, retry_in_ms=MINUTE_MS, failure="x")
    elif way == "give up":
        await store.give_up(lease, [], after=1, seq=1, failure="x")
    elif way == "release":
        await store.release(lease, [], after=1, seq=1)
    await queued(bench)
    await bench.pass_ms(2 * LEASE_MS)
    await sweep_all(bench)
    await queued(bench)


async def test_a_full_queue_takes_nobody(bench: Bench) -> None:
    """Nothing is written, so that it can be tried again; a known id is a duplicate all the same."""
    first = await admitted(bench, **EXCLUSIVE)
    second = await queued(bench, queue_max=1)
    refused = admission(**EXCLUSIVE, queue_max=1)
    before = await bench.dump()
    assert await bench.store.admit(refused, lease_ms=LEASE_MS) == Full()
    again = admission(second, **EXCLUSIVE, queue_max=1)
    assert await bench.store.admit(again, lease_ms=LEASE_MS) == Duplicate("pending", None)
    assert await bench.dump() == before
    await completed(bench, first)
    assert await bench.store.admit(refused, lease_ms=LEASE_MS) == Queued()


async def test_what_is_cancelled_while_it_waits_leaves_the_queue(bench: Bench) -> None:
    """It is over at once, and the one behind it is next."""
    first = await admitted(bench, **EXCLUSIVE)
    second, third = await queued(bench), await queued(bench)
    assert (await bench.store.deliver(second, Cancelled(7), once="x:1")).result == "delivered"
    assert (await fields_of(bench, second))["status"] == "completed"
    assert (await completed(bench, first)).following == ResumeDue(third, 0, "Greeter")


async def test_a_delayed_one_joins_the_queue_when_it_is_due(bench: Bench) -> None:
    """Who was admitted meanwhile is before it; where the object is free it is ready."""
    first = await admitted(bench, **EXCLUSIVE)
    starts_ms = await bench.now_ms() + 5 * MINUTE_MS
    late = admission(**EXCLUSIVE, not_before_ms=starts_ms)
    assert await bench.store.admit(late, lease_ms=LEASE_MS) == Scheduled()
    second = await queued(bench)
    await bench.pass_ms(6 * MINUTE_MS)
    assert await sweep_all(bench) == []
    assert (await fields_of(bench, late.invocation_id))["status"] == "pending"
    assert (await completed(bench, first)).following == ResumeDue(second, 0, "Greeter")
    claim = await claimed(bench, Lease(second, 0, "", ""))
    assert (await completed(bench, claim.lease, after=2)).following == ResumeDue(late.invocation_id, 0, "Greeter")


async def test_a_delayed_one_holds_a_free_object_when_it_is_due(bench: Bench) -> None:
    """From its start on, before anybody claims it."""
    starts_ms = await bench.now_ms() + 5 * MINUTE_MS
    late = admission(**EXCLUSIVE, not_before_ms=starts_ms)
    await bench.store.admit(late, lease_ms=LEASE_MS)
    await bench.pass_ms(6 * MINUTE_MS)
    assert await sweep_all(bench) == [ResumeDue(late.invocation_id, 0, "Greeter")]
    await queued(bench)


async def test_state_is_written_with_the_entries_that_say_so(bench: Bench) -> None:
    """In the order of the entries, under the fence; a resend of the append writes nothing over it."""
    lease = await admitted(bench, **EXCLUSIVE)
    writes: list[Entry] = [
        SetState(0, "a", b"1"),
        SetState(1, "b", b'{"x":[1]}'),
        SetState(2, "a", b"2"),
        ClearState(3, "gone"),
    ]
    await bench.store.append(lease, writes, after=1, seq=1, progress=True)
    assert await bench.store.read_state(TARGET) == {"a": b"2", "b": b'{"x":[1]}'}
    assert await entries_of(bench, lease.invocation_id) == writes
    assert await bench.store.read_names(TARGET) == ["a", "b"]
    assert await bench.store.read_value(TARGET, "b") == b'{"x":[1]}'
    assert await bench.store.read_value(TARGET, "c") is None
    await bench.store.append(lease, [SetState(4, "a", b"3"), ClearState(5, "b")], after=5, seq=2, progress=True)
    await bench.store.append(lease, writes, after=1, seq=1, progress=True)
    assert await bench.store.read_state(TARGET) == {"a": b"3"}


async def test_the_last_write_of_an_attempt_changes_state_too(bench: Bench) -> None:
    """What is written with the outcome or with leaving takes effect as in any append, and the next one sees it."""
    lease = await admitted(bench, **EXCLUSIVE)
    await bench.store.release(lease, [SetState(0, "a", b"1")], after=1, seq=1)
    claim = await claimed(bench, lease)
    assert claim.state == {"a": b"1"}
    second = await queued(bench)
    await bench.store.complete(
        claim.lease, [SetState(1, "b", b"2"), output()], after=3, seq=1, retention_ms=1, journal_retention_ms=1
    )
    assert (await claimed(bench, Lease(second, 0, "", ""))).state == {"a": b"1", "b": b"2"}


async def test_clearing_all_leaves_no_key(bench: Bench) -> None:
    """And what is set after it in the same append stands."""
    lease = await admitted(bench, **EXCLUSIVE)
    await bench.store.append(lease, [SetState(0, "a", b"1"), SetState(1, "b", b"1")], after=1, seq=1, progress=True)
    await bench.store.append(lease, [ClearAll(2), SetState(3, "c", b"1")], after=3, seq=2, progress=True)
    assert await bench.store.read_state(TARGET) == {"c": b"1"}
    await bench.store.append(lease, [ClearState(4, "c")], after=5, seq=3, progress=True)
    await bench.store.append(lease, [SetState(5, "d", b"1"), ClearAll(6)], after=6, seq=4, progress=True)
    assert await bench.store.read_state(TARGET) == {}
    assert not [key for key in await bench.dump() if ":state:" in key]


@pytest.mark.parametrize(
    "value", [b"", b"\xff\x00", b"base64:", b"not json", b' "spaced" ', b'{"value":1,"v":",\\"value\\":"}']
)
async def test_any_bytes_can_be_a_value_under_any_name(bench: Bench, value: bytes) -> None:
    """JSON is kept as it is, all else as base64; names are any text."""
    lease = await admitted(bench, **EXCLUSIVE)
    names = ["plain", ',"value":', 'Größe\n\t"', "=", ""]
    writes: list[Entry] = [SetState(index, name, value) for index, name in enumerate(names)]
    await bench.store.append(lease, writes, after=1, seq=1, progress=True)
    assert await bench.store.read_state(TARGET) == dict.fromkeys(names, value)
    assert await bench.store.read_value(TARGET, names[1]) == value
    await bench.store.append(lease, [ClearState(9, name) for name in names], after=1 + len(names), seq=2, progress=True)
    assert await bench.store.read_state(TARGET) == {}


async def test_a_fenced_attempt_changes_no_state(bench: Bench) -> None:
    """Neither alone nor among steps."""
    lease = await admitted(bench, **EXCLUSIVE)
    await bench.store.append(lease, [SetState(0, "a", b"1")], after=1, seq=1, progress=True)
    await bench.store.release(lease, [], after=2, seq=2)
    await claimed(bench, lease)
    with pytest.raises(FencedError):
        await bench.store.append(lease, [run(1), SetState(2, "a", b"2")], after=2, seq=3, progress=True)
    assert await bench.store.read_state(TARGET) == {"a": b"1"}


@pytest.mark.parametrize("mode", ["exclusive", "main", ""])
async def test_small_state_comes_with_the_claim(bench: Bench, mode: str) -> None:
    """Of whichever handler of the object; a service has none."""
    assert await bench.store.edit_state(TARGET, [("a", b"1"), ("b", b"\xff")]) is None
    answer = await bench.store.admit(admission(key="k", mode=mode), lease_ms=LEASE_MS)
    assert isinstance(answer, Claimed)
    assert answer.state == {"a": b"1", "b": b"\xff"}
    await bench.store.release(answer.lease, [], after=1, seq=1)
    assert (await claimed(bench, answer.lease)).state == {"a": b"1", "b": b"\xff"}
    service = await bench.store.admit(admission(), lease_ms=LEASE_MS)
    assert isinstance(service, Claimed)
    assert service.state is None


@pytest.mark.parametrize(("names", "value_bytes"), [(201, 1), (150, 2_000), (1, 100_000)])
async def test_large_state_is_read_when_it_is_asked_for(bench: Bench, names: int, value_bytes: int) -> None:
    """Many names, or many bytes: neither admission nor claim brings it."""
    value = b'"%b"' % (b"x" * value_bytes)
    assert await bench.store.edit_state(TARGET, [(f"n{index:03}", value) for index in range(names)]) is None
    answer = await bench.store.admit(admission(**EXCLUSIVE), lease_ms=LEASE_MS)
    assert isinstance(answer, Claimed)
    assert answer.state is None
    await bench.store.release(answer.lease, [], after=1, seq=1)
    assert (await claimed(bench, answer.lease)).state is None
    assert await bench.store.read_value(TARGET, "n000") == value
    assert len(await bench.store.read_names(TARGET)) == names


async def test_a_few_huge_values_among_many_small_ones_are_large(bench: Bench) -> None:
    """Every value counts, and not a sample of them."""
    huge = b'"%b"' % (b"x" * 80_000)
    changes = [(f"n{index}", huge if index == 77 else b"1") for index in range(150)]
    assert await bench.store.edit_state(TARGET, changes) is None
    answer = await bench.store.admit(admission(key="k"), lease_ms=LEASE_MS)
    assert isinstance(answer, Claimed)
    assert answer.state is None


async def test_people_change_state_while_nobody_holds_the_object(bench: Bench) -> None:
    """Refused with the id of who holds it, unless forced; twice is as once."""
    for _ in range(2):
        assert await bench.store.edit_state(TARGET, [("a", b"1"), ("b", b"2")]) is None
    lease = await admitted(bench, **EXCLUSIVE)
    before = await bench.dump()
    assert await bench.store.edit_state(TARGET, [("a", b"9")], clear=True) == lease.invocation_id
    assert await bench.dump() == before
    assert await bench.store.edit_state(TARGET, [("a", b"3"), ("b", None)], force=True) is None
    assert await bench.store.read_state(TARGET) == {"a": b"3"}
    await completed(bench, lease)
    assert await bench.store.edit_state(TARGET, [("c", b"4")], clear=True) is None
    assert await bench.store.read_state(TARGET) == {"c": b"4"}
    assert await bench.store.edit_state(TARGET, [], clear=True) is None
    assert not [key for key in await bench.dump() if ":state:" in key]


async def test_state_outlives_the_invocations_of_an_object(bench: Bench) -> None:
    """It has no retention."""
    lease = await admitted(bench, **EXCLUSIVE)
    await bench.store.append(lease, [SetState(0, "a", b"1")], after=1, seq=1, progress=True)
    await completed(bench, lease, after=2, seq=2)
    await bench.pass_ms(2 * 60 * MINUTE_MS)
    await sweep_all(bench)
    slot = bench.keys.slot_of_target(TARGET)
    assert await bench.dump() == {f"{{{slot}}}:state:{TARGET}": {"a": "1"}, "kept": set()}
