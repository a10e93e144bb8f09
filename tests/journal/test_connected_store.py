"""A store on a connection of its own: `perdure.journal.connected_store`."""

from __future__ import annotations

from perdure.journal.connected_store import connected_store, locator
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import opened
from perdure.journal.redis_config import RedisConfig
from perdure.worker.server_process import ServerProcess


async def test_it_connects_and_serves(redis_url: str, namespace: str) -> None:
    """The store works while the block runs."""
    async with connected_store(RedisConfig.from_url(redis_url), Keys(namespace, slots=2), name="test") as store:
        assert store.slots == 2
        assert await store.heartbeat("w1", {}) == ["w1"]


async def test_the_login_and_the_database_are_used(private_redis: ServerProcess) -> None:
    """User, password and database of the URL are those of the connection."""
    async with opened(RedisConfig(host="127.0.0.1", port=private_redis.port)) as line:
        await line.ask("ACL", "SETUSER", "me", "on", ">pw", "~*", "&*", "+@all")
    config = RedisConfig.from_url(f"redis://me:pw@{private_redis.address}/3")
    async with connected_store(config, Keys("n", slots=1), name="test") as store:
        await store.heartbeat("w1", {})
    async with opened(config) as line:
        assert await line.ask("EXISTS", Keys("n", slots=1).workers) == 1


async def test_tls_reaches_the_endpoint() -> None:
    """`rediss://` is a TLS connection, `redis://` is not."""
    assert (await locator(RedisConfig.from_url("rediss://h:1"))()).ssl is not None
    assert (await locator(RedisConfig.from_url("redis://h:1"))()).ssl is None
