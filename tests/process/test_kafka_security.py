"""Work through a Kafka that asks for a password and speaks TLS with a certificate of a private authority."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from perdure.worker.client import Client
from perdure.worker.server_process import ServerProcess
from tests.servers.apache import KafkaLock, locked_kafka
from tests.servers.certificates import Authority, new_authority

from .application import Act, Plan, perform
from .stage import Stage, set_stage

# Servers of its own are started within the deadline, several Javas among them where it is about Kafka.
pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(150)]

ACTS = (Act("step", 5), Act("sleep", 50), Act("flaky", 1))
PASSWORD = "secret-for-tests"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody trusts yet."""
    return new_authority(tmp_path / "authority")


@pytest.fixture
async def locked(authority: Authority, tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, KafkaLock]]:
    """Start a broker that is locked."""
    async with locked_kafka(authority, tmp_path / "kafka", users={"perdure": PASSWORD}) as made:
        yield made


@pytest.fixture
async def stage(
    locked: tuple[ServerProcess, KafkaLock],
    authority: Authority,
    redis_url: str,
    namespace: str,
    chance: random.Random,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    """Set the stage behind the lock."""
    _, lock = locked
    async with set_stage(
        redis_url,
        lock.address,
        namespace,
        directory=tmp_path,
        chance=chance,
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="perdure",
        kafka_sasl_password=PASSWORD,
        kafka_ssl_cafile=str(authority.ca_file),
    ) as made:
        yield made


async def test_work_behind_the_lock(stage: Stage, locked: tuple[ServerProcess, KafkaLock]) -> None:
    """Workers make topics, read, commit and reply; the broker is killed and comes back; a client and a command send."""
    broker, _ = locked
    workers = await stage.start_two()
    for number in range(10):
        await stage.send_through_outage(f"a{number}", *ACTS)
    await broker.restart()
    for number in range(10):
        await stage.send_through_outage(f"b{number}", *ACTS)
    async with Client(stage.settings) as client:
        report = await client.call(perform, Plan("called"), timeout=timedelta(seconds=20))
    assert report.tag == "called"
    stage.acknowledged.append("called")
    await stage.finished()
    await stage.check()
    assert all(worker.alive for worker in workers)
    assert all(PASSWORD not in worker.log() for worker in workers)
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure", "doctor"),
        env={**os.environ, **stage.settings.environment()},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await command.communicate()
    assert command.returncode == 0, said.decode()
    assert "1 broker" in said.decode()
