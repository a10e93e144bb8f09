"""PURE. What a broker's answer says of itself and of topics: which exist, on how many brokers, and what is allowed.

Source: Kafka protocol guide, "Metadata" and "Error Codes".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .kafka_config import ClusterView

_THERE: Final = (0, 5)
"""No error, and a topic of which a partition has no leader at the moment."""
_UNKNOWN: Final = 3
_FORBIDDEN: Final = 29

# Where each partition tells which brokers have it.
_REPLICAS: Final = 3


def view_of(answer: Any) -> ClusterView:
    """What an answer to Metadata says; of topics that may not be looked at, that nothing may be done with them.

    Args:
        answer: aiokafka's, or `kafka_topic_ids.Answer`.
    """
    found: dict[str, int] = {}
    ids: dict[str, str] = {}
    copies: dict[str, int] = {}
    operations: dict[str, int] = {}
    for code, topic, _internal, partitions, *known in answer.topics:
        if code in _THERE:
            found[topic] = len(partitions)
            copies[topic] = min((len(partition[_REPLICAS]) for partition in partitions), default=0)
            # Of aiokafka's own answers neither is known.
            topic_id, may = known or (None, None)
            if topic_id is not None:
                ids[topic] = topic_id
            if may is not None:
                operations[topic] = may
        elif code == _FORBIDDEN:
            operations[topic] = 0
    brokers = tuple(f"{host}:{port}" for _node, host, port, _rack in answer.brokers)
    return ClusterView(getattr(answer, "cluster_id", None), brokers, found, ids, copies, operations)


def refused(answer: Any, *, rights: bool) -> Iterator[tuple[int, str]]:
    """The topics of an answer that are told neither as there nor as missing, with the code of the reason.

    Args:
        answer: As `view_of`.
        rights: Whether it was asked what is allowed: then nothing is an answer, too.
    """
    for code, topic, *_about in answer.topics:
        if code not in (*_THERE, _UNKNOWN) and not (rights and code == _FORBIDDEN):
            yield code, topic
