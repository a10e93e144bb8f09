"""Work on a Redis Cluster: across its nodes, while a slot moves, while a primary dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal.keys import Keys
from perdure.journal.redis_rights import acl_line
from perdure.journal.redis_topology import cluster_slot
from perdure.worker.client import Client
from tests.servers.redis_family import PRIMARIES, RedisCluster, ask, denials, grant, started
from tests.waiting import PATIENCE

from .application import Act, Plan, perform
from .stage import SLOTS, Stage, set_stage

pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(300)]

ACTS = (Act("step", 20), Act("sleep", 50), Act("together", 10), Act("step", 20))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """Start a cluster of this test's own."""
    async with started(RedisCluster(tmp_path / "cluster")) as made:
        yield made


@pytest.fixture
async def stage(
    cluster: RedisCluster, bootstrap_servers: str, namespace: str, chance: random.Random, tmp_path: Path
) -> AsyncIterator[Stage]:
    """Set the stage on the cluster, as a user with no more rights than needed."""
    await let_in(cluster, namespace)
    url = cluster.url.replace("redis://", "redis://perdure:secret@")
    async with set_stage(url, bootstrap_servers, namespace, directory=tmp_path, chance=chance) as made:
        yield made


async def let_in(cluster: RedisCluster, namespace: str) -> None:
    """Make the user of the documentation on every node; a restart forgets him."""
    for node in cluster.nodes:
        await grant(node, acl_line(namespace, waitaof=False))


async def forbidden(cluster: RedisCluster) -> list[str]:
    """What any node has forbidden so far."""
    return [what for node in cluster.nodes for what in await denials(node)]


async def send_many(stage: Stage, *, count: int, pause_s: float = 0.05) -> None:
    """Records at random intervals, each one until it is acknowledged."""
    for number in range(count):
        await stage.send_through_outage(f"r{number}", *ACTS)
        await asyncio.sleep(stage.chance.uniform(0, 2 * pause_s))


async def test_work_is_spread_over_the_nodes(stage: Stage, cluster: RedisCluster) -> None:
    """Invocations of one namespace lie on every primary, and all of them end, with their offsets committed."""
    workers = await stage.start_two()
    await send_many(stage, count=40, pause_s=0.01)
    async with Client(stage.settings) as client:
        # The outcome is told through whichever node the client is subscribed to.
        reports = [client.call(perform, Plan(f"c{n}", list(ACTS)), timeout=PATIENCE) for n in range(10)]
        assert [report.tag for report in await asyncio.gather(*reports)] == [f"c{n}" for n in range(10)]
        stage.acknowledged += [f"c{n}" for n in range(10)]
        page = await client.list_invocations(limit=100)
        assert len(page.invocations) == 50
    await stage.finished()
    held = [await ask(node, "DBSIZE") for node in cluster.nodes[:PRIMARIES]]
    assert all(held), held
    assert await forbidden(cluster) == []
    assert all(worker.alive for worker in workers)
    await stage.check()
    await stage.check_no_failures()


async def test_a_slot_moves_under_load(stage: Stage, cluster: RedisCluster) -> None:
    """Work on its keys waits until they have moved, and goes on at the other node; nothing is torn or repeated."""
    workers = await stage.start_two()
    keys = Keys(stage.settings.namespace, slots=SLOTS)

    async def move() -> None:
        moved = 0
        for _ in range(3):
            await asyncio.sleep(0.5)
            slot = cluster_slot(keys.prefix(stage.chance.randrange(SLOTS)))
            source = await cluster.primary_of_slot(slot)
            target = stage.chance.choice([node for node in cluster.nodes[:PRIMARIES] if node is not source])
            moved += await cluster.move(slot, target, pause_s=0.01)
        assert moved

    await asyncio.gather(send_many(stage, count=60), move())
    await stage.finished()
    assert await forbidden(cluster) == []
    assert all(worker.alive for worker in workers)
    await stage.check()


async def test_a_primary_dies_under_load(stage: Stage, cluster: RedisCluster) -> None:
    """Its replica takes over and work goes on there; no invocation is lost. The old one comes back as a replica."""
    workers = await stage.start_two()
    keys = Keys(stage.settings.namespace, slots=SLOTS)

    async def die() -> None:
        await asyncio.sleep(1.0)
        victim = await cluster.primary_of(keys.prefix(stage.chance.randrange(SLOTS)))
        await victim.kill()
        await cluster.settled()
        await victim.start()
        await let_in(cluster, stage.settings.namespace)
        await cluster.settled()

    await asyncio.gather(send_many(stage, count=60), die())
    await stage.finished()
    assert all(worker.alive for worker in workers)
    await stage.check(epochs_kept=False)
