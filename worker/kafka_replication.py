"""PURE but for asking. How many brokers have each topic, and how many must have a record before it is acknowledged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .kafka_config import ClusterView

_TOPIC: Final = 2
"""What DescribeConfigs calls a topic."""

_LEAST_IN_SYNC: Final = "min.insync.replicas"

# Of an answer to Metadata, where each partition tells which brokers have it.
_REPLICAS: Final = 3


def view_of(answer: Any, there: Sequence[int]) -> ClusterView:
    """What an answer to Metadata says.

    Args:
        answer: aiokafka's, or `kafka_topic_ids.Answer`.
        there: The codes of topics that exist.
    """
    found: dict[str, int] = {}
    ids: dict[str, str] = {}
    copies: dict[str, int] = {}
    for code, topic, _internal, partitions, *known in answer.topics:
        if code in there:
            found[topic] = len(partitions)
            copies[topic] = min((len(partition[_REPLICAS]) for partition in partitions), default=0)
            if any(known):
                ids[topic] = known[0]
    brokers = tuple(f"{host}:{port}" for _node, host, port, _rack in answer.brokers)
    return ClusterView(getattr(answer, "cluster_id", None), brokers, found, ids, copies)


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
