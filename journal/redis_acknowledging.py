"""Acknowledgements of the store on Redis: nobody waits for one, so that those of a moment go in one script."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId

from .keys import InvocationKeys, Keys
from .link import Argument
from .redis_scripts import RedisScripts, Wiring, answered
from .replies import as_resume
from .store import ResumeDue

LINGER_S = 0.005
"""How long an acknowledgement waits for others. What it is about is told again only after seconds."""

MEMBERS_MAX = 200
"""Members of `due` in one script: well below a millisecond of Redis's time. A single acknowledgement may have more."""


class _Acknowledgement(NamedTuple):
    keys: InvocationKeys
    invocation_id: InvocationId
    members: list[str]
    answer: asyncio.Future[ResumeDue | None]


class _Batch:
    """What goes together: over one connection, and on a cluster in one slot."""

    def __init__(self, as_of: int | None) -> None:
        self.as_of = as_of
        self.acknowledgements: list[_Acknowledgement] = []
        self.members = 0


class RedisAcknowledging(RedisScripts):
    """`Store.acknowledge` on Redis."""

    def __init__(self, wiring: Wiring, keys: Keys) -> None:
        super().__init__(wiring, keys)
        self._sha = self._shas["acknowledge"]
        self._together = wiring.one_node
        self._batches: dict[tuple[int, int | None], _Batch] = {}

    def acknowledge(
        self,
        invocation_id: InvocationId,
        *,
        reply: bool = False,
        sent: Sequence[int] = (),
        cascade: bool = False,
        as_of: int | None = None,
    ) -> Awaitable[ResumeDue | None]:
        """See `Store.acknowledge`."""
        if as_of is not None and as_of != self.losses:
            return answered()
        keys = self._keys.of(invocation_id)
        members = [f"send:{invocation_id}:{position}" for position in sent]
        if reply:
            members.append(f"reply:{invocation_id}")
        if cascade:
            members.append(f"cascade:{invocation_id}")
        loop = asyncio.get_running_loop()
        where = (0 if self._together else keys.slot, as_of)
        batch = self._batches.get(where)
        if batch is None:
            batch = self._batches[where] = _Batch(as_of)
            loop.call_later(LINGER_S, self._send, where, batch)
        answer: asyncio.Future[ResumeDue | None] = loop.create_future()
        batch.acknowledgements.append(_Acknowledgement(keys, invocation_id, members, answer))
        batch.members += len(members)
        if batch.members >= MEMBERS_MAX or cascade:
            # Somebody's object waits for a cascade.
            self._send(where, batch)
        return answer

    def _send(self, where: tuple[int, int | None], batch: _Batch) -> None:
        if self._batches.get(where) is not batch:
            # It was full before its time.
            return
        del self._batches[where]
        if batch.as_of is not None and batch.as_of != self.losses:
            _settle(batch, [None] * len(batch.acknowledgements))
            return
        given = batch.acknowledgements
        head: tuple[Argument, ...] = (b"EVALSHA", self._sha, 4 * len(given))
        keys = [key for each in given for key in each.keys[1:]]
        arguments: list[Argument] = []
        for each in given:
            arguments += (each.invocation_id, self._keys.prefix(each.keys.slot), len(each.members), *each.members)
        wire = self._wires[given[0].keys.slot]
        call = wire.call if batch.as_of is None else wire.call_once
        try:
            reply: asyncio.Future[Any] = call((*head, *keys, *arguments), _as_resumes)
        except StoreError as error:
            reply = answered(error=error)
        reply.add_done_callback(lambda reply: _answer(batch, reply))


def _as_resumes(rows: Sequence[Sequence[bytes] | None]) -> list[ResumeDue | None]:
    return [as_resume(row) for row in rows]


def _answer(batch: _Batch, reply: asyncio.Future[list[ResumeDue | None] | None]) -> None:
    if reply.cancelled():
        for each in batch.acknowledgements:
            each.answer.cancel()
    elif (error := reply.exception()) is not None:
        for each in batch.acknowledgements:
            if not each.answer.done():
                each.answer.set_exception(error)
    else:
        # None where the connection was lost before.
        _settle(batch, reply.result() or [None] * len(batch.acknowledgements))


def _settle(batch: _Batch, following: Sequence[ResumeDue | None]) -> None:
    for each, resume in zip(batch.acknowledgements, following, strict=True):
        if not each.answer.done():
            each.answer.set_result(resume)
