"""Waiting for outcomes: any number of waits in one process, one Redis subscription.

A message may be lost, so each wait also looks by itself: after a second, then less and less often, and at once when
the subscription had a gap.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import TracebackType

from perdure.journal.keys import Keys
from perdure.journal.redis_config import RedisConfig
from perdure.journal.store import Store
from perdure.journal.subscriber import Subscriber
from perdure.schemas.codec import decode
from perdure.schemas.entries import Outcome, Output
from perdure.schemas.errors import DecodeError, InvocationNotFoundError
from perdure.schemas.ids import InvocationId

from .deadlines import Deadlines

LOOK_FIRST_S = 1.0
"""Before the first look of one's own: longer than a call usually takes, so that most never look."""

ADMISSION_LOOK_S = 0.01
"""Before the second look at what is not admitted yet, which takes some milliseconds; doubled up to `LOOK_FIRST_S`.
Until then nobody knows who waits for it."""

LOOK_INTERVAL_S_MAX = 10.0
"""Looks are cheap, yet thousands may wait for hours: doubled up to this."""

# What complete.lua and admit.lua publish: {"id":"inv_...","output":<body of the output entry>}
_ID_START = len(b'{"id":"')
_OUTPUT = b'","output":'


Expected = asyncio.Future[Outcome | None]
"""Resolved with an outcome, or with `None` where it is time to look."""


class Outcomes:
    """Tells outcomes to those who wait for them. Use as an async context manager.

    Args:
        store: Where invocations are looked at.
        config: The Redis whose channel is listened to.
        keys: The namespace's.
        client: A name that no other process has.
    """

    def __init__(self, store: Store, config: RedisConfig, keys: Keys, *, client: str) -> None:
        self._store = store
        self._subscriber = Subscriber(config, name=f"perdure-{client}")
        self._waits: dict[str, set[Expected]] = defaultdict(set)
        self._deadlines = Deadlines()
        self.channel = keys.outcomes(client)
        """Where outcomes are published for this process: the `waiter` of what it sends."""

    async def __aenter__(self) -> Outcomes:
        await self._subscriber.__aenter__()
        await self._subscriber.subscribe(self.channel, self._heard, on_gap=self._look_again)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._subscriber.__aexit__(kind, error, trace)
        for futures in self._waits.values():
            for future in futures:
                future.cancel()
        self._deadlines.close()

    def expect(self, invocation_id: InvocationId) -> Expected:
        """Listen from here on until `forget`, for a `wait` in between.

        To be called before a record leaves that names our channel as its waiter: the outcome may come before Kafka's
        acknowledgement does.
        """
        future: Expected = asyncio.get_running_loop().create_future()
        self._waits[invocation_id].add(future)
        return future

    def forget(self, invocation_id: InvocationId, expected: Expected) -> None:
        """Undo `expect`. Safe to repeat."""
        waits = self._waits.get(invocation_id)
        if waits is not None:
            waits.discard(expected)
            if not waits:
                del self._waits[invocation_id]

    async def wait(
        self,
        invocation_id: InvocationId,
        *,
        sent: bool,
        expected: Expected | None = None,
        within_s: float | None = None,
    ) -> Outcome:
        """Return the outcome as soon as there is one.

        Args:
            invocation_id: Of what.
            sent: Whether this process had it acknowledged by Kafka: then it may not be admitted yet, and is waited for.
            expected: From `expect`, where it was sent with our channel as its waiter: no need to look at once.
            within_s: How long to wait; for ever without it.

        Raises:
            TimeoutError: There was none in time.
            InvocationNotFoundError: There is no such invocation, or none any more.
        """
        if expected is not None:
            # Nearly all waits end here, so they get by with one deadline instead of two.
            began_s = asyncio.get_running_loop().time()
            outcome = await self._hear(expected, LOOK_FIRST_S if within_s is None else min(within_s, LOOK_FIRST_S))
            if outcome is not None:
                return outcome
            if within_s is not None:
                within_s -= asyncio.get_running_loop().time() - began_s
                if within_s <= 0:
                    raise TimeoutError
        with self._deadlines.within(within_s):
            return await self._look(invocation_id, LOOK_FIRST_S, seen=not sent)

    async def _hear(self, expected: Expected, look_in_s: float) -> Outcome | None:
        """What is heard, or `None` when it is time to look."""
        if not expected.done():
            alarm = self._deadlines.call_in(look_in_s, lambda: _time_to_look(expected))
            try:
                return await expected
            finally:
                alarm.cancel()
        return expected.result()

    async def _look(self, invocation_id: InvocationId, interval_s: float, *, seen: bool) -> Outcome:
        """Look, then listen in turns until there is an outcome."""
        admission_s = ADMISSION_LOOK_S
        while True:
            # Before looking: what is published meanwhile must be heard.
            expected = self.expect(invocation_id)
            try:
                status = await self._store.attach(invocation_id, self.channel)
                if status is not None and status.outcome is not None:
                    return status.outcome
                if status is None and seen:
                    raise InvocationNotFoundError(
                        f"There is no invocation {invocation_id}: it was never admitted, or its retention ended."
                    )
                if status is None:
                    outcome = await self._hear(expected, admission_s)
                    admission_s = min(2 * admission_s, LOOK_FIRST_S)
                else:
                    seen = True
                    outcome = await self._hear(expected, interval_s)
                    interval_s = min(2 * interval_s, LOOK_INTERVAL_S_MAX)
                if outcome is not None:
                    return outcome
            finally:
                self.forget(invocation_id, expected)

    def _heard(self, message: bytes) -> None:
        head, found, rest = message.partition(_OUTPUT)
        futures = self._waits.get(head[_ID_START:].decode("ascii", "replace")) if found else None
        if not futures:
            return
        try:
            entry = decode(b"output", rest[:-1])
        except DecodeError:
            # Anybody can publish on a channel; the journal is what counts, so look there.
            entry = None
        for future in futures:
            if not future.done():
                future.set_result(entry.outcome if isinstance(entry, Output) else None)

    def _look_again(self) -> None:
        for futures in self._waits.values():
            for future in futures:
                _time_to_look(future)


def _time_to_look(expected: Expected) -> None:
    if not expected.done():
        expected.set_result(None)
