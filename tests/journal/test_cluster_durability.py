"""The durable point and the leases of a namespace that lies on several nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal.barrier import Barrier
from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_store import RedisStore
from perdure.journal.redis_topology import cluster_slot
from perdure.journal.renewer import ThreadRenewer
from perdure.journal.store import Admission, Claimed, Lease
from perdure.schemas.commands import Send
from perdure.schemas.errors import StoreError
from perdure.worker.server_process import ServerProcess
from tests.servers.redis_family import PRIMARIES, RedisCluster, ask, started
from tests.waiting import wait_until

from .store_contract import LEASE_MS, admission

pytestmark = pytest.mark.servers

SLOTS = 8
KEYS = Keys("ns", slots=SLOTS)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """Start a cluster of this test's own."""
    async with started(RedisCluster(tmp_path)) as made:
        await open_namespace(RedisConfig.from_url(made.url), KEYS.namespace, slots=SLOTS)
        yield made


@pytest.fixture
async def store(cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    """A store on it."""
    async with connected_store(RedisConfig.from_url(cluster.url), KEYS, name="test") as made:
        yield made


async def move(cluster: RedisCluster, slot: int) -> None:
    """Move a slot of the namespace to another node."""
    number = cluster_slot(KEYS.prefix(slot))
    source = await cluster.primary_of_slot(number)
    await cluster.move(number, next(node for node in cluster.nodes[:PRIMARIES] if node is not source))


async def passes(barrier: Barrier) -> int:
    """Pass it, however often it has to be tried while a node is away."""
    while True:
        try:
            return await barrier.pass_()
        except StoreError:
            await asyncio.sleep(0.1)


async def test_the_barrier_is_every_nodes(cluster: RedisCluster) -> None:
    """One number while nothing changes; another one when a slot has moved, and when a replica took over."""
    barrier = Barrier(RedisConfig.from_url(cluster.url), "w", KEYS, replicas=0)
    try:
        first = await barrier.pass_()
        assert await barrier.pass_() == first
        for node in cluster.nodes[:PRIMARIES]:
            assert await ask(node, "KEYS", "ns:{*}:barrier:w")
        await move(cluster, 0)
        second = await passes(barrier)
        assert second != first
        assert await barrier.pass_() == second
        victim = await cluster.primary_of(KEYS.prefix(1))
        await victim.kill()
        assert await passes(barrier) != second
    finally:
        await barrier.close()


async def test_one_node_that_cannot_vouch_holds_all_offsets(cluster: RedisCluster) -> None:
    """What was admitted may lie on any of them."""
    barrier = Barrier(RedisConfig.from_url(cluster.url), "w", KEYS, replicas=1, timeout_ms=500)
    try:
        await barrier.pass_()
        for node in cluster.nodes[PRIMARIES:]:
            if (await ask(node, "ROLE"))[2] == (await cluster.primary_of(KEYS.prefix(0))).port:
                await node.pause()
                break
        with pytest.raises(StoreError, match="0 of 1 replicas"):
            await barrier.pass_()
        await node.resume()
        await passes(barrier)
    finally:
        await barrier.close()


async def running(store: RedisStore, *, count: int) -> list[Lease]:
    """Invocations that run, in all slots."""
    found = [await store.admit(admission(), lease_ms=LEASE_MS) for _ in range(count)]
    return [claim.lease for claim in found if isinstance(claim, Claimed)]


async def test_leases_are_renewed_where_they_are(cluster: RedisCluster, store: RedisStore) -> None:
    """In one call for all nodes; after a move or a change of roles the next call finds them again."""
    leases = await running(store, count=40)
    assert len({KEYS.of(lease.invocation_id).slot for lease in leases}) > SLOTS // 2
    renewer = ThreadRenewer(RedisConfig.from_url(cluster.url), KEYS)

    async def renewed() -> bool:
        try:
            lengths = await asyncio.to_thread(renewer.renew, leases, LEASE_MS)
        except StoreError:
            return False
        assert lengths == [1] * len(leases)
        return True

    try:
        assert await renewed()
        await move(cluster, KEYS.of(leases[0].invocation_id).slot)
        assert not await renewed()
        assert await renewed()
        victim = await cluster.primary_of(KEYS.prefix(KEYS.of(leases[1].invocation_id).slot))
        await ask(victim, "WAIT", 1, 5_000)
        await victim.kill()
        await wait_until(renewed, description="a replica took over")
    finally:
        await asyncio.to_thread(renewer.close)


async def test_a_call_that_a_node_has_lost_is_not_acknowledged(cluster: RedisCluster) -> None:
    """The callee's node dies before its replica has the call, and the caller's has not been told that it arrived."""
    config = RedisConfig.from_url(cluster.url)
    barrier = Barrier(config, "w", KEYS, replicas=1, timeout_ms=1_000)
    try:
        async with connected_store(config, KEYS, name="test", barrier=barrier) as store:
            caller, callee = await apart(cluster, store)
            await passes(barrier)
            replica = await replica_of(cluster, callee)
            await replica.kill()
            as_of = store.losses
            called = await store.admit(callee, lease_ms=LEASE_MS)
            assert isinstance(called, Claimed)
            await store.acknowledge(caller.invocation_id, sent=[2], as_of=as_of)
            victim = await cluster.primary_of(KEYS.of(callee.invocation_id).invocation)
            await victim.kill()
            await replica.start()
            assert await store.read_invocation(callee.invocation_id) is None
            assert await owed(store, caller) == "1"
            # It is made again, which counts when the replica has it on its disk.
            await victim.start()
            await cluster.settled()
            await passes(barrier)

            async def acknowledged() -> bool:
                as_of = store.losses
                await store.admit(callee, lease_ms=LEASE_MS)
                await store.acknowledge(caller.invocation_id, sent=[2], as_of=as_of)
                return await owed(store, caller) == "0"

            await wait_until(acknowledged, description="it is known to have arrived")
    finally:
        await barrier.close()


async def apart(cluster: RedisCluster, store: RedisStore) -> tuple[Lease, Admission]:
    """One that runs and has called another one, which is to be admitted on another node."""
    caller = await store.admit(admission(), lease_ms=LEASE_MS)
    assert isinstance(caller, Claimed)
    home = await cluster.primary_of(KEYS.of(caller.lease.invocation_id).invocation)
    while True:
        callee = admission()
        if await cluster.primary_of(KEYS.of(callee.invocation_id).invocation) is not home:
            break
    sent = Send(0, 5, "Greeter", "greet", None, callee.invocation_id, "", (), 0, b"1")
    await store.append(caller.lease, [sent], after=1, seq=1, progress=False)
    return caller.lease, callee


async def replica_of(cluster: RedisCluster, admitted: Admission) -> ServerProcess:
    """The replica of the node that an invocation is on."""
    primary = await cluster.primary_of(KEYS.of(admitted.invocation_id).invocation)
    for node in cluster.nodes:
        role = await ask(node, "ROLE")
        if role[0] == b"slave" and role[2] == primary.port:
            return node
    raise AssertionError("it has no replica")


async def owed(store: RedisStore, lease: Lease) -> str:
    """How many entries of a journal are not acknowledged."""
    summary = await store.read_invocation(lease.invocation_id)
    assert summary is not None, "it is on a node that lives"
    return summary.fields["outgoing"]
