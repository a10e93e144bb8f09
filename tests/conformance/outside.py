"""What people and clients do to invocations from outside: cancel, kill, complete what they wait for, edit state.

Through the store, in the place of a client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from perdure.journal.inspection import view_of
from perdure.journal.redis_store import RedisStore
from perdure.journal.store import Delivery, Due
from perdure.schemas.entries import Cancelled, Completion, Entry, Failure, Outcome, Output, Signalled, Success
from perdure.schemas.ids import InvocationId, read_awakeable_id
from perdure.worker.clock import SystemClock, system_random
from tests.waiting import wait_until

NO_SUCH = ("unknown",)


class Outside:
    """Hands from outside on one namespace.

    Args:
        store: Its invocations.
        on_due: Sees to what a change has left to do.
    """

    def __init__(self, store: RedisStore, *, on_due: Callable[[Sequence[Due]], None]) -> None:
        self._store = store
        self._on_due = on_due
        self._clock = SystemClock()

    async def cancel(self, invocation_id: str) -> str:
        """Cancel an invocation; what the store answered."""
        entry = Cancelled(self._clock.now_ms())
        return await self._deliver(InvocationId(invocation_id), entry, once=f"x:{self._unique()}")

    async def kill(self, invocation_id: str) -> str:
        """Kill an invocation."""
        output = Output(self._clock.now_ms(), Failure(409, "killed"))
        return self._done(await self._store.kill(InvocationId(invocation_id), output))

    async def pause(self, invocation_id: str) -> str:
        """Have an invocation wait for a person."""
        reason = "paused by an operator"
        at_ms = self._clock.now_ms()
        return self._done(await self._store.pause(InvocationId(invocation_id), at_ms=at_ms, reason=reason))

    async def resume(self, invocation_id: str) -> str:
        """Let a paused invocation go on."""
        return self._done(await self._store.resume(InvocationId(invocation_id), at_ms=self._clock.now_ms()))

    async def resolve_awakeable(self, name: str, value: object) -> str:
        """Complete an awakeable with a value."""
        return await self._complete(name, Success(orjson.dumps(value)))

    async def reject_awakeable(self, name: str, message: str) -> str:
        """Complete an awakeable with a failure."""
        return await self._complete(name, Failure(500, message))

    async def resolve_signal(self, invocation_id: str, name: str, value: object) -> str:
        """Send a signal with a value."""
        entry = Signalled(name, self._clock.now_ms(), Success(orjson.dumps(value)))
        return await self._deliver(InvocationId(invocation_id), entry, once=f"s:{self._unique()}")

    async def reject_signal(self, invocation_id: str, name: str, message: str) -> str:
        """Send a signal that is a failure."""
        entry = Signalled(name, self._clock.now_ms(), Failure(500, message))
        return await self._deliver(InvocationId(invocation_id), entry, once=f"s:{self._unique()}")

    async def edit_state(self, target: str, changes: Mapping[str, object]) -> str | None:
        """Change the state of an object; who holds it, where somebody does and nothing was changed."""
        encoded = [(name, None if value is None else orjson.dumps(value)) for name, value in changes.items()]
        return await self._store.edit_state(target, encoded)

    async def state(self, target: str) -> dict[str, Any]:
        """The state of an object."""
        return {name: orjson.loads(value) for name, value in (await self._store.read_state(target)).items()}

    async def status(self, invocation_id: str) -> str:
        """The status of an invocation; empty while it is not known."""
        summary = await self._store.read_invocation(InvocationId(invocation_id))
        return "" if summary is None else summary.fields["status"]

    async def failure(self, invocation_id: str) -> str:
        """What is said of the last failure of an invocation."""
        summary = await self._store.read_invocation(InvocationId(invocation_id))
        assert summary is not None, f"there is no {invocation_id}"
        return str(view_of(summary).last_failure)

    async def journal(self, invocation_id: str) -> list[Entry]:
        """The entries of an invocation, oldest first."""
        return [row.entry for row in await self._store.read_journal(InvocationId(invocation_id))]

    async def becomes(self, invocation_id: str, *statuses: str) -> None:
        """Wait until an invocation has one of these statuses."""

        async def has() -> bool:
            return await self.status(invocation_id) in statuses

        await wait_until(has, description=f"{invocation_id} is {' or '.join(statuses)}")

    async def known(self, invocation_id: str) -> None:
        """Wait until an invocation is admitted."""

        async def is_known() -> bool:
            return bool(await self.status(invocation_id))

        await wait_until(is_known, description=f"{invocation_id} is admitted")

    async def _complete(self, name: str, outcome: Outcome) -> str:
        found = read_awakeable_id(name)
        assert found is not None, f"{name} is no awakeable"
        entry = Completion(found[1], self._clock.now_ms(), outcome)
        return await self._deliver(found[0], entry, once=f"c:{found[1]}")

    async def _deliver(
        self, invocation_id: InvocationId, entry: Completion | Signalled | Cancelled, *, once: str
    ) -> str:
        return self._done(await self._store.deliver(invocation_id, entry, once=once))

    def _done(self, delivery: Delivery) -> str:
        self._on_due(delivery.due)
        return delivery.result

    def _unique(self) -> str:
        return system_random().randbytes(8).hex()
