"""Work on three Kafka brokers of which two must have each record, while one of them is killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.worker.kafka_admin import create_topics
from perdure.worker.kafka_findings import examine_kafka
from perdure.worker.server_process import ServerProcess
from perdure.worker.settings import Settings
from perdure.worker.topics import plan_topics
from tests.servers.apache import apache_kafkas
from tests.waiting import wait_until

from .application import SERVICE, Act, application
from .stage import Stage, set_stage

# Servers of its own are started within the deadline, several Javas among them where it is about Kafka.
pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(300)]

ACTS = (Act("step", 20), Act("sleep", 50), Act("together", 10))

# Three Javas share the machine with the tests.
JAVA_FLAGS = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Start three brokers."""
    made = await asyncio.to_thread(apache_kafkas, tmp_path / "kafka", count=3, flags=JAVA_FLAGS)
    try:
        await asyncio.gather(*(broker.start() for broker in made))
        yield made
    finally:
        await asyncio.gather(*(broker.kill() for broker in made))


@pytest.fixture
async def stage(
    brokers: list[ServerProcess], redis_url: str, namespace: str, chance: random.Random, tmp_path: Path
) -> AsyncIterator[Stage]:
    """Set the stage on them."""
    addresses = ",".join(broker.address for broker in brokers)
    async with set_stage(
        redis_url, addresses, namespace, directory=tmp_path, chance=chance, topic_replication_factor=-1
    ) as made:
        yield made


async def doctor_names_topics_that_one_broker_can_take_along(settings: Settings) -> None:
    """One with a single copy, and one whose records count when one broker has them; each with what mends it."""
    config = settings.kafka_config(client_id="test")
    plans = plan_topics(settings.namespace, [SERVICE], partitions=2, replication_factor=3)
    lone, hasty, *rest = plans
    lone = lone._replace(replication_factor=1)
    hasty = hasty._replace(config=(*hasty.config, ("min.insync.replicas", "1")))
    await create_topics(config, [lone, hasty, *rest])
    found: dict[str, str] = {}

    async def all_there() -> bool:
        nonlocal found
        findings = await examine_kafka(settings, application, target="m:a")
        found = {finding.found: finding.mend for finding in findings if finding.level == "problem"}
        # One broker has made them, and the next may not have heard of them yet.
        return not any("is not there" in said for said in found)

    await wait_until(all_there)
    assert len(found) == 2
    said = f"{lone.name} is on 1 broker: what nobody has admitted yet goes with it."
    assert "kafka-reassign-partitions.sh" in found[said]
    said = f"{hasty.name} acknowledges what one broker has: min.insync.replicas is 1."
    assert f"--entity-name {hasty.name} --add-config min.insync.replicas=2" in found[said]


async def test_a_broker_is_killed_under_load(stage: Stage, brokers: list[ServerProcess]) -> None:
    """Whichever it is, coordinator or leader: no acknowledged record is lost, and work goes on with the other two."""
    workers = await stage.start_two()
    findings = await examine_kafka(stage.settings, application, target="m:a")
    assert [finding for finding in findings if finding.level == "problem"] == []
    other = stage.settings.model_copy(update={"namespace": f"{stage.settings.namespace}-lax"})
    await doctor_names_topics_that_one_broker_can_take_along(other)

    async def send() -> None:
        for number in range(60):
            await stage.send_through_outage(f"r{number}", *ACTS)
            await asyncio.sleep(stage.chance.uniform(0, 0.1))

    sending = asyncio.create_task(send())
    await asyncio.sleep(stage.chance.uniform(0.5, 1.5))
    await stage.chance.choice(brokers).kill()
    await sending
    await stage.finished(timeout_s=60)
    assert all(worker.alive for worker in workers)
    await stage.check()
