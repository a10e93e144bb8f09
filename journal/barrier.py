"""The durable point: asking Redis whether what it was told would survive a power loss."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.schemas.errors import StoreError

from .keys import Keys
from .redis_admin import Line, Refusal
from .redis_config import RedisConfig

BARRIER_TIMEOUT_MS = 5_000
"""How long a barrier waits for the disk and the replicas: five times what everysec takes when all is well."""

UNFSYNCED_LAG_MS = 2_000
"""How long a commit lags behind admission where there is no WAITAOF: everysec is at worst two seconds late."""

_KEY_LIFE_MS = 3_600_000


class Barrier:
    """Makes sure that what any connection wrote before survives. A connection of its own; heals by itself.

    Args:
        config: The server.
        worker: Who asks.
        keys: The namespace's.
        replicas: How many replicas must have it too; on their disks, where the server has WAITAOF.
        fsync: Whether it must be on this server's disk. False only where a Redis without AOF was allowed explicitly.
        timeout_ms: How long one pass waits for the disk and the replicas.
    """

    def __init__(
        self,
        config: RedisConfig,
        worker: str,
        keys: Keys,
        *,
        replicas: int,
        fsync: bool = True,
        timeout_ms: int = BARRIER_TIMEOUT_MS,
    ) -> None:
        self._key = keys.barrier(worker)
        self._replicas = replicas
        self._fsync = fsync
        self._line = Line(config, name=f"perdure-barrier-{worker}", reply_timeout_s=2 * timeout_ms / 1000)
        self._timeout_ms = timeout_ms
        self._has_waitaof = True
        self._one_at_a_time = asyncio.Lock()

    @property
    def lag_ms(self) -> int:
        """How much older than the barrier a write must be to be covered; 0 where WAITAOF vouches for it.

        Known after a pass.
        """
        return 0 if self._has_waitaof or not self._fsync else UNFSYNCED_LAG_MS

    async def pass_(self) -> int:
        """Return once everything that was written `lag_ms` before the call is durable.

        Returns:
            The number of the connection that was asked: 1, 2, ... Where it differs from the pass before, the server
            may have been restarted or replaced meanwhile, and have lost what it had answered: this pass then vouches
            for nothing that was written before it, and what was admitted since the pass before has to be admitted
            again (known ids are dropped). Pass it once before the first admission.

        Raises:
            SettingsError: The login is wrong.
            StoreError: It could not be had in time; nothing is known to be durable. Safe to repeat.
        """
        async with self._one_at_a_time:
            connections = self._line.connections
            await self._line.connect()
            if self._line.connections != connections:
                self._has_waitaof = True
            await self._wait()
            return self._line.connections

    async def close(self) -> None:
        """Close the connection. Safe to repeat."""
        await self._line.close()

    async def _wait(self) -> None:
        local = 1 if self._fsync else 0
        if self._has_waitaof:
            reply = await self._write_and("WAITAOF", local, self._replicas, self._timeout_ms)
            if not isinstance(reply, Refusal):
                self._check(on_disk=reply[0] >= local, replicas=reply[1])
                return
            if reply.kind != "unknown command":
                raise reply.to_error(self._line.config)
            self._has_waitaof = False
        reply = await self._write_and("WAIT", self._replicas, self._timeout_ms)
        if isinstance(reply, Refusal):
            raise reply.to_error(self._line.config)
        self._check(on_disk=True, replicas=reply)

    async def _write_and(self, *wait: str | int) -> Any:
        # In one write: on a connection that has written nothing, WAITAOF answers at once and means nothing.
        write = ("SET", self._key, b"1", "PX", _KEY_LIFE_MS)
        written, reply = await self._line.ask_all([write, wait])
        if isinstance(written, Refusal):
            raise written.to_error(self._line.config)
        return reply

    def _check(self, *, on_disk: bool, replicas: int) -> None:
        server = f"Redis {self._line.config.address}"
        if not on_disk:
            raise StoreError(
                f"{server} had not fsynced its append-only file after {self._timeout_ms} ms. Offsets wait and work "
                "goes on; look at the server's disk."
            )
        if replicas < self._replicas:
            raise StoreError(
                f"{replicas} of {self._replicas} replicas (PERDURE_REPLICAS) had what {server} was told after "
                f"{self._timeout_ms} ms. Offsets wait and work goes on; look at the replicas."
            )
