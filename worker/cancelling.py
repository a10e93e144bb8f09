"""Cancellations that invocations bring to others. What its caller cancelled before it had begun never begins.

Law: an invocation that was cancelled ends only after each callee that it had then knows of it (`cancel_callees`, before
the outcome is recorded). A callee that waits, for its object or for its time, has ended by then. One that nobody knows
yet, because its record is on its way through Kafka, is admitted as one that has ended: the record finds it known.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Sequence
from typing import Final

from perdure.journal.store import Admission, Caller, Due, Store
from perdure.schemas.commands import Call, Send
from perdure.schemas.entries import Cancelled, Input
from perdure.schemas.ids import InvocationId

from .clock import Clock
from .refusals import refusal

logger = logging.getLogger(__name__)

UNKNOWN: Final = "unknown"
"""What the store answers for an invocation that it does not have."""

UNKNOWN_MS_MAX = 3_600_000
"""So long a callee that nobody knows is taken to be on its way: its record may wait in Kafka. After it, to be gone."""

FORESTALLED_MS = 24 * 3_600_000
"""How long it is known that a callee was cancelled before its record came. A record that waits for longer begins."""

CALLEES_AT_ONCE_MAX = 500
"""Callees that are told together: one write, and as many answers."""


class Cancelling:
    """Cancels on behalf of one worker's invocations.

    Args:
        store: The invocations.
        clock: For display times.
        worker: This worker's id.
        on_due: Told what is to be done then.
    """

    def __init__(self, store: Store, *, clock: Clock, worker: str, on_due: Callable[[Sequence[Due]], None]) -> None:
        self._store = store
        self._clock = clock
        self._worker = worker
        self._on_due = on_due

    async def cancel(self, invocation_id: InvocationId, *, once: str) -> bool:
        """Cancel an invocation; whether there is one."""
        cancelled = Cancelled(self._clock.now_ms())
        delivery = await self._store.deliver(invocation_id, cancelled, once=once, here=self._worker)
        self._on_due(delivery.due)
        if refused := refusal(delivery, invocation_id):
            logger.error("a cancellation is dropped: %s", refused)
        return delivery.result != UNKNOWN

    async def cancel_callees(self, origin: InvocationId, told: Collection[tuple[int, InvocationId]]) -> None:
        """Return when each of these callees of `origin` knows of its cancellation, and those that had not begun ended.

        Args:
            origin: Who was cancelled.
            told: Where the cancellation stands in its journal, and a callee.
        """
        every = list(told)
        while every:
            some, every = every[:CALLEES_AT_ONCE_MAX], every[CALLEES_AT_ONCE_MAX:]
            await asyncio.gather(
                *(self._cancel_callee(origin, callee, once=f"x:{origin}:c{cause}") for cause, callee in some)
            )

    async def cancel_other(self, origin: InvocationId, position: int, other: InvocationId, *, once: str) -> bool:
        """Cancel any invocation; whether there is one, or `origin` has invoked it before that position of its own."""
        if await self.cancel(other, once=once):
            return True
        # What it invoked long ago may have ended and be kept no longer.
        return await self._forestall(origin, other, once=once, before=position, within_ms=UNKNOWN_MS_MAX)

    async def _cancel_callee(self, origin: InvocationId, callee: InvocationId, *, once: str) -> None:
        # It has not answered: where it is not known it is on its way, however long ago it was called.
        if not await self.cancel(callee, once=once):
            await self._forestall(origin, callee, once=once)

    async def _forestall(
        self,
        origin: InvocationId,
        callee: InvocationId,
        *,
        once: str,
        before: int | None = None,
        within_ms: float = math.inf,
    ) -> bool:
        """Admit a callee that is on its way as one that has ended; whether `origin` has invoked it there and then."""
        found = await self._invoked(origin, callee, before, within_ms)
        if found is None:
            return False
        await self.forestall(origin, *found)
        return await self.cancel(callee, once=once)

    async def forestall(self, origin: InvocationId, position: int, entry: Call | Send) -> None:
        """Admit what is on its way as one that begins in a day, for the caller of this to end it before.

        Args:
            origin: Who has invoked it.
            position: Where that stands in its journal.
            entry: What does.
        """
        now_ms = self._clock.now_ms()
        # As one that begins later, which a cancellation or a kill ends. Who dies in between leaves nothing that runs:
        # what he did is in `due`, and is done again.
        admission = Admission(
            entry.invocation_id,
            entry.service,
            entry.handler,
            entry.key,
            Input(now_ms, self._worker, entry.headers, entry.value),
            token="",
            worker=self._worker,
            not_before_ms=now_ms + FORESTALLED_MS,
            idempotency_key=entry.idempotency_key,
            source=f"{origin}/{entry.command_index}",
            caller=str(Caller(origin, entry.command_index, position)) if isinstance(entry, Call) else "",
            retention_ms=FORESTALLED_MS,
        )
        await self._store.admit(admission, lease_ms=0)

    async def _invoked(
        self, origin: InvocationId, callee: InvocationId, before: int | None, within_ms: float
    ) -> tuple[int, Call | Send] | None:
        since_ms = self._clock.now_ms() - within_ms
        for row in await self._store.read_journal(origin, entries_max=before):
            entry = row.entry
            if isinstance(entry, Call | Send) and entry.invocation_id == callee and entry.at_ms >= since_ms:
                return row.position, entry
        return None

    def recent(self, at_ms: int) -> bool:
        """Whether what was asked for then may be on its way."""
        return self._clock.now_ms() - at_ms <= UNKNOWN_MS_MAX
