"""The store's contract: results of commands, several at once, come into the journal that the commands stand in."""

from __future__ import annotations

import pytest

from perdure.journal.store import Delivery, HintDue, ResumeDue
from perdure.journal.transitions import Answered
from perdure.schemas.entries import Completion, Success

from .store_contract import Bench, admitted, answered, completed, entries_of, fields_of, new_id, suspended

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
    assert await answered(bench, lease.invocation_id, DONE, position=2) == Delivery("gap")
    assert await bench.dump() == before
    assert (await answered(bench, lease.invocation_id, DONE, position=1)).result == "delivered"


async def test_answers_that_come_together_come_once_each(bench: Bench) -> None:
    """Each is known by its command and judged by itself; one wakes who waits, and none stands for what is lacking."""
    lease = await suspended(bench)
    second, lost, third = DONE._replace(command_index=5), DONE._replace(command_index=6), DONE._replace(command_index=7)
    assert (await answered(bench, lease.invocation_id, DONE)).due == [ResumeDue(lease.invocation_id, 1, "Greeter")]
    together = [(1, DONE), (0, second), (3, lost), (1, second), (1, third)]
    told = await bench.store.answer(lease.invocation_id, together)
    assert told.results == ["known", "delivered", "gap", "known", "delivered"]
    assert await entries_of(bench, lease.invocation_id) == [DONE, second, third]
    assert (await fields_of(bench, lease.invocation_id))["length"] == "4"
    before = await bench.dump()
    assert (await bench.store.answer(lease.invocation_id, together[:2])).results == ["known", "known"]
    assert await bench.dump() == before


@pytest.mark.parametrize("here", ["", "w1"])
async def test_a_worker_that_runs_what_is_answered_is_hinted_once(bench: Bench, here: str) -> None:
    """However many answers there are; who asks for itself has it in the answer."""
    lease = await admitted(bench)
    both = [(1, DONE), (1, DONE._replace(command_index=5))]
    told = await bench.store.answer(lease.invocation_id, both, here=here)
    assert told == Answered(["delivered", "delivered"], [HintDue("w1", lease.invocation_id)])
    hint = (bench.keys.hints("w1"), lease.invocation_id.encode())
    assert await bench.messages() == ([] if here else [hint])
