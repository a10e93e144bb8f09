"""Work through a Kafka that speaks TLS by a private authority, asks for a password, and allows what is needed only."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.worker.application import app
from perdure.worker.client import Client
from perdure.worker.findings import Finding
from perdure.worker.kafka_admin import create_topics
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.kafka_findings import examine_kafka
from perdure.worker.kafka_rights import own_rules
from perdure.worker.server_process import ServerProcess
from perdure.worker.settings import Settings
from perdure.worker.subscriptions import Subscription
from perdure.worker.topics import TopicPlan
from tests.servers.apache import KafkaLock, locked_kafka
from tests.servers.certificates import Authority, new_authority
from tests.servers.kafka_rules import allow
from tests.waiting import PATIENCE, wait_until

from .application import Act, Plan, perform, work
from .stage import Stage, set_stage
from .worker_process import TARGET

# Servers of its own are started within the deadline, several Javas among them where it is about Kafka.
pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(300)]

ACTS = (Act("step", 5), Act("sleep", 50), Act("flaky", 1))
PASSWORD = "secret-for-tests"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody trusts yet."""
    return new_authority(tmp_path / "authority")


@pytest.fixture
async def locked(authority: Authority, tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, KafkaLock]]:
    """Start a broker that is locked, and where nobody may do anything yet."""
    users = {"perdure": PASSWORD, "deployer": PASSWORD}
    async with locked_kafka(authority, tmp_path / "kafka", users=users, rules=True) as made:
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


async def doctor(settings: Settings) -> tuple[int | None, str]:
    """The exit code of `perdure doctor`, and what it said."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure", "doctor", TARGET),
        env={**os.environ, **settings.environment()},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await command.communicate()
    return command.returncode, " ".join(said.decode().split())


async def check_subscription(settings: Settings, broker: ServerProcess) -> None:
    """The doctor names what lacks for a subscription, and what it says mends it."""
    open_door = KafkaConfig(broker.address, group_id="")
    name = f"{settings.namespace}-bills"
    await create_topics(open_door, [TopicPlan(name, 1, 1, ())])
    subscribed = app([work], subscriptions=[Subscription(topic=name, handler=perform, group=name)])

    async def problems() -> list[Finding]:
        found = await examine_kafka(settings, subscribed, target=TARGET)
        return [each for each in found if each.level == "problem"]

    lacking = [f"The user perdure lacks rights: read on the {kind} {name}." for kind in ("topic", "group")]
    found = await problems()
    assert [each.found for each in found] == lacking
    for each in found:
        await allow(broker, each.mend.partition(" --add ")[2])
    assert await problems() == []


async def test_work_behind_the_lock(stage: Stage, locked: tuple[ServerProcess, KafkaLock]) -> None:
    """With the documented rights: through a death of the broker; the doctor tells what lacks, and then nothing."""
    broker, _ = locked
    namespace = stage.settings.namespace
    for rule in own_rules(namespace, user="deployer", create=True):
        await allow(broker, rule)
    await stage.create_topics_as(stage.settings.model_copy(update={"kafka_sasl_username": "deployer"}))
    topics, group, groups = own_rules(namespace)
    code, said = await doctor(stage.settings)
    assert code == 1
    assert f"lacks rights: read and write on the topic {namespace}.Work." in said
    assert f"--add {topics}" in said
    await allow(broker, topics)
    code, said = await doctor(stage.settings)
    assert code == 1
    assert f"lacks rights: read on the group {namespace}." in said
    assert f"--add {group}" in said
    assert "on the topic" not in said
    early = await stage.start()
    said_so = f"cannot join the group {namespace}: GroupAuthorizationFailedError"
    await wait_until(lambda: said_so in early.log(), description="the worker says what lacks")
    for rule in (group, groups):
        await allow(broker, rule)
    await early.ready()
    await check_subscription(stage.settings, broker)
    workers = [early, await stage.start_ready()]
    for number in range(10):
        await stage.send_through_outage(f"a{number}", *ACTS)
    await broker.restart()
    for number in range(10):
        await stage.send_through_outage(f"b{number}", *ACTS)
    async with Client(stage.settings) as client:
        report = await client.call(perform, Plan("called"), timeout=PATIENCE)
    assert report.tag == "called"
    stage.acknowledged.append("called")
    await stage.finished()
    await stage.check()
    assert all(worker.alive for worker in workers)
    assert all(PASSWORD not in worker.log() for worker in workers)
    code, said = await doctor(stage.settings)
    assert code == 0, said
    assert "1 broker" in said
