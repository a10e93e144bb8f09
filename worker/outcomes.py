"""Waiting for outcomes: any number of waits in one process, one Redis subscription.

A message may be lost, so each wait also looks by itself: after a second, then less and less often, and at once when
the subscription had a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from types import TracebackType

from perdure.journal.keys import Keys
from perdure.journal.redis_config import RedisConfig
from perdure.journal.store import Store
from perdure.journal.subscriber import Subscriber
from perdure.schemas.codec import decode
from perdure.schemas.entries import Outcome, Output
from perdure.schemas.errors import DecodeError, InvocationNotFoundError
from perdure.schemas.ids import InvocationId

LOOK_FIRST_S = 1.0
"""Before the first look of one's own: longer than a call usually takes, so that most never look."""

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

    @contextlib.contextmanager
    def expecting(self, invocation_id: InvocationId) -> Iterator[Expected]:
        """Listen from here on, for a `wait` inside the block.

        To be entered before a record leaves that names our channel as its waiter: the outcome may come before Kafka's
        acknowledgement does.
        """
        future: Expected = asyncio.get_running_loop().create_future()
        self._waits[invocation_id].add(future)
        try:
            yield future
        finally:
            self._forget(invocation_id, future)

    async def wait(self, invocation_id: InvocationId, *, sent: bool, expected: Expected | None = None) -> Outcome:
        """Return the outcome as soon as there is one; bound it with `asyncio.timeout`.

        Args:
            invocation_id: Of what.
            sent: Whether this process had it acknowledged by Kafka: then it may not be admitted yet, and is waited for.
            expected: From `expecting`, where it was sent with our channel as its waiter: no need to look at once.

        Raises:
            InvocationNotFoundError: There is no such invocation, or none any more.
        """
        loop = asyncio.get_running_loop()
        look_in_s = 0.0 if expected is None else LOOK_FIRST_S
        interval_s = LOOK_FIRST_S
        seen = not sent
        future: Expected = loop.create_future() if expected is None else expected
        self._waits[invocation_id].add(future)
        try:
            while True:
                await asyncio.wait([future], timeout=look_in_s)
                if future.done() and (outcome := future.result()) is not None:
                    return outcome
                if future.done():
                    self._forget(invocation_id, future)
                    future = loop.create_future()
                    self._waits[invocation_id].add(future)
                status = await self._store.attach(invocation_id, self.channel)
                if status is not None and status.outcome is not None:
                    return status.outcome
                if status is None and seen:
                    raise InvocationNotFoundError(
                        f"There is no invocation {invocation_id}: it was never admitted, or its retention ended."
                    )
                seen = seen or status is not None
                look_in_s, interval_s = interval_s, min(2 * interval_s, LOOK_INTERVAL_S_MAX)
        finally:
            self._forget(invocation_id, future)

    def _forget(self, invocation_id: InvocationId, future: Expected) -> None:
        waits = self._waits[invocation_id]
        waits.discard(future)
        if not waits:
            del self._waits[invocation_id]

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
                if not future.done():
                    future.set_result(None)
