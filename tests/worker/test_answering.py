"""Telling callers together: `perdure.worker.answering`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perdure.journal.store import Caller, Due, HintDue
from perdure.journal.transitions import Answered
from perdure.schemas.entries import Completion, Success
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId
from perdure.worker.answering import ANSWERS_MAX, Answering
from tests.waiting import wait_until
from tests.worker.attempt_stage import SkippingClock

MINE, OTHERS = InvocationId("inv-mine"), InvocationId("inv-others")
ONE = Success(b"1")


class Journals:
    """The part of a store that is asked: it answers when a test lets it, and what a test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[InvocationId, list[tuple[int, int]]]] = []
        self.results: dict[int, str] = {}
        self.failure: StoreError | None = None
        self.bug: ValueError | None = None
        self._answers: list[asyncio.Task[Answered]] = []
        self.open = asyncio.Event()
        self.open.set()

    def answer(
        self, invocation_id: InvocationId, answers: Sequence[tuple[int, Completion]], *, here: str
    ) -> asyncio.Task[Answered]:
        """See `Store.answer`."""
        assert here == "me"
        if self.bug is not None:
            raise self.bug
        self.asked.append((invocation_id, [(position, entry.command_index) for position, entry in answers]))
        self._answers.append(asyncio.create_task(self._answer(invocation_id, answers)))
        return self._answers[-1]

    def close(self) -> None:
        """Answer nothing any more."""
        for answer in self._answers:
            answer.cancel()

    async def _answer(self, invocation_id: InvocationId, answers: Sequence[tuple[int, Completion]]) -> Answered:
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        results = [self.results.get(entry.command_index, "delivered") for _, entry in answers]
        return Answered(results, [HintDue("me", invocation_id)])


class Scene:
    """Answers that are brought to journals."""

    def __init__(self) -> None:
        self.journals = Journals()
        self.due: list[Due] = []
        store: Any = self.journals
        self.answering = Answering(store, clock=SkippingClock(), worker="me", on_due=self.due.extend)

    def tell(self, *indexes: int, invocation_id: InvocationId = MINE) -> list[asyncio.Future[bool]]:
        """Begin to tell the results of these commands, in one turn of the loop."""
        callers = [Caller(invocation_id, index, 10 + index) for index in indexes]
        return [self.answering.tell(caller, ONE) for caller in callers]


async def test_what_ends_in_one_turn_of_the_loop_is_told_together() -> None:
    """To each caller in one call; who ends later is told by itself, also while the first ones are on their way."""
    scene = Scene()
    scene.journals.open.clear()
    first = [*scene.tell(1, 2), *scene.tell(7, invocation_id=OTHERS)]
    await wait_until(lambda: len(scene.journals.asked) == 2)
    second = scene.tell(3)
    await wait_until(lambda: len(scene.journals.asked) == 3)
    assert scene.journals.asked == [(MINE, [(11, 1), (12, 2)]), (OTHERS, [(17, 7)]), (MINE, [(13, 3)])]
    scene.journals.open.set()
    assert await asyncio.gather(*first, *second) == [True] * 4
    assert scene.due == [HintDue("me", MINE), HintDue("me", OTHERS), HintDue("me", MINE)]


async def test_each_learns_what_became_of_its_own() -> None:
    """A command that the store lost will be there again, and be told then; what cannot be told any more is done."""
    scene = Scene()
    scene.journals.results = {2: "gap", 3: "known", 4: "completed"}
    assert await asyncio.gather(*scene.tell(1, 2, 3, 4)) == [True, False, True, True]


async def test_an_error_is_everybodys() -> None:
    """Nobody waits for ever; all of it is told again when due."""
    scene = Scene()
    scene.journals.failure = StoreError("Redis is full.")
    answers = await asyncio.gather(*scene.tell(1, 2, 3), return_exceptions=True)
    assert answers == [scene.journals.failure] * 3


@pytest.mark.parametrize("ends", [0, 1])
async def test_one_who_ends_takes_nobody_along(ends: int) -> None:
    """The others are told, whoever does not wait for it any more."""
    scene = Scene()
    scene.journals.open.clear()
    told = scene.tell(1, 2)
    await wait_until(lambda: scene.journals.asked)
    told[ends].cancel()
    scene.journals.open.set()
    assert await told[1 - ends]


async def test_nobody_waits_for_a_store_that_was_closed() -> None:
    """Who asked is cancelled with the answer."""
    scene = Scene()
    scene.journals.open.clear()
    told = scene.tell(1, 2)
    await wait_until(lambda: scene.journals.asked)
    scene.journals.close()
    await asyncio.wait(told)
    assert all(each.cancelled() for each in told)


async def test_what_cannot_even_be_asked_is_told_like_any_other_failure() -> None:
    """Such as one that cannot be encoded."""
    scene = Scene()
    scene.journals.bug = ValueError("no such outcome")
    assert await asyncio.gather(*scene.tell(1, 2), return_exceptions=True) == [scene.journals.bug] * 2


async def test_a_call_has_a_bound() -> None:
    """More than that many go in several."""
    scene = Scene()
    assert all(await asyncio.gather(*scene.tell(*range(ANSWERS_MAX + 1))))
    assert [len(answers) for _, answers in scene.journals.asked] == [ANSWERS_MAX, 1]
