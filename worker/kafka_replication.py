"""PURE but for asking. How many brokers must have a record before it is acknowledged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_TOPIC: Final = 2
"""What DescribeConfigs calls a topic."""

_LEAST_IN_SYNC: Final = "min.insync.replicas"


async def least_in_sync(client: Any, request: Any, topics: Sequence[str]) -> Mapping[str, int]:
    """Ask how many brokers must have a record of each topic; those that are not told are left out.

    Args:
        client: aiokafka's, connected.
        request: aiokafka's class for DescribeConfigs.
        topics: Which.
    """
    if not topics:
        return {}
    answer = await client.send(client.get_random_node(), request([(_TOPIC, name, [_LEAST_IN_SYNC]) for name in topics]))
    return {
        name: int(value)
        for code, _message, _kind, name, rows in answer.resources
        if code == 0
        for key, value, *_about in rows
        if key == _LEAST_IN_SYNC and value is not None
    }
