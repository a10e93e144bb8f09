"""The store's contract: on one server, the transition that completes what was called tells its callers."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from perdure.journal.memory_attempt import TOLD_BYTES_MAX, TOLD_MAX
from perdure.journal.store import Caller, Concluded, HintDue, Lease, ReplyDue, ResumeDue
from perdure.schemas.commands import Call
from perdure.schemas.entries import Completion, Entry, Failure, Outcome, Output, Signalled, Success
from perdure.schemas.ids import InvocationId, slot_of

from .store_contract import (
    MINUTE_MS,
    SLOTS,
    Bench,
    admitted,
    claimed,
    completed,
    entries_of,
    fields_of,
    new_id,
    output,
    redis_bench,
    suspended,
    sweep_all,
)

OUTCOMES = [
    Success(b'"done"'),
    Success(b""),
    Success(b"\xff\x00"),
    Failure(500, 'no, "never": {"index":7}', {"why": "x"}),
]


def call(index: int, callee: InvocationId) -> Call:
    """A call of it."""
    return Call(index, 5, "Greeter", "greet", None, callee, "", (), b"null")


async def called(bench: Bench, *, suspends: bool = False, index: int = 4) -> tuple[Caller, Lease]:
    """A caller that runs (or was suspended) and waits for what it called, and the lease of that; in two slots."""
    lease = await admitted(bench)
    callee = new_id()
    while slot_of(callee, SLOTS) == slot_of(lease.invocation_id, SLOTS):
        callee = new_id()
    if suspends:
        await bench.store.suspend(lease, [call(index, callee)], after=1, seq=1, wake_in_ms=None)
    else:
        await bench.store.append(lease, [call(index, callee)], after=1, seq=1, progress=True)
    await bench.store.acknowledge(lease.invocation_id, sent=[2])
    waiting = Caller(lease.invocation_id, index, 2)
    return waiting, await admitted(bench, invocation_id=callee, caller=str(waiting))


async def concluded(bench: Bench, lease: Lease, outcome: Outcome) -> Concluded:
    """Complete an invocation."""
    return await bench.store.complete(
        lease, [Output(9, outcome)], after=1, seq=1, retention_ms=MINUTE_MS, journal_retention_ms=MINUTE_MS
    )


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_caller_has_the_outcome_with_the_transition(bench: Bench, outcome: Outcome) -> None:
    """As its own entry, whatever it is; nothing is owed any more, and retention begins."""
    waiting, lease = await called(bench)
    told = await concluded(bench, lease, outcome)
    assert told[:3] == ([], [], None)
    assert told.due == [HintDue("w1", waiting.invocation_id)]
    assert await entries_of(bench, waiting.invocation_id, after=2) == [Completion(4, 9, outcome)]
    assert (await fields_of(bench, waiting.invocation_id))["length"] == "3"
    await bench.pass_ms(MINUTE_MS // 2)
    assert await sweep_all(bench) == []
    assert await bench.store.read_invocation(lease.invocation_id) is not None
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == []
    assert await bench.store.read_invocation(lease.invocation_id) is None


async def test_a_caller_that_waits_elsewhere_is_made_ready(bench: Bench) -> None:
    """And whoever completed it is told to have it resumed; if that is not done, `due` says so again."""
    waiting, lease = await called(bench, suspends=True)
    told = await completed(bench, lease)
    assert told.due == [ResumeDue(waiting.invocation_id, 1, "Greeter")]
    assert (await fields_of(bench, waiting.invocation_id))["status"] == "ready"
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [ResumeDue(waiting.invocation_id, 1, "Greeter")]


@pytest.mark.parametrize("worker", ["w1", "w2"])
async def test_another_worker_is_hinted(bench: Bench, worker: str) -> None:
    """Who completes it knows of its own callers by the answer."""
    waiting, lease = await called(bench, suspends=True)
    await bench.store.deliver(waiting.invocation_id, Signalled("go", 5, Success(b"1")), once="s:1")
    await claimed(bench, lease._replace(invocation_id=waiting.invocation_id), worker=worker)
    await bench.messages()
    assert (await completed(bench, lease)).due == [HintDue(worker, waiting.invocation_id)]
    hint = (bench.keys.hints(worker), waiting.invocation_id.encode())
    assert await bench.messages() == ([] if worker == "w1" else [hint])


async def test_a_caller_of_whom_a_failover_lost_the_call_is_left(bench: Bench) -> None:
    """Nothing comes into its journal; the outcome is owed until it calls again."""
    waiting, _ = await called(bench)
    lost = Caller(waiting.invocation_id, 9, 2)
    lease = await admitted(bench, caller=str(lost))
    told = await completed(bench, lease)
    assert (told.callers, told.due) == ([lost], [])
    assert await entries_of(bench, waiting.invocation_id, after=2) == []
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == [ReplyDue(lease.invocation_id, [], output().outcome, [lost])]


async def test_who_needs_no_outcome_is_owed_none(bench: Bench) -> None:
    """It has one already, it has ended, or it is not known any more."""
    waiting, lease = await called(bench)
    answer = Completion(4, 5, Success(b"1"))
    await bench.store.answer(waiting.invocation_id, [(2, answer)])
    assert (await completed(bench, lease))[1:3] == ([], None)
    assert await entries_of(bench, waiting.invocation_id, after=2) == [answer]
    ended, other = await called(bench)
    await bench.store.kill(ended.invocation_id, Output(5, Failure(409, "killed", {})))
    nobody = Caller(new_id(), 3, 2)
    await bench.store.attach(other.invocation_id, "", caller=str(nobody))
    told = await completed(bench, other)
    assert (told.callers, told.due) == ([], [])


async def test_a_reply_is_owed_to_its_topic_alone(bench: Bench) -> None:
    """The caller is told, and is not told again with it."""
    waiting, _ = await called(bench)
    callee = new_id()
    lease = await admitted(bench, invocation_id=callee, caller=str(waiting), reply_to="replies")
    told = await completed(bench, lease)
    assert (told.topics, told.callers) == (["replies"], [])
    assert (await fields_of(bench, waiting.invocation_id))["length"] == "3"
    await bench.pass_ms(MINUTE_MS)
    assert [due.topics for due in await sweep_all(bench) if isinstance(due, ReplyDue)] == [["replies"]]
    await bench.store.acknowledge(callee, reply=True)
    await bench.pass_ms(MINUTE_MS)
    assert await sweep_all(bench) == []


async def test_a_repeat_changes_nothing(bench: Bench) -> None:
    """The connection was lost before the answer came: callers are named again, and know it."""
    waiting, lease = await called(bench)
    await completed(bench, lease)
    before = await bench.dump()
    again = await completed(bench, lease)
    assert (again.callers, again.due) == ([waiting], [])
    told = await bench.store.answer(waiting.invocation_id, [(2, Completion(4, 9, output().outcome))])
    assert told.results == ["known"]
    await bench.store.acknowledge(lease.invocation_id, reply=True)
    assert await bench.dump() == before


async def attached(bench: Bench, count: int) -> tuple[Lease, Lease, list[Caller]]:
    """One invocation for whose outcome another one waits with so many commands; its lease, that one's, the commands."""
    lease, callee = await admitted(bench), new_id()
    for number, start in enumerate(range(0, count, 50)):
        part: list[Entry] = [call(index, callee) for index in range(start, min(start + 50, count))]
        await bench.store.append(lease, part, after=1 + start, seq=1 + number, progress=True)
    callers = [Caller(lease.invocation_id, index, index + 2) for index in range(count)]
    await bench.store.acknowledge(lease.invocation_id, sent=range(2, count + 2))
    of_callee = await admitted(bench, invocation_id=callee, caller=str(callers[0]))
    for caller in callers[1:]:
        await bench.store.attach(callee, "", caller=str(caller))
    return lease, of_callee, callers


async def test_one_transition_tells_so_many(bench: Bench) -> None:
    """The others are named, to be told one by one; all of them are owed it until they are."""
    lease, of_callee, callers = await attached(bench, TOLD_MAX + 3)
    told = await completed(bench, of_callee)
    assert told.callers == callers[TOLD_MAX:]
    assert len(await entries_of(bench, lease.invocation_id, after=TOLD_MAX + 4)) == TOLD_MAX
    await bench.pass_ms(MINUTE_MS // 2)
    owed = [due for due in await sweep_all(bench) if isinstance(due, ReplyDue)]
    assert [due.callers for due in owed] == [callers]


async def test_one_transition_tells_so_much(bench: Bench) -> None:
    """Large outcomes would hold the server, and the connections of replicas, for long."""
    lease, of_callee, callers = await attached(bench, 7)
    huge = Success(b'"%b"' % (b"x" * (TOLD_BYTES_MAX // 5)))
    told = await concluded(bench, of_callee, huge)
    assert told.callers == callers[5:]
    assert len(await entries_of(bench, lease.invocation_id, after=8)) == 5


@pytest.mark.parametrize("what", ["invocation", "journal", "fields"])
async def test_a_damaged_caller_keeps_nobody_from_ending(redis_url: str, namespace: str, what: str) -> None:
    """Its keys hold something else: what it called has its outcome, and the caller is left to be told."""
    async with redis_bench(namespace, redis_url) as bench, Redis.from_url(redis_url) as client:
        waiting, lease = await called(bench)
        keys = bench.keys.of(waiting.invocation_id)
        if what == "fields":
            await client.hdel(keys.invocation.decode(), "length", "epoch", "worker")
        else:
            await client.set(keys.invocation if what == "invocation" else keys.journal, "damaged")
        told = await completed(bench, lease)
        assert told.callers == [waiting]
        assert (await fields_of(bench, lease.invocation_id))["status"] == "completed"
        await client.delete(keys.invocation, keys.journal)


async def test_where_slots_are_on_several_nodes_callers_are_told_one_by_one(spread_bench: Bench) -> None:
    """No script may touch a caller's keys there."""
    bench = spread_bench
    waiting, lease = await called(bench)
    told = await completed(bench, lease)
    assert (told.callers, told.due) == ([waiting], [])
    assert await entries_of(bench, waiting.invocation_id, after=2) == []
    await bench.pass_ms(MINUTE_MS)
    assert ReplyDue(lease.invocation_id, [], output().outcome, [waiting]) in await sweep_all(bench)


async def test_a_caller_that_was_told_stays(bench: Bench) -> None:
    """Its callee has ended before it could leave."""
    waiting, lease = await called(bench)
    await completed(bench, lease)
    mine = lease._replace(invocation_id=waiting.invocation_id)
    stayed = await bench.store.suspend(mine, [], after=2, seq=2, wake_in_ms=None)
    assert stayed is not None
    assert [entry for _, _, entry in stayed.tail or ()] == [Completion(4, 9, output().outcome)]


async def test_of_what_is_suspended_and_called_nobody_is_told(bench: Bench) -> None:
    """An invocation without callers ends as before."""
    lease = await suspended(bench)
    await bench.store.deliver(lease.invocation_id, Signalled("go", 5, Success(b"1")), once="s:1")
    claim = await claimed(bench, lease)
    told = await completed(bench, claim.lease, after=3, seq=1)
    assert (told.callers, told.due) == ([], [])
