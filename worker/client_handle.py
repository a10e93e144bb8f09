"""What a client returns for an invocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from perdure.journal.inspection import InvocationView
from perdure.schemas.ids import InvocationId

from .client_controls import Control
from .envelope import Target, untyped_result_of

if TYPE_CHECKING:
    from .client import Client

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Handle(Generic[Result]):
    """An invocation that Kafka has acknowledged, or that is there already.

    Attributes:
        invocation_id: Its id.
        already_accepted: `True`: it was admitted before this send, which therefore sent nothing. `False`: it was not
            there yet when the send looked. That is no promise to be the first one: another record of the same `id`,
            idempotency key or workflow key may be on its way through Kafka, and whichever is read first makes the one
            invocation. `status()` names that record once it is admitted (`source`).
    """

    invocation_id: InvocationId
    _client: Client
    _target: Target | None
    already_accepted: bool = False
    _sent: bool = True

    async def result(self, *, timeout: timedelta | None = None) -> Result:  # noqa: ASYNC109 # part of a public API
        """Return the result, as soon as there is one.

        Args:
            timeout: How long to wait; for ever without it.

        Raises:
            TerminalError: The invocation failed; with its code and metadata.
            TimeoutError: There was no outcome in time; the invocation goes on.
            InvocationNotFoundError: It completed, and its retention ended.
            SerdeError: The result is not of the declared type.
        """
        outcome = await self._client.outcome(self.invocation_id, timeout, sent=self._sent)
        value: Result = untyped_result_of(outcome) if self._target is None else self._target.result_of(outcome)
        return value

    async def status(self) -> InvocationView:
        """As `Client.status`; not found, too, while it is not yet admitted."""
        return await self._client.status(self.invocation_id)

    async def cancel(self) -> Control:
        """As `Client.cancel`."""
        return await self._client.cancel(self.invocation_id)

    async def kill(self) -> Control:
        """As `Client.kill`."""
        return await self._client.kill(self.invocation_id)

    async def pause(self) -> Control:
        """As `Client.pause`."""
        return await self._client.pause(self.invocation_id)

    async def resume(self) -> Control:
        """As `Client.resume`."""
        return await self._client.resume(self.invocation_id)

    async def purge(self) -> Control:
        """As `Client.purge`."""
        return await self._client.purge(self.invocation_id)
