"""What people and clients do to invocations from outside: cancel, kill, complete what they wait for, edit state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from perdure.journal.inspection import view_of
from perdure.journal.redis_store import RedisStore
from perdure.schemas.entries import Entry
from perdure.schemas.ids import InvocationId
from perdure.worker.client import Client
from tests.waiting import wait_until


class Outside:
    """Hands from outside on one namespace. Changes answer whether they changed anything.

    Args:
        client: Changes its invocations.
        store: To look at them.
    """

    def __init__(self, client: Client, store: RedisStore) -> None:
        self._client = client
        self._store = store

    async def cancel(self, invocation_id: str) -> bool:
        """Cancel an invocation."""
        return (await self._client.cancel(invocation_id)).changed

    async def kill(self, invocation_id: str) -> bool:
        """Kill an invocation."""
        return (await self._client.kill(invocation_id)).changed

    async def pause(self, invocation_id: str) -> bool:
        """Have an invocation wait for a person."""
        return (await self._client.pause(invocation_id)).changed

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on."""
        return (await self._client.resume(invocation_id)).changed

    async def restart(self, invocation_id: str, *, keep: int) -> str:
        """Begin a completed invocation anew, and keep so many of its commands; the new one's id."""
        return (await self._client.restart_as_new(invocation_id, keep=keep)).invocation_id

    async def resolve_awakeable(self, name: str, value: object) -> bool:
        """Complete an awakeable with a value."""
        return await self._client.resolve_awakeable(name, value)

    async def reject_awakeable(self, name: str, message: str) -> bool:
        """Complete an awakeable with a failure."""
        return await self._client.reject_awakeable(name, message)

    async def resolve_signal(self, invocation_id: str, name: str, value: object) -> bool:
        """Send a signal with a value."""
        return await self._client.send_signal(invocation_id, name, value)

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
