"""PURE. Whether a Redis keeps what it is told, and the commands that mend it where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

STREAM_NODE_BYTES = 1024
"""A small journal takes 1.3 KB with it and 4.4 KB with the default of 4096 (measured on Redis 7.0 and 8.2)."""

REDIS_MIN = (7, 0)
VALKEY_MIN = (8, 0)
_WAITAOF_MIN = (7, 2)

Kind = Literal["redis", "valkey"]


class ServerFacts(NamedTuple):
    """What a server says of itself. `None`: it does not tell (an ACL or a managed service forbids the question)."""

    kind: Kind = "redis"
    version: str | None = None
    role: str | None = None
    cluster: bool | None = None
    replicas: int | None = None
    aof_enabled: bool | None = None
    aof_write_ok: bool | None = None
    appendfsync: str | None = None
    used_bytes: int | None = None
    maxmemory_bytes: int | None = None
    maxmemory_policy: str | None = None
    stream_node_bytes_max: int | None = None
    waitaof: bool | None = None
    primary: str | None = None

    def describe(self) -> str:
        """`Valkey 9.1.0, append-only file on (fsync everysec), policy noeviction`."""
        aof = {True: "on", False: "off", None: "unknown"}[self.aof_enabled]
        fsync = f" (fsync {self.appendfsync})" if self.appendfsync else ""
        name = f"{self.kind.capitalize()} {self.version or 'of unknown version'}"
        return f"{name}, append-only file {aof}{fsync}, policy {self.maxmemory_policy or 'unknown'}"


class Problem(NamedTuple):
    """What is wrong and the command that mends it. A worker refuses to start where `loses_data`, unless it `passes`.

    What `passes` is an outage: Redis refuses what it cannot keep, and work waits until it does not.
    """

    what: str
    mend: str
    loses_data: bool
    passes: bool = False


def read_facts(info: Mapping[str, str], config: Mapping[str, str]) -> ServerFacts:
    """Put the facts together.

    Args:
        info: The fields of INFO; empty where it is forbidden.
        config: What CONFIG GET answered; empty where it is forbidden. INFO answers most of it, too.
    """
    kind: Kind = "valkey" if info.get("server_name") == "valkey" or "valkey_version" in info else "redis"
    version = info.get("valkey_version") or info.get("redis_version")
    aof = config.get("appendonly")
    return ServerFacts(
        kind=kind,
        version=version,
        role=info.get("role"),
        cluster=_flag(info.get("cluster_enabled")),
        replicas=_number(info.get("connected_slaves")),
        aof_enabled=aof == "yes" if aof else _flag(info.get("aof_enabled")),
        aof_write_ok=None if "aof_last_write_status" not in info else info["aof_last_write_status"] == "ok",
        appendfsync=config.get("appendfsync"),
        used_bytes=_used(info),
        maxmemory_bytes=_number(config.get("maxmemory") or info.get("maxmemory")),
        maxmemory_policy=config.get("maxmemory-policy") or info.get("maxmemory_policy"),
        stream_node_bytes_max=_number(config.get("stream-node-max-bytes")),
        primary=f"{info['master_host']}:{info.get('master_port')}" if "master_host" in info else None,
        waitaof=None if version is None else kind == "valkey" or parse_version(version) >= _WAITAOF_MIN,
    )


def _used(info: Mapping[str, str]) -> int | None:
    # What replicas and the append-only file hold back is not what `maxmemory` bounds.
    used, free = _number(info.get("used_memory")), _number(info.get("mem_not_counted_for_evict"))
    return None if used is None else used - (free or 0)


def parse_version(version: str) -> tuple[int, int]:
    """Major and minor of `7.2.4`; what is not a number counts as 0."""
    major, minor, *_ = [*version.split("."), "0", "0"]
    return _number(major) or 0, _number(minor) or 0


def durability_problems(facts: ServerFacts, *, replicas: int = 0, cluster: bool = False) -> list[Problem]:
    """Say what keeps this server from being a journal; those that lose data first.

    Args:
        facts: The server's.
        replicas: How many replicas each offset's commit shall wait for.
        cluster: Whether it was named as a node of a cluster.
    """
    problems = [*_place_problems(facts, cluster=cluster), *_keeping_problems(facts)]
    if facts.replicas is not None and facts.replicas < replicas:
        problems.append(
            Problem(
                f"It has {facts.replicas} replicas connected and offsets wait for {replicas}.",
                f"connect replicas (REPLICAOF), or set PERDURE_REPLICAS={facts.replicas}",
                True,
            )
        )
    if facts.stream_node_bytes_max is not None and not 0 < facts.stream_node_bytes_max <= STREAM_NODE_BYTES:
        problems.append(
            Problem(
                f"stream-node-max-bytes is {facts.stream_node_bytes_max}: a small journal takes 3 times the memory.",
                f"redis-cli CONFIG SET stream-node-max-bytes {STREAM_NODE_BYTES}",
                False,
            )
        )
    return sorted(problems, key=lambda problem: not problem.loses_data)


def _place_problems(facts: ServerFacts, *, cluster: bool) -> list[Problem]:
    problems = []
    least = VALKEY_MIN if facts.kind == "valkey" else REDIS_MIN
    if facts.version is not None and parse_version(facts.version) < least:
        name = facts.kind.capitalize()
        newest = f"{least[0]}.{least[1]}"
        problems.append(Problem(f"It is {name} {facts.version}.", f"upgrade to {name} {newest} or later", True))
    if facts.role in ("slave", "replica"):
        named = facts.primary or "not this one"
        problems.append(
            Problem(
                "It is a replica, which refuses writes.",
                f"let PERDURE_REDIS_URL name the primary, {named}",
                True,
            )
        )
    if facts.cluster is not None and facts.cluster is not cluster:
        problems.append(
            Problem(
                "It is a node of a cluster, and PERDURE_REDIS_URL names one server.",
                "add ?cluster=true to PERDURE_REDIS_URL",
                True,
            )
            if facts.cluster
            else Problem(
                "It is no node of a cluster, and PERDURE_REDIS_URL says cluster=true.",
                "take it out of PERDURE_REDIS_URL, or name nodes of a cluster",
                True,
            )
        )
    return problems


def _keeping_problems(facts: ServerFacts) -> list[Problem]:
    problems = []
    if facts.aof_enabled is False:
        problems.append(
            Problem(
                "The append-only file is off: a restart loses journals.",
                "redis-cli CONFIG SET appendonly yes && redis-cli CONFIG REWRITE",
                True,
            )
        )
    elif facts.appendfsync == "no":
        problems.append(
            Problem(
                "appendfsync is no: a power loss may cost half a minute of journals.",
                "redis-cli CONFIG SET appendfsync everysec && redis-cli CONFIG REWRITE",
                True,
            )
        )
    if facts.aof_write_ok is False:
        problems.append(
            Problem(
                "Its last write to the append-only file failed, and it refuses more until one succeeds.",
                "look at its log and at the space on its disk",
                loses_data=True,
                passes=True,
            )
        )
    if facts.maxmemory_policy not in (None, "noeviction"):
        problems.append(
            Problem(
                f"maxmemory-policy is {facts.maxmemory_policy}: it evicts journals when memory runs short.",
                "redis-cli CONFIG SET maxmemory-policy noeviction && redis-cli CONFIG REWRITE",
                True,
            )
        )
    if facts.aof_enabled is None or facts.maxmemory_policy is None:
        problems.append(
            Problem(
                "It does not tell whether it persists and evicts: INFO and CONFIG GET are forbidden.",
                "grant the user +info, or check it yourself and set PERDURE_REQUIRE_DURABLE_REDIS=false",
                True,
            )
        )
    return problems


def _flag(text: str | None) -> bool | None:
    return None if text is None else text == "1"


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
