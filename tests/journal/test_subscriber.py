"""Hearing what is published: `perdure.journal.subscriber`."""

from __future__ import annotations

from perdure.journal.redis_admin import opened
from perdure.journal.redis_config import RedisConfig
from perdure.journal.subscriber import Subscriber
from perdure.worker.server_process import ServerProcess
from tests.waiting import wait_until


async def publish(config: RedisConfig, channel: str, message: str) -> int:
    """Publish and return how many heard it."""
    async with opened(config) as line:
        heard: int = await line.ask("PUBLISH", channel, message)
        return heard


async def test_each_channel_hears_its_own_messages(redis_url: str, namespace: str) -> None:
    """Channels can come before the connection and after it; each is told when it begins."""
    config = RedisConfig.from_url(redis_url)
    one, two = f"{namespace}:one", f"{namespace}:two"
    heard: list[tuple[str, bytes]] = []
    begun: list[str] = []
    subscriber = Subscriber(config, name="test")
    await subscriber.subscribe(one, lambda m: heard.append(("one", m)), on_gap=lambda: begun.append("one"))
    async with subscriber:
        await wait_until(lambda: begun == ["one"])
        await subscriber.subscribe(two, lambda m: heard.append(("two", m)), on_gap=lambda: begun.append("two"))
        await wait_until(lambda: "two" in begun)
        assert await publish(config, one, "a") == 1
        assert await publish(config, two, "b") == 1
        await wait_until(lambda: len(heard) == 2)
    assert sorted(heard) == [("one", b"a"), ("two", b"b")]
    assert await publish(config, one, "c") == 0


async def test_after_unsubscribing_nothing_is_heard(redis_url: str, namespace: str) -> None:
    """A channel that was given up is silent, and others go on."""
    config = RedisConfig.from_url(redis_url)
    one, two = f"{namespace}:one", f"{namespace}:two"
    heard: list[bytes] = []
    begun: list[str] = []
    async with Subscriber(config, name="test") as subscriber:
        for channel in (one, two):
            await subscriber.subscribe(channel, heard.append, on_gap=lambda: begun.append("x"))
        await wait_until(lambda: len(begun) >= 2)
        await subscriber.unsubscribe(one)
        await subscriber.unsubscribe(one)
        await publish(config, one, "lost")
        await publish(config, two, "kept")
        await wait_until(lambda: heard)
    assert heard == [b"kept"]


async def test_a_restart_of_redis_is_survived_and_told(private_redis: ServerProcess) -> None:
    """After a loss every channel is subscribed again and told to look for what it missed."""
    config = RedisConfig(host="127.0.0.1", port=private_redis.port)
    heard: list[bytes] = []
    begun: list[str] = []
    async with Subscriber(config, name="test") as subscriber:
        await subscriber.subscribe("c", heard.append, on_gap=lambda: begun.append("c"))
        await wait_until(lambda: begun)
        count = len(begun)
        await private_redis.restart()
        await wait_until(lambda: len(begun) > count)
        await publish(config, "c", "again")
        await wait_until(lambda: heard == [b"again"])


async def test_a_server_that_is_away_at_first_is_waited_for(private_redis: ServerProcess) -> None:
    """Entering and subscribing need no server; it begins when there is one."""
    await private_redis.kill()
    begun: list[str] = []
    config = RedisConfig(host="127.0.0.1", port=private_redis.port)
    async with Subscriber(config, name="test") as subscriber:
        await subscriber.subscribe("c", lambda m: None, on_gap=lambda: begun.append("c"))
        assert not begun
        await private_redis.start()
        await wait_until(lambda: begun)


async def test_a_frozen_server_is_noticed(private_redis: ServerProcess) -> None:
    """A connection that stays open but silent is made anew."""
    config = RedisConfig(host="127.0.0.1", port=private_redis.port)
    begun: list[str] = []
    async with Subscriber(config, name="frozen", quiet_s=0.1) as subscriber:
        await subscriber.subscribe("c", lambda m: None, on_gap=lambda: begun.append("c"))
        await wait_until(lambda: begun)
        count = len(begun)
        await private_redis.pause()
        await wait_until(lambda: not subscriber.is_live)
        await private_redis.resume()
        await wait_until(lambda: len(begun) > count)
