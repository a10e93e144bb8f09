"""What a client returns for an invocation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from perdure.journal.inspection import InvocationView
from perdure.schemas.entries import Outcome
from perdure.schemas.ids import InvocationId

from .client_controls import Control
from .envelope import Target, untyped_result_of
from .outcomes import ADMISSION_LOOK_S, LOOK_FIRST_S

if TYPE_CHECKING:
    from .client import Client

Result = TypeVar("Result")

Find = Callable[[], Awaitable[InvocationId | None]]
"""Asks for the id that an invocation is known by; `None` where that cannot be known yet."""


@dataclass(frozen=True, slots=True)
class Handle(Generic[Result]):
    """An invocation that Kafka has acknowledged, or that is there already.

    Attributes:
        invocation_id: Its id. Only what was sent by name, with a key, to a service that no worker had described yet
            (none ever ran) may have another one: if that is a workflow's `main`, its run has the id of the key. What
            this handle does it does to that, and `status()` has its id.
        already_accepted: A look that the send took. `True`: it was admitted before, and nothing was sent (but a record
            that names a `reply_to`, which gets the outcome). `False`: it was not there yet, or this send has a new id.
            That is no promise to be the first one: another record of the same `id`, idempotency key or workflow key may
            be on its way through Kafka, and several senders may be told `False`. Whichever record is read first makes
            the one invocation; `status()` names it once it is admitted (`source`), and what it brought is what the
            handler has. `True`, unasked, for handles of `attach` and `workflow_run`, which send nothing.
    """

    invocation_id: InvocationId
    _client: Client
    _target: Target | None
    already_accepted: bool = False
    _sent: bool = True
    _find: Find | None = None

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
        outcome = await self._outcome(timeout)
        value: Result = untyped_result_of(outcome) if self._target is None else self._target.result_of(outcome)
        return value

    async def status(self) -> InvocationView:
        """As `Client.status`; not found, too, while it is not yet admitted."""
        return await self._client.status(await self._id())

    async def cancel(self) -> Control:
        """As `Client.cancel`."""
        return await self._client.cancel(await self._id())

    async def kill(self) -> Control:
        """As `Client.kill`."""
        return await self._client.kill(await self._id())

    async def pause(self) -> Control:
        """As `Client.pause`."""
        return await self._client.pause(await self._id())

    async def resume(self) -> Control:
        """As `Client.resume`."""
        return await self._client.resume(await self._id())

    async def purge(self) -> Control:
        """As `Client.purge`."""
        return await self._client.purge(await self._id())

    async def _id(self) -> InvocationId:
        found = None if self._find is None else await self._find()
        return found or self.invocation_id

    async def _outcome(self, within: timedelta | None) -> Outcome:
        if self._find is None:
            return await self._client.outcome(self.invocation_id, within, sent=self._sent)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(None if within is None else within.total_seconds()):
                found = await _found(self._find)
        except TimeoutError:
            raise TimeoutError(
                f"{self.invocation_id} had no outcome in time: no worker of its service has been up yet. It goes on "
                "when there is one; ask this handle again."
            ) from None
        left = None if within is None else within - timedelta(seconds=loop.time() - began_s)
        return await self._client.outcome(found, left, sent=True)


async def _found(find: Find) -> InvocationId:
    pause_s = ADMISSION_LOOK_S
    while (found := await find()) is None:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LOOK_FIRST_S)
    return found
