"""The durable point of the simulated Redis: a connection of its own, which waits until the log is on the disk."""

from __future__ import annotations

import asyncio

from perdure.schemas.errors import StoreError

from .virtual_loop import VirtualLoop
from .virtual_redis import FSYNC_S, VirtualRedis


class VirtualBarrier:
    """One worker's `DurableBarrier`."""

    def __init__(self, server: VirtualRedis, loop: VirtualLoop) -> None:
        self.blocked = False
        self.lag_ms = 0
        self._server = server
        self._loop = loop
        self._connections = 0
        self._up = False
        self._waiting: asyncio.Future[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        server.barriers.append(self)

    async def pass_(self) -> int:
        """See `Barrier.pass_`."""
        server = self._server
        async with self._one_at_a_time:
            if not self._up:
                if self.blocked or server.down:
                    raise StoreError("Redis cannot be reached")
                self._up = True
                self._connections += 1
            self._waiting = self._loop.create_future()
            server.loop.call_later(server.delay_s(), self._arrive, self._connections)
            await self._waiting
            return self._connections

    def _arrive(self, connection: int) -> None:
        server = self._server
        if not (connection == self._connections and self._up) or server.down:
            return
        vouched, luck = len(server.log), server.chance.random()
        server.loop.call_later(FSYNC_S * luck * luck, self._synced, connection, vouched)

    def _synced(self, connection: int, vouched: int) -> None:
        server = self._server
        if not (connection == self._connections and self._up):
            return
        server.durable = max(server.durable, vouched)
        if not self._loop.dead:
            self._loop.call_soon(self._passed, connection)

    def _passed(self, connection: int) -> None:
        waiting = self._waiting
        if connection == self._connections and self._up and waiting is not None and not waiting.done():
            waiting.set_result(None)

    def cut(self) -> None:
        """Break the connection; the next pass makes another one."""
        if self._up:
            self._up = False
            if not self._loop.dead:
                self._loop.call_soon(self._broken, self._connections)

    def _broken(self, connection: int) -> None:
        waiting = self._waiting
        if connection == self._connections and waiting is not None and not waiting.done():
            waiting.set_exception(StoreError("the connection was lost"))

    def close(self) -> None:
        """The process is gone."""
        self._server.barriers.remove(self)
