"""`tests.servers.leavings`: what is taken back, and what is not."""

from __future__ import annotations

from perdure.worker.kafka_admin import create_topics, describe_cluster
from perdure.worker.kafka_config import KafkaConfig
from tests.waiting import wait_until
from tests.worker.kafka_clients import topic_plan

from .leavings import delete_topics


async def test_topics_of_a_namespace_are_deleted(bootstrap_servers: str, namespace: str) -> None:
    """Those of its services and those named after it go; those of others stay. A broker that is away fails nobody."""
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    names = [f"{namespace}.Shop", f"{namespace}-orders", f"x{namespace}.Shop"]
    await create_topics(config, [topic_plan(name) for name in names])

    async def found() -> list[str]:
        return sorted((await describe_cluster(config, names)).topics)

    async def there() -> bool:
        return len(await found()) == 3

    async def gone() -> bool:
        return await found() == [names[2]]

    await wait_until(there, description="the brokers know all three topics")
    delete_topics(bootstrap_servers, [namespace, "nobody"])
    await wait_until(gone, description="two of three topics are gone")
    delete_topics(bootstrap_servers, [f"x{namespace}"])
    delete_topics("127.0.0.1:1", [namespace])
