"""A Kafka that has forgotten how far a group had read, as it does for one that was away for a week."""

from __future__ import annotations

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import DeleteGroupsRequest

from perdure.worker.envelope import checked_id
from perdure.worker.kafka_config import KafkaConfig
from tests.waiting import wait_until

from .application import Act
from .stage import Stage


async def forget(config: KafkaConfig) -> None:
    """Delete the group and all that it has committed."""
    client = AIOKafkaClient(bootstrap_servers=config.bootstrap_servers)
    await client.bootstrap()
    try:

        async def deleted() -> bool:
            coordinator = await client.coordinator_lookup(0, config.group_id)
            answer = await client.send(coordinator, DeleteGroupsRequest([config.group_id]))
            ((_, code),) = answer.results
            # Its last member may still be on the books.
            return bool(code == 0)

        await wait_until(deleted, description="the group is deleted")
    finally:
        await client.close()


@pytest.mark.servers
async def test_what_kafka_has_forgotten_does_not_run_again(stage: Stage) -> None:
    """Their outcomes are no longer kept either, so that nothing but the kept offsets tells that they have run."""
    first = await stage.start_ready()
    for number in range(12):
        await stage.send(f"r{number}", Act("step"))
    await stage.finished()
    await first.terminate()
    for story in await stage.stories():
        await stage.store.purge(checked_id(story.invocation_id))
    assert await stage.stories() == []
    executed = stage.effects.read()
    await forget(stage.settings.kafka_config(client_id="test"))
    second = await stage.start_ready()
    await stage.send("last", Act("step"))
    await stage.until(lambda story: story.status == "completed", tag="last")
    assert [story.tag for story in await stage.stories()] == ["last"]
    assert len(stage.effects.read()) == len(executed) + 1
    assert "Kafka has forgotten offsets" in second.log()
