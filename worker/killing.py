"""What was killed kills its callees, and theirs; then those that kept their objects until then give them up.

Law: an object whose holder was killed while a call of it was without an answer goes to the next only when nothing
that was called, directly or not, can run any more: a callee may be that next one. One that nobody knows yet, because
its record is on its way through Kafka, is admitted as one that was killed; the record finds it known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from perdure.journal.store import CascadeDue, Due, Store
from perdure.schemas.commands import Call
from perdure.schemas.entries import Completion, Failure, Outcome, Output
from perdure.schemas.ids import InvocationId

from .cancelling import CALLEES_AT_ONCE_MAX, UNKNOWN, Cancelling
from .clock import Clock


class Killing:
    """Kills on behalf of what was killed.

    Args:
        store: The invocations.
        clock: For display times.
        cancelling: Admits what is on its way.
        sealed: What a failure is recorded as.
        on_due: Told what is to be done then.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        cancelling: Cancelling,
        sealed: Callable[[Failure], Outcome],
        on_due: Callable[[Sequence[Due]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._cancelling = cancelling
        self._sealed = sealed
        self._on_due = on_due

    async def kill_callees(self, origin: InvocationId) -> None:
        """Kill everything that a killed invocation called and that has not answered; then say that it is done.

        Whoever is killed by this is acknowledged, too, and before its caller.
        """
        as_of = self._store.losses
        found, callers = {origin: None}, [origin]
        while callers:
            # Who calls one of its callers, by an idempotency key, makes a circle.
            callees = [callee for callee in await self._kill(callers.pop()) if callee not in found]
            found |= dict.fromkeys(callees)
            callers += dict.fromkeys(callees)
        for killed in reversed(found):
            following = await self._store.acknowledge(killed, cascade=True, as_of=as_of)
            if following is not None:
                self._on_due([following])

    async def _kill(self, caller: InvocationId) -> list[InvocationId]:
        """Kill its callees; those whose own callees are to be killed now."""
        rows = await self._store.read_journal(caller)
        answered = {row.entry.command_index for row in rows if isinstance(row.entry, Completion)}
        calls = [
            (row.position, row.entry)
            for row in rows
            if isinstance(row.entry, Call) and row.entry.command_index not in answered
        ]
        killed: list[InvocationId] = []
        while calls:
            some, calls = calls[:CALLEES_AT_ONCE_MAX], calls[CALLEES_AT_ONCE_MAX:]
            for callees in await asyncio.gather(*(self._kill_callee(caller, *call) for call in some)):
                killed += callees
        return killed

    async def _kill_callee(self, caller: InvocationId, position: int, call: Call) -> list[InvocationId]:
        output = Output(self._clock.now_ms(), self._sealed(Failure(409, "killed with its caller")))
        delivery = await self._store.kill(call.invocation_id, output)
        if delivery.result == UNKNOWN:
            await self._cancelling.forestall(caller, position, call)
            delivery = await self._store.kill(call.invocation_id, output)
        self._on_due([item for item in delivery.due if not isinstance(item, CascadeDue)])
        return [item.invocation_id for item in delivery.due if isinstance(item, CascadeDue)]
