"""PURE. What a user of Kafka must be allowed to do, where access is restricted by rules (ACLs).

Source: Kafka documentation, "Authorization and ACLs": which request needs which operation, and that whoever may read or
write may also describe.
"""

from __future__ import annotations

from typing import Final

_BITS: Final = {"read": 3, "write": 4, "describe": 8}
"""Where an answer to Metadata has a bit for each operation."""


ALL: Final = -1
"""Every operation: where brokers tell nothing, nothing is forbidden."""


def lacking(operations: int, *needed: str) -> list[str]:
    """Which of the needed operations on a topic are not among those that are allowed.

    Args:
        operations: As `ClusterView.operations` has them.
        needed: `read`, `write`, `describe`.
    """
    return [name for name in needed if not operations >> _BITS[name] & 1]


def own_rules(namespace: str, *, user: str = "perdure", create: bool = False) -> list[str]:
    """Return the arguments of `kafka-acls.sh --add` that let a user work in a namespace; one call for each.

    Args:
        namespace: Which.
        user: The user's name.
        create: Whether to create topics, too, in the same call as to read and write them.
    """
    operations = "--operation Read --operation Write" + (" --operation Create" if create else "")
    return [
        f"--allow-principal User:{user} {operations} --topic {namespace}. --resource-pattern-type prefixed",
        group_rule(namespace, user=user),
        # Of subscriptions.
        f"{group_rule(f'{namespace}.', user=user)} --resource-pattern-type prefixed",
    ]


def group_rule(group: str, *, user: str) -> str:
    """Return the arguments that let a user be of a consumer group."""
    return f"--allow-principal User:{user} --operation Read --group {group}"


def subscribed_rule(topic: str, *, user: str) -> str:
    """Return the arguments that let a user read a topic that is subscribed to."""
    return f"--allow-principal User:{user} --operation Read --topic {topic}"
