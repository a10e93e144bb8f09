"""What clients do to what they have sent: answer, complete, cancel, kill, pause and resume it.

They insist, until it has ended, and again when it has not ended any more: what Redis acknowledged to them may be lost
with its newest writes, and nobody but they repeats it (design G9).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from perdure.schemas.errors import InvocationNotFoundError, PerdureError, TerminalError
from perdure.schemas.ids import InvocationId, awakeable_id
from perdure.worker.client import Client

from .flow import PROMISE, flow
from .request import ASKED, CANCELLED, KILLED, PAUSED, RUN, Request
from .visits import AWAKEABLE_INDEX, SIGNAL

LOOK_S: Final = 0.1

AGAIN_MS: Final = 2_000
"""After what time it is done again, where it has not ended."""

SOON_MS: Final = 400
"""Likewise for what was to be paused: until it has been, and goes on."""

INSISTED: Final = frozenset({ASKED, CANCELLED, KILLED, PAUSED, RUN})


class Insister:
    """The clients' hands.

    Args:
        client: Of the namespace.
        requests: Those of a round; they may get more meanwhile.
    """

    def __init__(self, client: Client, requests: Sequence[Request]) -> None:
        self._client = client
        self._requests = requests
        self._next_ms: dict[str, int] = {}
        self._pauses: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for request in [each for each in self._requests if each.kind in INSISTED]:
                if self._next_ms.get(request.tag, request.act_ms) > _now_ms() or not request.invocation_id:
                    continue
                try:
                    await self._insist(request)
                except PerdureError:
                    # Not there yet, or Redis does not say: soon again.
                    self._next_ms[request.tag] = _now_ms() + SOON_MS
            await asyncio.sleep(LOOK_S)

    async def _insist(self, request: Request) -> None:
        status = await self._status(request)
        again_ms = SOON_MS if request.kind == PAUSED else AGAIN_MS
        # From before it is done: what is done meanwhile is known to have been tried.
        self._next_ms[request.tag] = _now_ms() + again_ms
        # Gone behind its outcome: its retention has passed, and nothing may be made for it any more.
        if status == "completed" or (status == "" and request.outcome_ms):
            return
        match request.kind:
            case "asked":
                await self._answer(request)
            case "run":
                await self._complete(request)
            case "paused":
                await self._pause_and_resume(request, status)
            case _:
                both = [self._end(request), *([self._answer(request)] if request.races else [])]
                for result in await asyncio.gather(*both, return_exceptions=True):
                    if isinstance(result, BaseException):
                        raise result

    async def _status(self, request: Request) -> str:
        """Empty where there is no such invocation, not yet or not any more."""
        try:
            return (await self._client.status(request.invocation_id)).status
        except InvocationNotFoundError:
            return ""

    async def _answer(self, request: Request) -> None:
        if request.waits == "signal":
            once = request.tag
            taken = await self._client.send_signal(request.invocation_id, SIGNAL, request.value, once=once)
        else:
            name = awakeable_id(InvocationId(request.invocation_id), AWAKEABLE_INDEX)
            taken = await self._client.resolve_awakeable(name, request.value)
        _accepted(request, request.waits, taken)

    async def _complete(self, request: Request) -> None:
        try:
            await self._client.resolve_promise(flow, request.key, PROMISE, request.value)
        except TerminalError:
            # By a handler, or by an earlier try whose answer was lost.
            return
        _accepted(request, "promise", True)

    async def _end(self, request: Request) -> None:
        if request.kind == CANCELLED:
            done = await self._client.cancel(request.invocation_id, once=request.tag)
            _accepted(request, "cancel", done.changed)
        else:
            done = await self._client.kill(request.invocation_id)
            _accepted(request, "kill", done.changed)

    async def _pause_and_resume(self, request: Request, status: str) -> None:
        if status == "paused":
            await self._client.resume(request.invocation_id)
            return
        times = self._pauses.get(request.tag, 0)
        if times < request.pauses and (await self._client.pause(request.invocation_id)).changed:
            self._pauses[request.tag] = times + 1


def _accepted(request: Request, what: str, taken: bool) -> None:
    if taken:
        request.accepted.append((what, _now_ms()))


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
