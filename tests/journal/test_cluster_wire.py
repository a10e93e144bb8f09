"""A wire to each node of a cluster: `perdure.journal.cluster_wire`."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal.cluster_wire import ClusterWire
from perdure.journal.keys import Keys
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_topology import cluster_slot
from perdure.journal.wire import Wire, same
from perdure.worker.server_process import ServerProcess
from tests.servers.redis_family import PRIMARIES, RedisCluster, ask, started
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.servers

ADD = b"return redis.call('INCR', KEYS[1])"
ADD_SHA = hashlib.sha1(ADD, usedforsecurity=False).hexdigest()
SLOTS = 16


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """Start a cluster of this test's own."""
    async with started(RedisCluster(tmp_path)) as made:
        yield made


class Counters:
    """One counter in each slot of a namespace, and what they should be."""

    def __init__(self, wires: ClusterWire) -> None:
        self.keys = Keys("ns", slots=SLOTS)
        self.wires = wires.by_slot(self.keys)
        self.counts = [0] * SLOTS

    def ask(self, slot: int) -> asyncio.Future[int]:
        """Count one up in that slot."""
        self.counts[slot] += 1
        return self.wires[slot].call((b"EVALSHA", ADD_SHA, 1, self.keys.prefix(slot) + b"n"), same)

    async def rounds(self, count: int) -> None:
        """Count up everywhere, several times at once."""
        asked = [self.ask(slot) for _ in range(count) for slot in range(SLOTS)]
        await asyncio.gather(*asked)

    async def read(self) -> list[int]:
        """What the counters are."""
        return [int(await wire.call((b"GET", self.keys.prefix(s) + b"n"), same)) for s, wire in enumerate(self.wires)]

    def nodes(self) -> set[Wire]:
        """Where the slots are."""
        return set(self.wires)


async def redirections(node: ServerProcess) -> int:
    """How often a node said that keys are elsewhere."""
    found = re.search(rb"errorstat_MOVED:count=(\d+)", await ask(node, "INFO", "errorstats"))
    return int(found[1]) if found else 0


def wires_to(cluster: RedisCluster) -> ClusterWire:
    """Wires to that cluster, with one script."""
    return ClusterWire(RedisConfig.from_url(cluster.url), {ADD_SHA: ADD}, name="test")


async def test_each_slot_is_asked_where_it_is(cluster: RedisCluster) -> None:
    """What is asked before the nodes are known waits for that; one connection leads to each primary."""
    async with wires_to(cluster) as wires:
        counters = Counters(wires)
        await counters.rounds(20)
        assert await counters.read() == counters.counts
        assert len(counters.nodes()) == PRIMARIES
        assert await wires.of("any").call((b"SET", "any", "1"), same) == b"OK"


async def test_slots_that_move_are_followed(cluster: RedisCluster) -> None:
    """Commands in flight are answered by whoever has the key: before, during and after the move, each once."""
    async with wires_to(cluster) as wires:
        counters = Counters(wires)
        await counters.rounds(2)
        slot = cluster_slot(counters.keys.prefix(3))
        source = await cluster.primary_of_slot(slot)
        target = next(node for node in cluster.nodes[:PRIMARIES] if node is not source)
        moving = asyncio.create_task(cluster.move(slot, target, pause_s=0.05))
        while not moving.done():
            await counters.rounds(1)
        assert await moving
        await counters.rounds(2)
        assert await counters.read() == counters.counts
        redirected = await redirections(source)
        assert redirected
        await counters.rounds(20)
        assert await redirections(source) == redirected


async def test_a_replica_that_takes_over_is_found(cluster: RedisCluster) -> None:
    """What had no answer is asked again at the new primary; nothing that was answered and replicated is lost."""
    async with wires_to(cluster) as wires:
        counters = Counters(wires)
        await counters.rounds(2)
        victim = await cluster.primary_of(counters.keys.prefix(0))
        await ask(victim, "WAIT", 1, 5_000)
        await victim.kill()
        asked = [counters.ask(slot) for slot in range(SLOTS)]
        assert len(await asyncio.gather(*asked)) == SLOTS
        assert await counters.read() == counters.counts
        await victim.start()
        await cluster.settled()
        await counters.rounds(2)
        assert await counters.read() == counters.counts


async def test_what_waits_when_the_wires_end_is_let_go(cluster: RedisCluster) -> None:
    """Nobody hangs on an answer that cannot come any more, also for slots that nobody serves."""
    async with wires_to(cluster) as wires:
        counters = Counters(wires)
        await counters.rounds(1)
        for node in cluster.nodes:
            await node.kill()
        await wait_until(lambda: not any(wire.connected for wire in counters.wires), description="the nodes are missed")
        asked = [counters.ask(slot) for slot in range(SLOTS)]
    await asyncio.wait(asked, timeout=PATIENCE_S)
    assert all(call.cancelled() for call in asked)
