"""PURE. Where keys are: what Sentinels and nodes of a cluster answer, and which cluster slot a key has.

Source: Redis Cluster specification, "Keys distribution model"; Redis Sentinel documentation, "Sentinel API".
"""

from __future__ import annotations

import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from perdure.schemas.errors import StoreError

from .redis_config import Address

CLUSTER_SLOTS: Final = 16_384
"""Slots of every Redis Cluster; not to be confused with the slots of a namespace, each of which has one of them."""

HEALTHY: Final = b"cluster_state:ok"


def cluster_slot(key: bytes) -> int:
    """The cluster slot of a key: the CRC-16 of its hash tag, or of all of it where it has none."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % CLUSTER_SLOTS


def key_of_command(arguments: Sequence[bytes]) -> bytes | None:
    """The first key of a command that the store sends; `None` where it has none and any node will do."""
    match arguments[0].upper():
        case b"EVALSHA":
            return arguments[3]
        case b"TIME" | b"PUBLISH" | b"PING" | b"INFO":
            return None
        case _:
            return arguments[1]


class Range(NamedTuple):
    """Cluster slots `first` to `last` are served by `primary`."""

    first: int
    last: int
    primary: Address


class ClusterMap:
    """Which primary serves which cluster slot."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self.ranges = tuple(sorted(ranges))
        self._firsts = [each.first for each in self.ranges]

    @property
    def primaries(self) -> tuple[Address, ...]:
        """All that serve slots, each once."""
        return tuple(dict.fromkeys(each.primary for each in self.ranges))

    @property
    def uncovered(self) -> int:
        """How many slots nobody serves."""
        return CLUSTER_SLOTS - sum(each.last - each.first + 1 for each in self.ranges)

    def primary(self, slot: int) -> Address | None:
        """Who serves a cluster slot; `None` where nobody does."""
        at = bisect_right(self._firsts, slot) - 1
        return self.ranges[at].primary if at >= 0 and slot <= self.ranges[at].last else None


def read_cluster(reply: Sequence[Any], *, asked: Address) -> ClusterMap:
    """Read the answer to `CLUSTER SLOTS`. A node that does not know its own host is where it was asked."""
    return ClusterMap(
        [Range(first, last, _place(nodes[0][0], nodes[0][1], asked=asked)) for first, last, *nodes in reply]
    )


def read_redirection(text: str, *, asked: Address) -> tuple[int, Address]:
    """Read `MOVED <slot> <host>:<port>` or `ASK ...`: the cluster slot, and where it is.

    Raises:
        StoreError: It is no such text.
    """
    try:
        _, slot, place = text.split()
        host, _, port = place.rpartition(":")
        return int(slot), _place(host.encode(), int(port), asked=asked)
    except ValueError as error:
        raise StoreError(f"Redis answered with a redirection that cannot be read: {text!r}.") from error


def _place(host: bytes | None, port: int, *, asked: Address) -> Address:
    known = host not in (None, b"", b"?")
    return Address(host.decode() if known and host is not None else asked.host, port)
