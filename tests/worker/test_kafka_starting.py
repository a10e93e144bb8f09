"""Starting aiokafka clients: `perdure.worker.kafka_starting`."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka.client
import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from perdure.schemas.errors import BrokerError
from perdure.worker.broker import Partition
from perdure.worker.kafka import Admin, Producer
from perdure.worker.kafka_offsets import committed
from perdure.worker.kafka_starting import OFFSET_FETCH

from .kafka_clients import broker_for, idle_consumer, poll_until, quick_config, topic_plan, values

HASTY = {
    "commit_timeout_ms": 100,
    "rebalance_timeout_ms": 250,
    "request_timeout_ms": 300,
    "produce_timeout_ms": 300,
    "probe_timeout_ms": 300,
}


@pytest.mark.parametrize("client", [Admin, Producer, idle_consumer])
async def test_a_start_that_is_given_up_leaves_no_connection(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    """A broker that answers too late, as one with thousands of topics on a busy machine, costs no connection each."""
    made: list[AIOKafkaConnection] = []
    create, send = aiokafka.client.create_conn, AIOKafkaConnection.send

    async def creating(*where: Any, **how: Any) -> AIOKafkaConnection:
        made.append(await create(*where, **how))
        return made[-1]

    def late(self: AIOKafkaConnection, request: Any, **how: Any) -> Any:
        # Longer than anybody's patience; aiokafka's own has not begun yet.
        return asyncio.Event().wait() if isinstance(request, MetadataRequest) else send(self, request, **how)

    monkeypatch.setattr(aiokafka.client, "create_conn", creating)
    monkeypatch.setattr(AIOKafkaConnection, "send", late)
    config = quick_config(bootstrap_servers, namespace, **HASTY)
    made_by = client(config)
    with pytest.raises(BrokerError):
        await made_by.start()
    await made_by.close()
    assert made
    assert not any(connection.connected() for connection in made)


@pytest.mark.parametrize("code", [14, 15, 16])
async def test_a_coordinator_that_refuses_to_tell_commits_is_asked_again(
    bootstrap_servers: str, namespace: str, code: int
) -> None:
    """It is loading, not available, or another one now: that is not "nothing was committed".

    Chaos with seed 5100 had all records read again from the first one on, when a broker had lost its session.
    """
    plan = topic_plan(f"{namespace}.S")
    partition = Partition(plan.name, 0)
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await broker.produce(values(plan.name, [0]))
        await poll_until(broker, lambda got: len(got) >= 1)
        await broker.commit({partition: 1})
        assert broker._reader is not None
        consumer = broker._reader._consumer
        client, refusals = consumer._client._client, [code, code]
        send = client.send

        async def refusing(node_id: int, request: Any, **how: Any) -> Any:
            answer = await send(node_id, request, **how)
            if request.API_KEY == OFFSET_FETCH and refusals:
                answer.error_code, answer.topics = refusals.pop(), []
            return answer

        client.send = refusing
        assert await consumer.ask(committed, [partition]) == {partition: 1}
        assert refusals == []
