"""What is done to the servers themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from perdure.schemas.errors import PerdureError, StoreError
from perdure.worker.kafka_admin import describe_cluster
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.server_process import ServerProcess
from tests.servers.full_disk import empty_disk, fill_disk
from tests.servers.power_loss import append_only_file, lose_unvouched
from tests.waiting import wait_until

from .ground import Ground
from .schedule import Kind, Strike

SYNCED_S: Final = 2.0
"""With everysec, what is older is on the disk."""

SEEN_S: Final = 5.0
"""How long the effect of a strike is waited for: leases are renewed every second, whatever else there is to do."""

PARTITIONS_MAX: Final = 16

ADMIN_TIMEOUT_MS: Final = 5_000

REWRITTEN_S: Final = 20.0
"""For some megabytes, on a disk that others use."""

STARTS_MAX: Final = 3
"""Of a server that was killed: a machine with much else to do may not bring it up in time."""


class ServerStrikes:
    """Strikes at Redis and at the broker.

    Args:
        ground: The servers.
        config: How Kafka is reached.
        topics: The ones that grow.
    """

    def __init__(self, ground: Ground, config: KafkaConfig, topics: Sequence[str]) -> None:
        self._ground = ground
        self._config = config
        self._topics = list(topics)

    async def strike(self, strike: Strike) -> str:
        """Do it, and return what was seen of it; nothing, where nothing was.

        Raises:
            PerdureError: The server did not answer; it may be away because of another strike.
        """
        if strike.kind in (Kind.BROKER_KILL, Kind.PARTITIONS):
            async with self._ground.broker_lock:
                return await (self._kill_broker(strike) if strike.kind is Kind.BROKER_KILL else self._grow())
        async with self._ground.redis_lock:
            match strike.kind:
                case Kind.REDIS_KILL:
                    return await self._kill_redis(strike)
                case Kind.REDIS_LOSS:
                    return await self._lose(strike)
                case Kind.REDIS_FULL:
                    return await self._fill_memory(strike)
                case Kind.DISK_FULL:
                    return await self._fill_disk(strike)
                case _:
                    return await self._flush_scripts()

    async def _kill_redis(self, strike: Strike) -> str:
        before = await self._run_id()
        await self._ground.redis.kill()
        await asyncio.sleep(strike.duration_s)
        await _certainly_started(self._ground.redis)
        after = await self._run_id()
        return f"run {before[:8]} was followed by {after[:8]}" if before != after else ""

    async def _lose(self, strike: Strike) -> str:
        synced = append_only_file(self._ground.redis_dir).stat().st_size
        await asyncio.sleep(SYNCED_S)
        await self._ground.redis.kill()
        lost = await asyncio.to_thread(lose_unvouched, self._ground.redis_dir, kept_bytes=synced)
        await asyncio.sleep(strike.duration_s)
        await _certainly_started(self._ground.redis)
        return f"{lost} bytes of the append-only file lost" if lost else ""

    async def _fill_memory(self, strike: Strike) -> str:
        before = await self._ground.errors("OOM")
        used = int((await self._ground.info("memory"))["used_memory"])
        try:
            await self._ground.ask("CONFIG", "SET", "maxmemory", int(used * 0.9))
            await asyncio.sleep(strike.duration_s)
            await self._seen("OOM", before)
        finally:
            await self._certainly("CONFIG", "SET", "maxmemory", 0)
        count = await self._ground.errors("OOM") - before
        return f"{count} commands refused with OOM" if count > 0 else ""

    async def _fill_disk(self, strike: Strike) -> str:
        before = await self._ground.errors("MISCONF")
        fill_disk(self._ground.redis, self._ground.redis_dir)
        try:
            await asyncio.sleep(strike.duration_s)
            await self._seen("MISCONF", before)
            status = (await self._ground.info("persistence"))["aof_last_write_status"]
        finally:
            empty_disk(self._ground.redis)
        count = await self._ground.errors("MISCONF") - before
        await self._writes_again()
        await self._rewritten()
        return f"aof_last_write_status:{status}, {count} commands refused with MISCONF" if count > 0 else ""

    async def _flush_scripts(self) -> str:
        before = await self._ground.errors("NOSCRIPT")
        await self._ground.ask("SCRIPT", "FLUSH")
        await self._seen("NOSCRIPT", before)
        count = await self._ground.errors("NOSCRIPT") - before
        return f"{count} commands answered with NOSCRIPT" if count > 0 else ""

    async def _kill_broker(self, strike: Strike) -> str:
        before = self._ground.broker.pid
        await self._ground.broker.kill()
        await asyncio.sleep(strike.duration_s)
        await _certainly_started(self._ground.broker)
        return f"pid {before} was followed by {self._ground.broker.pid}"

    async def _grow(self) -> str:
        """One more partition for every topic of the application."""
        config, view = self._config, await describe_cluster(self._config, self._topics)
        counts = {topic: min(PARTITIONS_MAX, count + 1) for topic, count in view.topics.items()}
        if counts == view.topics:
            return f"{PARTITIONS_MAX} partitions are as many as there are to be"
        admin = AIOKafkaAdminClient(
            bootstrap_servers=config.bootstrap_servers, request_timeout_ms=ADMIN_TIMEOUT_MS, client_id="chaos"
        )
        async with asyncio.timeout(ADMIN_TIMEOUT_MS / 1000):
            try:
                await admin.start()
                await admin.create_partitions({topic: NewPartitions(count) for topic, count in counts.items()})
            finally:
                await admin.close()
        grown = (await describe_cluster(config, self._topics)).topics
        more = sorted(topic for topic in grown if grown[topic] > view.topics.get(topic, 0))
        return f"{len(more)} topics have {max(grown.values())} partitions" if more else ""

    async def _run_id(self) -> str:
        return (await self._ground.info("server"))["run_id"]

    async def _seen(self, error: str, before: int) -> None:
        """Until there is more of it, or not for long."""

        async def more() -> bool:
            return await self._ground.errors(error) > before

        with contextlib.suppress(AssertionError):
            await wait_until(more, timeout_s=SEEN_S)

    async def _certainly(self, *command: str | int) -> None:
        """Until Redis has done it: left undone, the run would be spoilt."""
        while True:
            try:
                await self._ground.ask(*command)
                return
            except StoreError:
                await asyncio.sleep(0.1)

    async def _writes_again(self) -> None:
        """Redis tries its file once a second."""

        async def does() -> bool:
            return (await self._ground.info("persistence"))["aof_last_write_status"] == "ok"

        await wait_until(does, timeout_s=SEEN_S, description="Redis writes again")

    async def _rewritten(self) -> None:
        """Have the append-only file written anew, as docs/operations.md says.

        Redis 7.0 cuts off what it could write only in part, and goes on writing where that ended. A file that it began
        after its start has zeros in between then, and cannot be read any more.
        """
        await self._ground.ask("BGREWRITEAOF")

        async def done() -> bool:
            about = await self._ground.info("persistence")
            return about["aof_rewrite_in_progress"] == "0" and about["aof_rewrite_scheduled"] == "0"

        await wait_until(done, timeout_s=REWRITTEN_S, description="Redis has written its file anew")


async def _certainly_started(server: ServerProcess) -> None:
    """Start it again: left down, everything else would be taken for stuck.

    Raises:
        RuntimeError: It does not start; nothing that comes after it says anything.
    """
    for left in reversed(range(STARTS_MAX)):
        try:
            await server.start()
            return
        except PerdureError as error:
            if not left:
                raise RuntimeError("A server that was killed does not start again: the run ends here.") from error
