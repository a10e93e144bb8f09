"""Judging what a server says of itself: `perdure.journal.durability`."""

from __future__ import annotations

import pytest

from perdure.journal.durability import Problem, ServerFacts, durability_problems, parse_version, read_facts

GOOD = ServerFacts(
    kind="redis",
    version="7.4.1",
    role="master",
    cluster=False,
    replicas=1,
    aof_enabled=True,
    aof_write_ok=True,
    appendfsync="everysec",
    maxmemory_bytes=0,
    maxmemory_policy="noeviction",
    stream_node_bytes_max=1024,
    waitaof=True,
)


def test_a_good_server_has_no_problems() -> None:
    """Append-only file on, nothing evicted, small stream nodes: nothing to say."""
    assert durability_problems(GOOD, replicas=1) == []


@pytest.mark.parametrize(
    ("facts", "what", "mend"),
    [
        (GOOD._replace(aof_enabled=False), "append-only file is off", "CONFIG SET appendonly yes"),
        (GOOD._replace(appendfsync="no"), "appendfsync is no", "CONFIG SET appendfsync everysec"),
        (GOOD._replace(aof_write_ok=False), "last write", "disk"),
        (GOOD._replace(maxmemory_policy="allkeys-lru"), "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
        (GOOD._replace(version="6.2.14"), "Redis 6.2.14", "upgrade to Redis 7.0"),
        (GOOD._replace(kind="valkey", version="7.2.5"), "Valkey 7.2.5", "upgrade to Valkey 8.0"),
        (GOOD._replace(role="slave"), "replica", "primary"),
        (GOOD._replace(cluster=True), "cluster", "cluster=true"),
        (GOOD._replace(aof_enabled=None), "does not tell", "+info"),
    ],
)
def test_what_loses_data_is_said_with_what_mends_it(facts: ServerFacts, what: str, mend: str) -> None:
    """Each way to lose a journal is one problem that keeps a worker from starting."""
    (problem,) = durability_problems(facts)
    assert what in problem.what
    assert mend in problem.mend
    assert problem.loses_data


def test_only_a_full_disk_passes() -> None:
    """Where Redis itself refuses what it cannot keep, work waits for it as in any outage."""
    assert [problem.passes for problem in durability_problems(GOOD._replace(aof_write_ok=False))] == [True]
    assert [problem.passes for problem in durability_problems(GOOD._replace(aof_enabled=False))] == [False]


def test_too_few_replicas_are_a_problem() -> None:
    """Offsets that wait for replicas that are not there would never move."""
    (problem,) = durability_problems(GOOD, replicas=2)
    assert problem.loses_data
    assert "PERDURE_REPLICAS=1" in problem.mend


def test_memory_advice_comes_last_and_keeps_nobody_from_starting() -> None:
    """Large stream nodes cost memory, not data."""
    off, large = durability_problems(GOOD._replace(stream_node_bytes_max=4096, aof_enabled=False))
    assert off.loses_data
    assert large == Problem(large.what, "redis-cli CONFIG SET stream-node-max-bytes 1024", False)


def test_facts_are_read_from_info_and_config() -> None:
    """CONFIG GET adds to INFO; without CONFIG most is still known."""
    info = {
        "redis_version": "7.0.15",
        "role": "master",
        "cluster_enabled": "0",
        "connected_slaves": "0",
        "aof_enabled": "1",
        "aof_last_write_status": "ok",
        "maxmemory": "1048576",
        "maxmemory_policy": "noeviction",
    }
    facts = read_facts(info, {})
    assert facts.aof_enabled
    assert facts.appendfsync is None
    assert facts.maxmemory_bytes == 1_048_576
    assert facts.waitaof is False
    assert durability_problems(facts) == []
    fuller = read_facts(info, {"appendonly": "no", "appendfsync": "always", "stream-node-max-bytes": "512"})
    assert fuller.aof_enabled is False
    assert fuller.appendfsync == "always"
    assert fuller.stream_node_bytes_max == 512


def test_valkey_is_told_from_redis() -> None:
    """Valkey says a Redis version for compatibility, and its own."""
    facts = read_facts({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.0"}, {})
    assert (facts.kind, facts.version, facts.waitaof) == ("valkey", "9.1.0", True)
    assert facts.describe() == "Valkey 9.1.0, append-only file unknown, policy unknown"
    assert GOOD.describe() == "Redis 7.4.1, append-only file on (fsync everysec), policy noeviction"


def test_a_server_that_tells_nothing_is_a_problem_of_one_line() -> None:
    """Nothing known is nothing vouched for."""
    facts = read_facts({}, {})
    assert facts == ServerFacts()
    assert len(durability_problems(facts)) == 1


def test_versions_are_compared_as_numbers() -> None:
    """10.0 is later than 7.2, and odd versions do no harm."""
    assert parse_version("10.0.1") > parse_version("7.2")
    assert parse_version("7") == (7, 0)
    assert parse_version("unstable") == (0, 0)
