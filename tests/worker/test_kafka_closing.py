"""Ending aiokafka clients: `perdure.worker.kafka_closing`."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka.client
import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from perdure.worker.kafka import Producer
from perdure.worker.kafka_closing import client_of
from tests.waiting import wait_until

from .kafka_clients import idle_consumer, quick_config


@pytest.mark.parametrize("client", [Producer, idle_consumer])
async def test_a_connection_that_comes_late_is_closed(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    """Somebody who asks is still connecting when all is closed, and nobody would ever close that connection."""
    made_by = client(quick_config(bootstrap_servers, namespace))
    await made_by.start()
    core = client_of(made_by._client) if client is idle_consumer else made_by._client.client
    late, create = asyncio.Event(), aiokafka.client.create_conn
    made: list[AIOKafkaConnection] = []

    async def creating(*where: Any, **how: Any) -> AIOKafkaConnection:
        made.append(await create(*where, **how))
        await late.wait()
        return made[-1]

    monkeypatch.setattr(aiokafka.client, "create_conn", creating)
    (node,) = {broker.nodeId for broker in core.cluster.brokers()}
    asking = asyncio.create_task(core.send(node, MetadataRequest([]), group=ConnectionGroup.COORDINATION))
    await wait_until(lambda: bool(made))
    await made_by.close()
    late.set()
    with pytest.raises(KafkaConnectionError):
        await asking
    assert not made[0].connected()
