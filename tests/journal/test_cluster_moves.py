"""Scripts while a Redis Cluster moves their slot: each is carried out as a whole, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_store import RedisStore
from perdure.journal.redis_topology import cluster_slot
from perdure.journal.store import Claimed
from perdure.schemas.commands import ClearAll, SetState
from perdure.worker.server_process import ServerProcess
from tests.servers.redis_family import PRIMARIES, RedisCluster, ask, ask_all, started
from tests.servers.redis_versions import PROGRAMS

from .store_contract import LEASE_MS, admission, new_id, output, run, sleep

pytestmark = pytest.mark.servers

TARGET = "Greeter/k"
KEYS = Keys("ns", slots=1)


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """Start a cluster of this test's own, of the version that it is to run on."""
    async with started(RedisCluster(tmp_path, program=PROGRAMS[request.param]())) as made:
        yield made


@pytest.fixture
async def store(cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    """A store of one slot on it."""
    config = RedisConfig.from_url(cluster.url)
    await open_namespace(config, KEYS.namespace, slots=1)
    async with connected_store(config, KEYS, name="test") as made:
        yield made


async def contents(*nodes: ServerProcess) -> Mapping[tuple[int, bytes], Any]:
    """Every key of the slot, and what is in it."""
    found = {}
    for node in nodes:
        for key in await ask(node, "CLUSTER", "GETKEYSINSLOT", cluster_slot(KEYS.prefix(0)), 100):
            # Who gets a slot answers for its keys only after ASKING.
            _, found[node.port, key] = await ask_all(node, ("ASKING",), ("DUMP", key))
    return found


async def claimed(store: RedisStore, *, lease_ms: int = LEASE_MS) -> Claimed:
    """An exclusive invocation of an object that runs."""
    asked = admission(new_id("k"), key="k", mode="exclusive")
    found = await store.admit(asked, lease_ms=lease_ms)
    assert isinstance(found, Claimed)
    return found


@pytest.mark.parametrize(
    ("cluster", "carried"), list(zip(PROGRAMS, ["invocation", "due", "state"], strict=True)), indirect=["cluster"]
)
async def test_a_script_in_a_half_moved_slot_waits_as_a_whole(
    store: RedisStore, cluster: RedisCluster, carried: str
) -> None:
    """Whichever key has moved already, nothing is written until all have; then everything is done, once."""
    mine = (await claimed(store)).lease
    await store.append(mine, [SetState(0, "a", b"1")], after=1, seq=1, progress=True)
    free = await store.admit(admission(new_id(None)), lease_ms=1)
    assert isinstance(free, Claimed)
    ended = free.lease
    slot = cluster_slot(KEYS.prefix(0))
    source = await cluster.primary_of_slot(slot)
    target = next(node for node in cluster.nodes[:PRIMARIES] if node is not source)
    await cluster.begin_move(slot, target)
    keys = [key for _, key in await contents(source)]
    await cluster.carry([key for key in keys if key.startswith(KEYS.prefix(0) + carried.encode())], source, target)
    before = await contents(source, target)
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: store.append(mine, [ClearAll(1), SetState(2, "b", b"2"), sleep(3, 5)], after=2, seq=2, progress=True),
        lambda: store.sweep(0),
        lambda: store.edit_state(TARGET, [("c", b"3")], force=True),
        lambda: store.kill(ended.invocation_id, output()),
        lambda: store.expire("nobody"),
    ]
    calls = [asyncio.ensure_future(each()) for each in asked]
    await asyncio.wait(calls, timeout=0.7)
    assert not any(call.done() for call in calls[:-1])
    assert await contents(source, target) == before
    await cluster.carry([key for port, key in before if port == source.port], source, target)
    await cluster.finish_move(slot, source, target)
    await asyncio.gather(*calls)
    state = await store.read_state(TARGET)
    assert state["b"] == b"2"
    assert "a" not in state
    assert (await store.read_journal(mine.invocation_id, after=2))[0].entry == ClearAll(1)
    await store.append(mine, [run(4)], after=5, seq=3, progress=True)
