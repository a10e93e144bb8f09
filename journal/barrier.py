"""The durable point: asking Redis whether what it was told would survive a power loss."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from perdure.schemas.errors import StoreError

from .keys import Keys
from .redis_config import Address, RedisConfig
from .redis_line import Line, Refusal
from .redis_places import cluster_map, locate
from .redis_topology import cluster_slot

BARRIER_TIMEOUT_MS = 5_000
"""How long a barrier waits for the disk and the replicas: five times what everysec takes when all is well."""

UNFSYNCED_LAG_MS = 2_000
"""How long a commit lags behind admission where there is no WAITAOF: everysec is at worst two seconds late."""

_KEY_LIFE_MS = 3_600_000


class Barrier:
    """Makes sure that what any connection wrote before survives. Connections of its own; heals by itself.

    Args:
        config: Where Redis is. Of a cluster, every node that serves slots of the namespace is asked.
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
        self._config = config
        self._worker = worker
        self._keys = keys
        self._replicas = replicas
        self._fsync = fsync
        self._timeout_ms = timeout_ms
        self._slots: Mapping[int, Address] = {}
        self._nodes: dict[Address, _Node] = {}
        self._asked = 0
        self._one_at_a_time = asyncio.Lock()

    @property
    def lag_ms(self) -> int:
        """How much older than the barrier a write must be to be covered; 0 where WAITAOF vouches for it.

        Known after a pass.
        """
        vouched = all(node.has_waitaof for node in self._nodes.values())
        return 0 if vouched or not self._fsync else UNFSYNCED_LAG_MS

    @property
    def changes(self) -> int:
        """The number that the last pass returned or, where it could not be passed, would have; 0 before the first."""
        return self._asked

    async def pass_(self) -> int:
        """Return once everything that was written `lag_ms` before the call is durable.

        Returns:
            The number of the servers that were asked: 1, 2, ... Where it differs from the pass before, a server may
            have been restarted or replaced meanwhile, or may have slots that another one had, and what was answered
            may be lost: this pass then vouches for nothing that was written before it, and what was admitted since
            the pass before has to be admitted again (known ids are dropped). Pass it once before the first admission.

        Raises:
            SettingsError: The login is wrong.
            StoreError: It could not be had in time; nothing is known to be durable. Safe to repeat.
        """
        async with self._one_at_a_time:
            await self._look()
            nodes = list(self._nodes.values())
            outcomes = await asyncio.gather(*(node.wait() for node in nodes), return_exceptions=True)
            self._asked += sum(node.newly_connected() for node in nodes)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            return self._asked

    async def close(self) -> None:
        """Close the connections. Safe to repeat."""
        for node in self._nodes.values():
            await node.line.close()

    async def _look(self) -> None:
        """Find out who has the namespace's slots now, and forget who has none."""
        if not self._config.cluster:
            if not any(node.line.is_connected for node in self._nodes.values()):
                server = await locate(self._config)
                if server.servers[0] not in self._nodes:
                    self._nodes.clear()
                    self._use(server, self._keys.barrier(self._worker))
            return
        found = await cluster_map(self._config, also=self._nodes)
        slots = {}
        for slot in range(self._keys.slots):
            place = found.primary(cluster_slot(self._keys.prefix(slot)))
            if place is None:
                raise StoreError(
                    f"Nobody in the {self._config.address} serves slot {slot} of the namespace. Offsets wait; look at "
                    "`redis-cli --cluster check`."
                )
            slots[slot] = place
        if slots == self._slots:
            return
        self._slots = slots
        self._asked += 1
        for place in self._nodes.keys() - set(slots.values()):
            await self._nodes.pop(place).line.close()
        for slot, place in slots.items():
            key = f"{self._keys.prefix(slot).decode()}barrier:{self._worker}"
            if place in self._nodes:
                self._nodes[place].key = key
            else:
                self._use(self._config.at(place), key)

    def _use(self, server: RedisConfig, key: str) -> None:
        line = Line(server, name=f"perdure-barrier-{self._worker}", reply_timeout_s=2 * self._timeout_ms / 1000)
        node = _Node(line, key, replicas=self._replicas, fsync=self._fsync, timeout_ms=self._timeout_ms)
        self._nodes[server.servers[0]] = node


class _Node:
    """One server, and what it is asked.

    Args:
        line: To it.
        key: What is written there.
        replicas: See `Barrier`.
        fsync: See `Barrier`.
        timeout_ms: See `Barrier`.
    """

    def __init__(self, line: Line, key: str, *, replicas: int, fsync: bool, timeout_ms: int) -> None:
        self.line = line
        self.has_waitaof = True
        self.key = key
        self._counted = 0
        self._replicas = replicas
        self._fsync = fsync
        self._timeout_ms = timeout_ms

    def newly_connected(self) -> int:
        """How many connections were made since this was last asked."""
        before, self._counted = self._counted, self.line.connections
        return self._counted - before

    async def wait(self) -> None:
        """Return once what was written before is durable there.

        Raises:
            SettingsError: The login is wrong.
            StoreError: It could not be had in time.
        """
        await self.line.connect()
        if self.line.connections != self._counted:
            # The server may have been upgraded meanwhile.
            self.has_waitaof = True
        local = 1 if self._fsync else 0
        if self.has_waitaof:
            reply = await self._write_and("WAITAOF", local, self._replicas, self._timeout_ms)
            if not isinstance(reply, Refusal):
                self._check(on_disk=reply[0] >= local, replicas=reply[1])
                return
            if reply.kind != "unknown command":
                raise await self._refused(reply)
            self.has_waitaof = False
        reply = await self._write_and("WAIT", self._replicas, self._timeout_ms)
        if isinstance(reply, Refusal):
            raise await self._refused(reply)
        self._check(on_disk=True, replicas=reply)

    async def _write_and(self, *wait: str | int) -> Any:
        # In one write: on a connection that has written nothing, WAITAOF answers at once and means nothing.
        write = ("SET", self.key, b"1", "PX", _KEY_LIFE_MS)
        written, reply = await self.line.ask_all([write, wait])
        if isinstance(written, Refusal):
            raise await self._refused(written)
        return reply

    async def _refused(self, refusal: Refusal) -> StoreError:
        if refusal.kind == "elsewhere":
            # It is a replica now, or the slot has moved: another connection, perhaps to another server, is needed.
            await self.line.close()
        return refusal.to_error(self.line.config)

    def _check(self, *, on_disk: bool, replicas: int) -> None:
        server = f"Redis {self.line.config.address}"
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
