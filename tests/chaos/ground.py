"""The servers of a run: a Redis whose disk can be filled, a broker behind a proxy, both to be killed and restarted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perdure.journal.redis_admin import opened
from perdure.journal.redis_config import RedisConfig
from perdure.worker.clock import system_random
from perdure.worker.server_process import ServerProcess, free_port
from tests.servers import lane
from tests.servers.full_disk import fillable_redis

from .proxy import Proxy


@dataclass
class Ground:
    """Running servers.

    Attributes:
        redis: Redis or Valkey.
        redis_dir: Its data.
        broker: Kafka, which tells its clients to come through `kafka`.
        kafka: The proxy before it.
        redis_lock: Held by who does something to Redis as a whole.
        broker_lock: Likewise.
    """

    redis: ServerProcess
    redis_dir: Path
    broker: ServerProcess
    kafka: Proxy
    redis_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    broker_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def redis_url(self) -> str:
        """Of Redis itself."""
        return f"redis://{self.redis.address}"

    async def ask(self, *command: str | int) -> Any:
        """Redis's answer to one command.

        Raises:
            StoreError: There is nobody, or it refuses.
        """
        async with opened(RedisConfig.from_url(self.redis_url)) as line:
            return await line.ask(*command)

    async def info(self, section: str) -> dict[str, str]:
        """A section of Redis's INFO."""
        text: bytes = await self.ask("INFO", section)
        return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)

    async def errors(self, name: str) -> int:
        """How often Redis has answered with that error since it was started."""
        found = (await self.info("errorstats")).get(f"errorstat_{name}", "count=0")
        return int(found.partition("=")[2])


@contextlib.asynccontextmanager
async def ground(directory: Path) -> AsyncIterator[Ground]:
    """Start the lane's servers; they end with the block."""
    redis_dir, ports = directory / "redis", system_random()
    redis = fillable_redis(redis_dir)
    await redis.start()
    try:
        advertised = free_port(ports)
        broker = await lane.new_broker(directory / "broker", advertised_port=advertised)
        try:
            async with Proxy(advertised, upstream_port=broker.port) as kafka:
                yield Ground(redis, redis_dir, broker, kafka)
        finally:
            await broker.stop()
    finally:
        await redis.stop()
