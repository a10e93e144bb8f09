"""The servers that a process's tests share: an embedded pair, started once, or those that the environment names.

Law: one pair a process, whatever its tests, threads and event loops are. It is made at the first call, ends with the
process, and holds nothing that anybody will ask for again.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from perdure.schemas.errors import SettingsError

from .embedded import embedded_broker, embedded_valkey
from .server_process import ServerProcess

REDIS_VARIABLE = "PERDURE_TEST_REDIS_URL"
KAFKA_VARIABLE = "PERDURE_TEST_BOOTSTRAP_SERVERS"


class ServerAddresses(NamedTuple):
    """Where tests find their servers.

    Attributes:
        redis_url: As `PERDURE_REDIS_URL`.
        bootstrap_servers: As `PERDURE_BOOTSTRAP_SERVERS`.
        embedded: Whether they are this process's own embedded pair.
    """

    redis_url: str
    bootstrap_servers: str
    embedded: bool = False


def shared_servers() -> ServerAddresses:
    """Return the servers that the environment names for tests, else this process's own pair, which then runs.

    Blocks while the pair starts, about half a second; further calls return at once. May be called from any thread.

    Raises:
        SettingsError: One variable is set and the other one is not; or the extra `embedded` is not installed.
        ServerProcessError: One of them did not start; the message holds the end of its log.
    """
    return _named(os.environ) or _PAIRS.running()


class EmbeddedPairs:
    """One running pair for this process, which ends with it; a process that is forked off makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By process: what a fork inherits is its parent's to end, and must not even be closed.
        self._pairs: dict[int, _Pair] = {}

    def running(self) -> ServerAddresses:
        """Return where the pair is, started or, if somebody ended one of them, started anew.

        Raises:
            SettingsError: The extra `embedded` is not installed.
            ServerProcessError: One of them did not start.
        """
        with self._lock:
            pair = self._pairs.get(os.getpid())
            if pair is None or not pair.is_running:
                if pair is not None:
                    pair.end()
                else:
                    atexit.register(self.end)
                pair = self._pairs[os.getpid()] = _start()
            return ServerAddresses(f"redis://{pair.valkey.address}", pair.broker.address, embedded=True)

    def end(self) -> None:
        """End the pair of this process if it runs. Blocks for some milliseconds; safe to repeat."""
        with self._lock:
            pair = self._pairs.pop(os.getpid(), None)
            if pair is not None:
                pair.end()


# The one value of this package that belongs to the process: tests have no other place in common.
_PAIRS = EmbeddedPairs()


class _Pair(NamedTuple):
    valkey: ServerProcess
    broker: ServerProcess
    directory: Path

    @property
    def is_running(self) -> bool:
        return self.valkey.is_running and self.broker.is_running

    def end(self) -> None:
        self.broker.kill_blocking()
        self.valkey.kill_blocking()
        shutil.rmtree(self.directory, ignore_errors=True)


def _start() -> _Pair:
    directory = Path(tempfile.mkdtemp(prefix="perdure-tests-"))
    try:
        pair = _Pair(embedded_valkey(directory), embedded_broker(directory), directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise

    async def start() -> None:
        await asyncio.gather(pair.valkey.start(), pair.broker.start())

    try:
        # In a thread of its own, for callers that have a running loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, start()).result()
    except BaseException:
        pair.end()
        raise
    return pair


def _named(variables: Mapping[str, str]) -> ServerAddresses | None:
    redis_url, bootstrap_servers = variables.get(REDIS_VARIABLE), variables.get(KAFKA_VARIABLE)
    if redis_url and bootstrap_servers:
        return ServerAddresses(redis_url, bootstrap_servers)
    if redis_url or bootstrap_servers:
        there, missing = (REDIS_VARIABLE, KAFKA_VARIABLE) if redis_url else (KAFKA_VARIABLE, REDIS_VARIABLE)
        raise SettingsError(f"{there} is set and {missing} is not: tests take both servers from you, or none. Set it.")
    return None
