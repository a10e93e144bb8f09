"""Hearing what is published in Redis: one connection per process, however many listen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

from perdure.schemas.errors import PerdureError, StoreError

from .redis_admin import Line
from .redis_config import RedisConfig

logger = logging.getLogger(__name__)

QUIET_S = 5.0
"""A connection without a message for this long is asked whether it lives, and made anew if it does not answer."""

_RECONNECT_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between attempts; the last one is repeated."""


class Subscriber:
    """One pub/sub connection for any number of channels. Use as an async context manager; it heals by itself.

    Messages are hints: they are lost while there is no connection. So each channel names, beside who takes its
    messages, who looks again after a gap.
    """

    def __init__(self, config: RedisConfig, *, name: str, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._line = Line(config, name=name)
        self._channels: dict[bytes, tuple[Callable[[bytes], None], Callable[[], None]]] = {}
        self._wanted = asyncio.Event()
        # Not the same as connected, which begins before the login, when another command would be out of turn.
        self._live = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        """Whether there is a connection that was not found dead."""
        return self._live

    async def subscribe(self, channel: str, on_message: Callable[[bytes], None], *, on_gap: Callable[[], None]) -> None:
        """Have `on_message` called with each message. Returns without waiting for the server.

        Args:
            channel: Not subscribed yet.
            on_message: Must neither block nor raise.
            on_gap: Likewise. Called whenever the subscription begins, for the first time and after each loss: what was
                published before may have been missed.
        """
        assert channel.encode() not in self._channels, f"{channel} is subscribed already"
        self._channels[channel.encode()] = (on_message, on_gap)
        self._wanted.set()
        await self._say("SUBSCRIBE", channel)

    async def unsubscribe(self, channel: str) -> None:
        """Have no more messages of `channel`. Safe to repeat."""
        if self._channels.pop(channel.encode(), None) is not None:
            await self._say("UNSUBSCRIBE", channel)

    async def __aenter__(self) -> Subscriber:
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="redis-subscriber")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        await self._line.close()

    async def _say(self, *command: str) -> None:
        # A failure here is the reader's to notice: it connects anew and subscribes to all that is wanted.
        if self._live:
            with contextlib.suppress(StoreError):
                await self._line.send(command)

    async def _keep(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            try:
                await self._line.connect()
                if self._channels:
                    await self._line.send(["SUBSCRIBE", *self._channels])
                self._live = True
                async for reply in self._replies():
                    if failures:
                        logger.info("The subscription to Redis is back")
                    failures = 0
                    self._deliver(reply)
            except PerdureError as error:
                # A wrong login, too: another part of the process reports it, and it may be mended meanwhile.
                if failures == 0:
                    logger.warning("The subscription to Redis was lost; it is made anew: %s", error)
            self._live = False
            await self._line.close()
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
            failures += 1

    async def _replies(self) -> AsyncIterator[Any]:
        asked = False
        while True:
            reply = await self._line.read(wait_s=self._quiet_s)
            if reply is not None:
                asked = False
                yield reply
            elif asked:
                raise StoreError(f"Redis {self._line.config.address} has been silent for {2 * self._quiet_s:g} s.")
            else:
                asked = True
                await self._line.send(["PING"])

    def _deliver(self, reply: Any) -> None:
        match reply:
            case [b"message", bytes(channel), bytes(message)] if channel in self._channels:
                self._channels[channel][0](message)
            case [b"subscribe", bytes(channel), int()] if channel in self._channels:
                self._channels[channel][1]()
