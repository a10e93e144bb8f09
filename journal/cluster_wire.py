"""A wire to each node of a Redis Cluster, and whose turn it is for each slot of a namespace.

The hot path asks `by_slot(keys)[slot]` for its wire and pays for nothing else: what is here works when a node says that
keys are elsewhere, when one is away, and once a second to see whether one is. The law of `wire` holds across nodes:
every command may be sent twice, here also to another node.

Source: Redis Cluster specification, "Redirection and resharding".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from types import TracebackType

from perdure.schemas.errors import PerdureError, StoreError

from .keys import Keys
from .link import Endpoint, Locate, unpack
from .redis_config import Address, RedisConfig
from .redis_places import cluster_map
from .redis_topology import ClusterMap, cluster_slot, key_of_command, read_redirection
from .wire import Call, Wire

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks whether a node is away or owes a reply for as long: then it is asked who serves its slots now."""

LOOK_AGAIN_S = 0.25
"""Between two questions while something is wrong: a replica takes over within a second or so of its election."""

REDIRECTIONS_MAX = 5
"""After so many in a row a call is sent on only after a pause: two nodes disagree, until their gossip has met."""

REDIRECTED_PAUSE_S = 0.1


class _Nowhere(Wire):
    """Keeps the calls for slots that nobody serves, until somebody does."""

    def begin(self) -> None:
        """Take calls, and connect to nobody."""
        self._loop = asyncio.get_running_loop()


class ClusterWire:
    """Wires to all primaries of a cluster. Use as an async context manager.

    Args:
        config: The cluster.
        scripts: As for `Wire`.
        name: As for `Wire`.
    """

    def __init__(self, config: RedisConfig, scripts: Mapping[str, bytes], *, name: str) -> None:
        self._config = config
        self._scripts = scripts
        self._name = name
        self._ssl = config.ssl_context()
        self._map = ClusterMap(())
        self._nowhere: Wire = _Nowhere(self._locate(Address("", 0)), scripts, name=name, cluster=self)
        self._wires: dict[Address, Wire] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self._watched: list[tuple[Sequence[int], list[Wire]]] = []
        self._stale = asyncio.Event()
        self._said = False
        self._losses = 0
        self._keeper: asyncio.Task[None] | None = None

    def by_slot(self, keys: Keys) -> Sequence[Wire]:
        """The wire for each slot of a namespace. The list changes when slots move."""
        clusters = [cluster_slot(keys.prefix(slot)) for slot in range(keys.slots)]
        wires = [self._wire_for(slot) for slot in clusters]
        self._watched.append((clusters, wires))
        return wires

    @property
    def one_node(self) -> bool:
        """See `Wiring`."""
        return False

    def of(self, key: str) -> Wire:
        """The wire for a key that belongs to no slot of a namespace."""
        return self._wire_for(cluster_slot(key.encode()))

    @property
    def losses(self) -> int:
        """As `Wire.losses`, of all nodes together."""
        return self._losses + sum(wire.losses for wire in self._wires.values())

    async def __aenter__(self) -> ClusterWire:
        self._nowhere.begin()
        self._stale.set()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"redis-cluster-{self._name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        for wire in (self._nowhere, *self._wires.values()):
            await wire.__aexit__(None, None, None)
        if self._ended:
            await asyncio.wait(self._ended)

    def redirected(self, call: Call, text: str, asked: Wire) -> None:
        """See `wire.Cluster`."""
        try:
            slot, place = read_redirection(text, asked=self._place_of(asked))
        except StoreError as error:
            if not call.future.done():
                call.future.set_exception(error)
            return
        wire = self._wire_at(place)
        call.redirections = getattr(call, "redirections", 0) + 1
        asking = text.startswith("ASK")
        if not asking:
            self._learn(slot, wire)
            self._stale.set()
        if call.redirections % REDIRECTIONS_MAX:
            wire.take(call, asking=asking)
        else:
            asyncio.get_running_loop().call_later(REDIRECTED_PAUSE_S, self.returned, call)

    def returned(self, call: Call) -> None:
        """See `wire.Cluster`."""
        if self._keeper is None:
            call.future.cancel()
        elif not call.future.done():
            self._send(call)

    def troubled(self) -> None:
        """See `wire.Cluster`."""
        self._stale.set()

    def _send(self, call: Call) -> None:
        command = unpack(call.packed)
        # The scripts go with each connection, and ASKING with its command: neither is anybody's question.
        if command[0] not in (b"SCRIPT", b"ASKING"):
            key = key_of_command(command)
            wire = next(iter(self._wires.values()), self._nowhere)
            (wire if key is None else self._wire_for(cluster_slot(key))).take(call)

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._stale.wait()
            if not (self._stale.is_set() or self._is_ill()):
                continue
            self._stale.clear()
            try:
                self._adopt(await cluster_map(self._config, also=self._map.primaries))
            except PerdureError as error:
                if not self._said:
                    logger.warning("Redis Cluster cannot be reached; work waits and goes on by itself: %s", error)
                self._said = True
                self._stale.set()
            await asyncio.sleep(LOOK_AGAIN_S)

    def _is_ill(self) -> bool:
        return bool(self._map.uncovered) or any(
            not wire.connected or wire.waits_s > LOOK_S for wire in self._wires.values()
        )

    def _adopt(self, found: ClusterMap) -> None:
        self._said = False
        self._map = found
        for place in found.primaries:
            self._wire_at(place)
        for clusters, wires in self._watched:
            wires[:] = [self._wire_for(slot) for slot in clusters]
        calls = self._nowhere.hand_over()
        for place in self._wires.keys() - set(found.primaries):
            calls += self._end(place)
        for call in calls:
            self._send(call)

    def _end(self, place: Address) -> list[Call]:
        wire = self._wires.pop(place)
        logger.info("the node %s of the Redis Cluster serves no slots any more", place)
        calls = wire.hand_over()
        self._losses += wire.losses
        task = asyncio.get_running_loop().create_task(wire.__aexit__(None, None, None), name=f"redis-wire-{place}")
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)
        return calls

    def _learn(self, slot: int, wire: Wire) -> None:
        # Other slots of that node may have moved, too: the next look tells. This one need not wait for it.
        for clusters, wires in self._watched:
            for index, cluster in enumerate(clusters):
                if cluster == slot:
                    wires[index] = wire

    def _wire_for(self, slot: int) -> Wire:
        place = self._map.primary(slot)
        return self._nowhere if place is None else self._wire_at(place)

    def _wire_at(self, place: Address) -> Wire:
        wire = self._wires.get(place)
        if wire is None:
            wire = Wire(self._locate(place), self._scripts, name=self._name, cluster=self)
            self._wires[place] = wire
            wire.begin()
        return wire

    def _place_of(self, wire: Wire) -> Address:
        places = [place for place, each in self._wires.items() if each is wire]
        return places[0] if places else self._config.servers[0]

    def _locate(self, place: Address) -> Locate:
        node = self._config.at(place)

        async def locate() -> Endpoint:
            return Endpoint(node.host, node.port, node.db, node.username, node.password, self._ssl)

        return locate
