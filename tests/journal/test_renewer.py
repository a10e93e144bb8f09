"""Renewing from a thread: `perdure.journal.renewer`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import opened
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_store import RedisStore
from perdure.journal.renewer import ThreadRenewer
from perdure.journal.store import Admission, Claimed, Lease
from perdure.schemas.entries import Input
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import new_invocation_id
from perdure.worker.clock import system_random
from perdure.worker.server_process import ServerProcess

HOUR_MS = 3_600_000


@pytest.fixture
def config(private_redis: ServerProcess) -> RedisConfig:
    """Where this test's own Redis is."""
    return RedisConfig(host="127.0.0.1", port=private_redis.port)


@pytest.fixture
async def store(config: RedisConfig) -> AsyncIterator[RedisStore]:
    """A store with a connection of its own."""
    async with connected_store(config, Keys("n", slots=2), name="test") as connected:
        yield connected


async def admit(store: RedisStore) -> Lease:
    """A new invocation's first lease."""
    admission = Admission(
        new_invocation_id("S", None, system_random()), "S", "h", None, Input(0, "w", (), b""), token="t", worker="w"
    )
    admitted = await store.admit(admission, lease_ms=10_000)
    assert isinstance(admitted, Claimed)
    return admitted.lease


async def until_ms(config: RedisConfig, lease: Lease) -> float:
    """When a lease ends."""
    async with opened(config) as line:
        score = await line.ask("ZSCORE", Keys("n", slots=2).of(lease.invocation_id).due, f"lease:{lease.invocation_id}")
    return float(score)


async def test_leases_are_renewed_and_lost_ones_are_told(config: RedisConfig, store: RedisStore) -> None:
    """Each lease is moved out; where another attempt owns the invocation there is `None`."""
    mine, other = await admit(store), await admit(store)
    before = await until_ms(config, mine)
    renewer = ThreadRenewer(config, Keys("n", slots=2))
    try:
        assert await asyncio.to_thread(renewer.renew, [], HOUR_MS) == []
        fenced = other._replace(token="stolen")
        assert await asyncio.to_thread(renewer.renew, [mine, fenced], HOUR_MS) == [1, None]
    finally:
        renewer.close()
    assert await until_ms(config, mine) > before + HOUR_MS / 2


async def test_a_forgotten_script_is_loaded_again(config: RedisConfig, store: RedisStore) -> None:
    """After SCRIPT FLUSH the next renewal works as before."""
    lease = await admit(store)
    renewer = ThreadRenewer(config, Keys("n", slots=2))
    try:
        assert await asyncio.to_thread(renewer.renew, [lease], HOUR_MS) == [1]
        async with opened(config) as line:
            await line.ask("SCRIPT", "FLUSH")
        assert await asyncio.to_thread(renewer.renew, [lease], HOUR_MS) == [1]
    finally:
        renewer.close()


async def test_an_outage_is_an_error_and_heals(
    config: RedisConfig, store: RedisStore, private_redis: ServerProcess
) -> None:
    """A renewal without a server fails and is not repeated behind one's back; the next one connects anew."""
    lease = await admit(store)
    renewer = ThreadRenewer(config, Keys("n", slots=2))
    try:
        await asyncio.to_thread(renewer.renew, [lease], HOUR_MS)
        await private_redis.kill()
        for _ in range(2):
            with pytest.raises(StoreError):
                await asyncio.to_thread(renewer.renew, [lease], HOUR_MS)
        await private_redis.start()
        assert await asyncio.to_thread(renewer.renew, [lease], HOUR_MS) == [1]
    finally:
        renewer.close()
