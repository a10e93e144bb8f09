"""The durable point: `perdure.journal.barrier`."""

from __future__ import annotations

import pytest

from perdure.journal.barrier import UNFSYNCED_LAG_MS, Barrier
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import opened, server_facts
from perdure.journal.redis_config import RedisConfig
from perdure.schemas.errors import StoreError
from perdure.worker.server_process import ServerProcess


def config_of(server: ServerProcess) -> RedisConfig:
    """Where a server is."""
    return RedisConfig(host="127.0.0.1", port=server.port)


async def test_a_barrier_passes_and_leaves_a_key_that_expires(redis_url: str, namespace: str) -> None:
    """The write that stands before the question is the worker's own key and does not stay for ever."""
    config = RedisConfig.from_url(redis_url)
    keys = Keys(namespace, slots=4)
    barrier = Barrier(config, "w1", keys, replicas=0)
    try:
        assert await barrier.pass_() == 1
        assert await barrier.pass_() == 1
    finally:
        await barrier.close()
    async with opened(config) as line:
        assert await line.ask("PTTL", keys.barrier("w1")) > 0


async def test_servers_without_waitaof_make_commits_lag(redis_url: str, namespace: str) -> None:
    """Where the disk cannot be asked, its worst case is waited for instead."""
    config = RedisConfig.from_url(redis_url)
    barrier = Barrier(config, "w1", Keys(namespace, slots=4), replicas=0)
    try:
        await barrier.pass_()
    finally:
        await barrier.close()
    assert barrier.lag_ms == (0 if (await server_facts(config)).waitaof else UNFSYNCED_LAG_MS)


async def test_a_command_that_was_renamed_away_counts_as_missing(private_redis: ServerProcess) -> None:
    """A managed service without WAITAOF is served by WAIT and a lag; a user who may not ask is told so."""
    config = config_of(private_redis)
    if not (await server_facts(config)).waitaof:
        pytest.skip("this lane's server has no WAITAOF to forbid")
    async with opened(config) as line:
        await line.ask("ACL", "SETUSER", "some", "on", ">pw", "~*", "+@all", "-waitaof")
    barrier = Barrier(
        RedisConfig.from_url(f"redis://some:pw@{private_redis.address}"), "w1", Keys("n", slots=1), replicas=0
    )
    try:
        with pytest.raises(StoreError, match="ACL SETUSER"):
            await barrier.pass_()
    finally:
        await barrier.close()


async def test_without_an_append_only_file_there_is_no_barrier(private_redis: ServerProcess) -> None:
    """A server that stopped persisting vouches for nothing, unless that was allowed explicitly."""
    config = config_of(private_redis)
    if not (await server_facts(config)).waitaof:
        pytest.skip("only WAITAOF notices it")
    async with opened(config) as line:
        await line.ask("CONFIG", "SET", "appendonly", "no")
    strict = Barrier(config, "w1", Keys("n", slots=1), replicas=0)
    lax = Barrier(config, "w2", Keys("n", slots=1), replicas=0, fsync=False)
    try:
        with pytest.raises(StoreError, match="appendonly"):
            await strict.pass_()
        assert await lax.pass_() == 1
        assert lax.lag_ms == 0
    finally:
        await strict.close()
        await lax.close()


async def test_replicas_that_are_not_there_are_missed(redis_url: str, namespace: str) -> None:
    """An admission that must be on a replica is not durable without one."""
    barrier = Barrier(RedisConfig.from_url(redis_url), "w1", Keys(namespace, slots=4), replicas=1, timeout_ms=1_500)
    try:
        with pytest.raises(StoreError, match="0 of 1 replicas"):
            await barrier.pass_()
    finally:
        await barrier.close()


async def test_a_restart_shows_in_the_number_and_heals(private_redis: ServerProcess) -> None:
    """After a restart the next passes succeed, on another connection, so that what was in doubt is admitted again."""
    barrier = Barrier(config_of(private_redis), "w1", Keys("n", slots=1), replicas=0)
    try:
        assert await barrier.pass_() == 1
        await private_redis.restart()
        with pytest.raises(StoreError):
            await barrier.pass_()
        assert await barrier.pass_() == 2
    finally:
        await barrier.close()
