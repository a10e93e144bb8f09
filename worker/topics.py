"""PURE. The names of an app's topics, and how to create them.

```
<ns>.<Service>           new invocations: anybody may produce here
<ns>.<Service>.resume    retries, wake-ups and recoveries: produced by workers, read before all others
<ns>.dead                what could not be understood, byte for byte
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from perdure.schemas.errors import DefinitionError, SettingsError

TOPIC_NAME_LENGTH_MAX = 249
"""Kafka's limit: a topic is a directory with the partition's number behind its name."""

_RESUME = "resume"
_DEAD = "dead"
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")

_KEPT = (("cleanup.policy", "delete"),)
# A cluster may compact by default, which would drop all but the newest invocation of a key.
_KEPT_FOR_EVER = (*_KEPT, ("retention.ms", "-1"))
# Nobody is told of a dead letter but who looks: it stays until an operator removes it.


class TopicPlan(NamedTuple):
    """A topic to create if it is not there. `replication_factor` -1 is the cluster's default."""

    name: str
    partitions: int
    replication_factor: int
    config: tuple[tuple[str, str], ...]


def service_topic(namespace: str, service: str) -> str:
    """Return the topic of a service's new invocations.

    Raises:
        DefinitionError: No topic can carry this service's name.
        SettingsError: No topic can carry this namespace.
    """
    _check_namespace(namespace)
    if not _LEGAL.fullmatch(service) or "." in service:
        raise DefinitionError(
            f"The service name {service!r} cannot be part of a topic name: use letters, digits, '_' and '-' only."
        )
    if service in (_RESUME, _DEAD):
        raise DefinitionError(
            f"No service may be called {service!r}, because {namespace}.{service} names another topic: rename it."
        )
    topic = f"{namespace}.{service}"
    if len(topic) + len(_RESUME) + 1 > TOPIC_NAME_LENGTH_MAX:
        raise DefinitionError(
            f"The topic names of {service!r} are longer than {TOPIC_NAME_LENGTH_MAX} characters: shorten its name "
            "or the namespace."
        )
    return topic


def resume_topic(namespace: str, service: str) -> str:
    """Return the topic through which a service's invocations are resumed. Raises as `service_topic`."""
    return f"{service_topic(namespace, service)}.{_RESUME}"


def dead_letter_topic(namespace: str) -> str:
    """Return the topic of what could not be understood.

    Raises:
        SettingsError: No topic can carry this namespace.
    """
    _check_namespace(namespace)
    return f"{namespace}.{_DEAD}"


def is_resume_topic(topic: str) -> bool:
    """Whether `topic` carries resumed invocations, so that it is read before the others."""
    return topic.endswith(f".{_RESUME}")


def consumed_topics(namespace: str, services: Iterable[str]) -> tuple[str, ...]:
    """Return the topics that a worker of `services` reads, sorted. Raises as `service_topic`."""
    names = {name for s in services for name in (service_topic(namespace, s), resume_topic(namespace, s))}
    return tuple(sorted(names))


def plan_topics(
    namespace: str, services: Iterable[str], *, partitions: int, replication_factor: int
) -> tuple[TopicPlan, ...]:
    """Return every topic of an app, sorted by name: those of its services and the dead-letter topic.

    Args:
        namespace: The app's namespace.
        services: The names of its services; duplicates count once.
        partitions: At least 1, for each topic of a service; it bounds how many workers can share one service.
            Dead letters are few and read by people: one partition.
        replication_factor: Copies of each partition; -1 for the cluster's default.

    Raises:
        DefinitionError: No topic can carry one of the names.
        SettingsError: No topic can carry this namespace, or a number is out of its bounds.
    """
    if partitions < 1 or (replication_factor < 1 and replication_factor != -1):
        raise SettingsError(
            f"{partitions} partitions with replication factor {replication_factor} cannot be created: use at least 1 "
            "partition, and a factor of at least 1 or -1 for the cluster's default."
        )
    plans = [TopicPlan(t, partitions, replication_factor, _KEPT) for t in consumed_topics(namespace, services)]
    plans.append(TopicPlan(dead_letter_topic(namespace), 1, replication_factor, _KEPT_FOR_EVER))
    return tuple(sorted(plans))


def is_topic_name(name: object) -> bool:
    """Whether Kafka takes it for a topic's name."""
    return (
        isinstance(name, str)
        and len(name) <= TOPIC_NAME_LENGTH_MAX
        and _LEGAL.fullmatch(name) is not None
        and name not in (".", "..")
    )


def _check_namespace(namespace: str) -> None:
    if not _LEGAL.fullmatch(namespace) or namespace.strip(".") != namespace:
        raise SettingsError(
            f"The namespace {namespace!r} cannot be part of a topic name: use letters, digits, '_', '-' and inner dots."
        )
    if len(namespace) + len(_DEAD) + 1 > TOPIC_NAME_LENGTH_MAX:
        raise SettingsError(f"The namespace is too long: topic names end at {TOPIC_NAME_LENGTH_MAX} characters.")
