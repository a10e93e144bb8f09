"""Telling callers what became of what they called: answers of one turn of the loop to one caller go together.

What a handler called side by side often ends side by side, and a journal takes many answers for little more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from perdure.journal.store import Caller, Due, Store
from perdure.journal.transitions import Answered
from perdure.schemas.entries import Completion, Outcome
from perdure.schemas.ids import InvocationId

from .clock import Clock

ANSWERS_MAX = 100
"""In one script: half a millisecond of Redis's time."""


class _Answer(NamedTuple):
    position: int
    entry: Completion
    told: asyncio.Future[bool]


class Answering:
    """The answers that one worker brings.

    Args:
        store: Where callers' journals are.
        clock: For display times.
        worker: This worker's id.
        on_due: Told what is due then.
    """

    def __init__(self, store: Store, *, clock: Clock, worker: str, on_due: Callable[[Sequence[Due]], None]) -> None:
        self._store = store
        self._clock = clock
        self._worker = worker
        self._on_due = on_due
        self._gathering: dict[InvocationId, list[_Answer]] = {}

    def tell(self, caller: Caller, outcome: Outcome) -> asyncio.Future[bool]:
        """Tell an outcome to who called; whether it is known there now, or never can be.

        Raises:
            StoreError: In the future: it was refused, or is not sure; it is to be told again.
        """
        loop = asyncio.get_running_loop()
        entry = Completion(caller.command_index, self._clock.now_ms(), outcome)
        answer = _Answer(caller.position, entry, loop.create_future())
        together = self._gathering.get(caller.invocation_id)
        if together is None or len(together) >= ANSWERS_MAX:
            together = self._gathering[caller.invocation_id] = []
            # What ends in the same turn of the loop comes along.
            loop.call_soon(self._bring, caller.invocation_id, together)
        together.append(answer)
        return answer.told

    def _bring(self, invocation_id: InvocationId, together: list[_Answer]) -> None:
        if self._gathering.get(invocation_id) is together:
            del self._gathering[invocation_id]
        answers = [(answer.position, answer.entry) for answer in together]
        try:
            reply = self._store.answer(invocation_id, answers, here=self._worker)
        except Exception as error:
            _fail(together, error)
        else:
            reply.add_done_callback(lambda reply: self._brought(together, reply))

    def _brought(self, together: list[_Answer], reply: asyncio.Future[Answered]) -> None:
        if reply.cancelled():
            for answer in together:
                answer.told.cancel()
        elif (error := reply.exception()) is not None:
            _fail(together, error)
        else:
            results, due = reply.result()
            for answer, result in zip(together, results, strict=True):
                if not answer.told.done():
                    # Where the caller's journal lost the call, its next attempt makes it again.
                    answer.told.set_result(result != "gap")
            self._on_due(due)


def _fail(together: list[_Answer], error: BaseException) -> None:
    for answer in together:
        if not answer.told.done():
            answer.told.set_exception(error)
