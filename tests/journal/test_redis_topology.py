"""Where keys of a cluster are: `perdure.journal.redis_topology`."""

from __future__ import annotations

import pytest
import redis.crc
from hypothesis import given
from hypothesis import strategies as st

from perdure.journal.redis_config import Address
from perdure.journal.redis_topology import (
    CLUSTER_SLOTS,
    ClusterMap,
    Range,
    cluster_slot,
    key_of_command,
    read_cluster,
    read_redirection,
)
from perdure.schemas.errors import StoreError

A, B = Address("a", 1), Address("b", 2)


@given(st.binary(min_size=1, max_size=40) | st.from_regex(rb"[ab{}]{1,9}", fullmatch=True))
def test_slots_are_those_of_every_other_client(key: bytes) -> None:
    """Hash tags that are empty, nested or not closed count as redis-py counts them."""
    assert cluster_slot(key) == redis.crc.key_slot(key)


def test_every_slot_has_its_primary() -> None:
    """Ranges may have gaps, and one primary several of them."""
    found = ClusterMap([Range(10, 19, B), Range(0, 4, A), Range(30, 30, A)])
    assert [found.primary(slot) for slot in (0, 4, 5, 9, 10, 19, 20, 30, 31)] == [A, A, None, None, B, B, None, A, None]
    assert found.primaries == (A, B)
    assert found.uncovered == CLUSTER_SLOTS - 16
    assert ClusterMap(()).primary(0) is None


def test_a_node_that_does_not_know_its_host_is_where_it_was_asked() -> None:
    """A fresh node answers with an empty or an unknown host."""
    reply = [[0, 1, [b"", 7, b"id"], [b"r", 8, b"id"]], [2, 3, [None, 9, b"id"]], [4, 5, [b"h", 9, b"id"]]]
    assert read_cluster(reply, asked=A).ranges == (
        Range(0, 1, Address("a", 7)),
        Range(2, 3, Address("a", 9)),
        Range(4, 5, Address("h", 9)),
    )


def test_redirections_are_read() -> None:
    """Host names, IPv6 addresses and the host that was asked; what is none is refused by name."""
    assert read_redirection("MOVED 7 h:1", asked=A) == (7, Address("h", 1))
    assert read_redirection("ASK 7 ::1:6379", asked=A) == (7, Address("::1", 6379))
    assert read_redirection("MOVED 7 :2", asked=A) == (7, Address("a", 2))
    with pytest.raises(StoreError, match="cannot be read"):
        read_redirection("MOVED 7", asked=A)


def test_the_key_of_a_command() -> None:
    """Scripts name theirs after the count; what has none may go anywhere."""
    assert key_of_command([b"EVALSHA", b"sha", b"2", b"k", b"l"]) == b"k"
    assert key_of_command([b"hget", b"k", b"f"]) == b"k"
    assert key_of_command([b"TIME"]) is None
    assert key_of_command([b"PUBLISH", b"c", b"m"]) is None
    assert key_of_command([b"INFO", b"memory"]) is None
