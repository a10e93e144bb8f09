"""The store's contract: results of commands, several at once, come into the journal that the commands stand in."""

from __future__ import annotations

import pytest

from perdure.journal.store import Delivery, HintDue, ResumeDue
from perdure.journal.transitions import Answered
from perdure.schemas.commands import Attach, PromiseWait
from perdure.schemas.entries import Completion, Entry, Signalled, Success

from .store_contract import (
    Bench,
    admitted,
    answered,
    calling,
    completed,
    entries_of,
    fields_of,
    new_id,
    run,
    suspended,
)

DONE = Completion(4, 5, Success(b'"x"'))


async def test_a_result_that_comes_too_late_is_not_written(bench: Bench) -> None:
    """There is an outcome, or there is no such invocation; neither has a place for it."""
    lease = await admitted(bench)
    await completed(bench, lease)
    before = await bench.dump()
    assert await answered(bench, lease.invocation_id, DONE, DONE) == Delivery("completed")
    assert await answered(bench, new_id(), DONE, DONE) == Delivery("unknown")
    assert await bench.dump() == before


async def test_an_answer_to_what_the_store_lost_is_a_gap(bench: Bench) -> None:
    """The command that it answers is not there any more: whoever asks again makes it anew."""
    lease = await suspended(bench)
    before = await bench.dump()
    for position in (1, 2):
        assert await answered(bench, lease.invocation_id, DONE, position=position) == Delivery("gap")
    assert await bench.dump() == before


@pytest.mark.parametrize("kind", ["call", "attach", "promise"])
async def test_an_answer_is_for_the_command_that_stands_where_it_says(bench: Bench, kind: str) -> None:
    """A failover has lost that one, and others have written as much since: the next attempt's gets its own."""
    lease = await admitted(bench)
    for number in range(3):
        await bench.store.deliver(lease.invocation_id, Signalled("go", 5, Success(b"1")), once=f"s:{number}")
    assert await answered(bench, lease.invocation_id, DONE, position=2) == Delivery("gap")
    made: dict[str, Entry] = {
        "call": calling(4),
        "attach": Attach(4, 5, new_id()),
        "promise": PromiseWait(4, 5, "p"),
    }
    await bench.store.append(lease, [run(0), made[kind]], after=4, seq=1, progress=True)
    for position in (2, 5):
        assert await answered(bench, lease.invocation_id, DONE, position=position) == Delivery("gap")
    assert (await answered(bench, lease.invocation_id, DONE, position=6)).result == "delivered"
    for position in (2, 6):
        assert (await answered(bench, lease.invocation_id, DONE, position=position)).result == "known"
    assert (await entries_of(bench, lease.invocation_id, after=6)) == [DONE]


async def test_answers_that_come_together_come_once_each(bench: Bench) -> None:
    """Each is known by its command and judged by itself; one wakes who waits, and none stands for what is lacking."""
    lease = await admitted(bench)
    calls = [calling(index) for index in (4, 5, 7)]
    assert await bench.store.suspend(lease, calls, after=1, seq=1, wake_in_ms=None) is None
    second, lost, third = DONE._replace(command_index=5), DONE._replace(command_index=6), DONE._replace(command_index=7)
    woken = await answered(bench, lease.invocation_id, DONE, position=2)
    assert woken.due == [ResumeDue(lease.invocation_id, 1, "Greeter")]
    together = [(2, DONE), (3, second), (3, lost), (3, second), (4, third)]
    told = await bench.store.answer(lease.invocation_id, together)
    assert told.results == ["known", "delivered", "gap", "known", "delivered"]
    assert await entries_of(bench, lease.invocation_id) == [*calls, DONE, second, third]
    assert (await fields_of(bench, lease.invocation_id))["length"] == "7"
    before = await bench.dump()
    assert (await bench.store.answer(lease.invocation_id, together[:2])).results == ["known", "known"]
    assert await bench.dump() == before


@pytest.mark.parametrize("here", ["", "w1"])
async def test_a_worker_that_runs_what_is_answered_is_hinted_once(bench: Bench, here: str) -> None:
    """However many answers there are; who asks for itself has it in the answer."""
    lease = await admitted(bench)
    await bench.store.append(lease, [calling(4), calling(5)], after=1, seq=1, progress=True)
    both = [(2, DONE), (3, DONE._replace(command_index=5))]
    told = await bench.store.answer(lease.invocation_id, both, here=here)
    assert told == Answered(["delivered", "delivered"], [HintDue("w1", lease.invocation_id)])
    hint = (bench.keys.hints("w1"), lease.invocation_id.encode())
    assert await bench.messages() == ([] if here else [hint])
