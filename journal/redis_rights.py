"""PURE. What a Redis user needs for Perdure: commands, keys, channels, and the command that grants them.

Law: `SCRIPTED` is what the Lua scripts call, `SENT` what processes send; tests compare both with the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from .redis_line import Command, Refusal


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SCRIPTED: Final = _names(
    "del exists hdel hexists hget hgetall hincrby hkeys hlen hmget hset hsetnx llen lpop lrem memory|usage persist "
    "pexpire pttl publish rpush time unlink xadd xrange xrevrange zadd zcard zrange zrangebyscore zrem "
    "zremrangebyscore zscore"
)
"""Commands of the scripts."""

SENT: Final = _names(
    "evalsha script|load hget hgetall hkeys hmget hset hsetnx del pexpire set time xrange zadd zrange zrangebyscore "
    "zrem zremrangebyscore zrevrange zrevrangebyscore publish subscribe unsubscribe ping select wait waitaof info "
    "config|get client|setname client|setinfo cluster|info cluster|slots asking multi discard"
)
"""Commands of workers, clients, the command and the doctor. AUTH needs no right."""

_SINCE_7_2: Final = ("client|setinfo", "waitaof")
_CLUSTER_ONLY: Final = ("asking", "cluster|info", "cluster|slots")


class Right(NamedTuple):
    """A command that a user must be allowed, and one of that kind that would do no harm."""

    name: str
    command: Command


def acl_line(namespace: str, *, user: str = "perdure", waitaof: bool = True) -> str:
    """The command that makes a user with what is needed, and no more.

    Args:
        namespace: Whose keys and channels.
        user: The user's name.
        waitaof: Whether the server knows WAITAOF and CLIENT SETINFO: Redis from 7.2 on, and Valkey.
    """
    commands = " ".join(f"+{name}" for name in needed(waitaof=waitaof))
    return f"ACL SETUSER {user} on '>secret' '~{namespace}:*' '&{namespace}:*' {commands}"


def needed(*, waitaof: bool = True) -> list[str]:
    """Every command that is needed, each once, in alphabetical order."""
    names = sorted({*SCRIPTED, *SENT})
    return names if waitaof else [name for name in names if name not in _SINCE_7_2]


def probes(namespace: str, *, waitaof: bool, cluster: bool) -> list[Right]:
    """One command of each kind, to be queued in a transaction and discarded: Redis checks rights when it queues.

    Args:
        namespace: Whose keys and channels.
        waitaof: As for `acl_line`.
        cluster: Whether it is a cluster's node.
    """
    key, channel = f"{namespace}:doctor", f"{namespace}:hints:doctor"
    arguments: dict[str, Sequence[str | int]] = {
        "del": [key],
        "exists": [key],
        "evalsha": ["0" * 40, 1, key],
        "hdel": [key, "f"],
        "hexists": [key, "f"],
        "hget": [key, "f"],
        "hgetall": [key],
        "hincrby": [key, "f", 1],
        "hkeys": [key],
        "hlen": [key],
        "hmget": [key, "f"],
        "hset": [key, "f", "v"],
        "hsetnx": [key, "f", "v"],
        "llen": [key],
        "lpop": [key],
        "lrem": [key, 0, "v"],
        "memory|usage": [key],
        "persist": [key],
        "pexpire": [key, 1],
        "pttl": [key],
        "publish": [channel, "m"],
        "rpush": [key, "v"],
        "script|load": ["return 1"],
        "set": [key, "v"],
        "subscribe": [channel],
        "unlink": [key],
        "xadd": [key, "*", "f", "v"],
        "xrange": [key, "-", "+"],
        "xrevrange": [key, "+", "-"],
        "zadd": [key, 1, "m"],
        "zcard": [key],
        "zrange": [key, 0, 0],
        "zrangebyscore": [key, 0, 0],
        "zrem": [key, "m"],
        "zremrangebyscore": [key, 0, 0],
        "zrevrange": [key, 0, 0],
        "zrevrangebyscore": [key, 0, 0],
        "zscore": [key, "m"],
        "select": [0],
        "wait": [0, 1],
        "waitaof": [0, 0, 1],
        "config|get": ["appendonly"],
        "client|setname": ["perdure-doctor"],
    }
    asked = [name for name in needed(waitaof=waitaof) if cluster or name not in _CLUSTER_ONLY]
    # The transaction's own two are seen by its answers, and a refused SETINFO only leaves a column empty.
    asked = [name for name in asked if name not in ("multi", "discard", "client|setinfo", "asking")]
    return [Right(name, (*name.upper().split("|"), *arguments.get(name, ()))) for name in asked]


def missing_rights(asked: Sequence[Right], answers: Sequence[object]) -> list[str]:
    """What of `asked` was forbidden, as the words that grant it: `+zadd`, `~...` for keys, `&...` for channels.

    Args:
        asked: What was queued.
        answers: What came of each, in the same order.
    """
    missing: list[str] = []
    for right, answer in zip(asked, answers, strict=True):
        if isinstance(answer, Refusal) and answer.kind == "no permission":
            text = answer.text.lower()
            missing.append("channels" if "channel" in text else "keys" if "key" in text else f"+{right.name}")
    return list(dict.fromkeys(missing))
