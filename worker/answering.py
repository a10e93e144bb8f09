"""Telling callers what became of what they called: answers of one turn of the loop to one caller go together.

What a handler called side by side often ends side by side, and a journal takes many answers for little more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from perdure.journal.store import Caller, Due, Store
from perdure.schemas.entries import Completion, Outcome
from perdure.schemas.errors import StoreError
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

    async def tell(self, caller: Caller, outcome: Outcome) -> bool:
        """Tell an outcome to who called; whether it is known there now, or never can be.

        Raises:
            StoreError: It was refused, or is not sure; it is to be told again.
        """
        entry = Completion(caller.command_index, self._clock.now_ms(), outcome)
        answer = _Answer(caller.position, entry, asyncio.get_running_loop().create_future())
        together = self._gathering.get(caller.invocation_id)
        if together is not None and len(together) < ANSWERS_MAX:
            together.append(answer)
            return await answer.told
        together = self._gathering[caller.invocation_id] = [answer]
        error: Exception = StoreError(f"{caller.invocation_id} was not told, because this worker ends.")
        try:
            try:
                # What ended in the same turn of the loop comes along.
                await asyncio.sleep(0)
            finally:
                if self._gathering.get(caller.invocation_id) is together:
                    del self._gathering[caller.invocation_id]
            return (await self._bring(caller.invocation_id, together))[0]
        except Exception as failed:
            error = failed
            raise
        finally:
            for other in together[1:]:
                if not other.told.done():
                    other.told.set_exception(error)

    async def _bring(self, invocation_id: InvocationId, together: list[_Answer]) -> list[bool]:
        answered = await self._store.answer(
            invocation_id, [(answer.position, answer.entry) for answer in together], here=self._worker
        )
        self._on_due(answered.due)
        # Where the caller's journal lost the call, its next attempt makes it again.
        told = [result != "gap" for result in answered.results]
        for answer, known in zip(together[1:], told[1:], strict=True):
            if not answer.told.done():
                answer.told.set_result(known)
        return told
