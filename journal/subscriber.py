"""Hearing what is published in Redis: one connection per process, however many listen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any

from perdure.schemas.errors import PerdureError, StoreError

from .connected_store import locator
from .link import Link, connect
from .redis_config import RedisConfig, unreachable

logger = logging.getLogger(__name__)

QUIET_S = 5.0
"""A connection without a message for this long is asked whether it lives, and made anew if it does not answer."""

CONNECT_TIMEOUT_S = 5.0
"""Longer than a busy server needs to accept and to check a login."""

_RECONNECT_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between attempts; the last one is repeated."""


class Subscriber:
    """One pub/sub connection for any number of channels. Use as an async context manager; it heals by itself.

    Messages are hints: they are lost while there is no connection. So each channel names, beside who takes its
    messages, who looks again after a gap.
    """

    def __init__(self, config: RedisConfig, *, name: str, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._config = config
        self._locate = locator(config)
        self._name = name
        self._channels: dict[bytes, tuple[Callable[[bytes], None], Callable[[], None]]] = {}
        self._wanted = asyncio.Event()
        self._link: Link | None = None
        self._heard = False
        self._failures = 0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        """Whether there is a connection that was not found dead."""
        return self._link is not None

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
        self._say("SUBSCRIBE", channel)

    async def unsubscribe(self, channel: str) -> None:
        """Have no more messages of `channel`. Safe to repeat."""
        if self._channels.pop(channel.encode(), None) is not None:
            self._say("UNSUBSCRIBE", channel)

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

    def _say(self, *command: str) -> None:
        # Where the connection is lost just now, the next one subscribes to all that is wanted.
        if self._link is not None:
            self._link.send(command)

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                await self._listen()
            except PerdureError as error:
                # A wrong login, too: another part of the process reports it, and it may be mended meanwhile.
                if self._failures == 0:
                    logger.warning("The subscription to Redis was lost; it is made anew: %s", error)
            await asyncio.sleep(_RECONNECT_S[min(self._failures, len(_RECONNECT_S) - 1)])
            self._failures += 1

    async def _listen(self) -> None:
        """Hear until the connection is lost.

        Raises:
            PerdureError: It is lost, or there was none.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                link = await connect(await self._locate(), name=self._name)
        except OSError as error:
            raise self._lost(error) from error
        try:
            link.deliver = self._deliver
            self._link = link
            if self._channels:
                link.send((b"SUBSCRIBE", *self._channels))
            await self._watch(link)
        finally:
            self._link = None
            link.transport.abort()
            await link.closed.wait()

    async def _watch(self, link: Link) -> None:
        asked = False
        while True:
            self._heard = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._quiet_s):
                    await link.closed.wait()
            if link.closed.is_set():
                raise self._lost(OSError("it closed the connection"))
            if asked and not self._heard:
                raise self._lost(TimeoutError(f"silent for {2 * self._quiet_s:g} s"))
            asked = not self._heard
            if asked:
                link.send((b"PING",))

    def _lost(self, error: OSError) -> StoreError:
        return StoreError(unreachable(self._config.address, error, tls=self._config.tls))

    def _deliver(self, reply: Any) -> None:
        self._heard = True
        if self._failures:
            logger.info("The subscription to Redis is back")
            self._failures = 0
        match reply:
            case [b"message", bytes(channel), bytes(message)] if channel in self._channels:
                self._channels[channel][0](message)
            case [b"subscribe", bytes(channel), int()] if channel in self._channels:
                self._channels[channel][1]()
