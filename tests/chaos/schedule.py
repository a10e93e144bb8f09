"""What befalls a round, and when: made of a seed. PURE."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What can be done to a running system."""

    KILL = "kill"
    FREEZE = "freeze"
    TERMINATE = "terminate"
    BLOCK = "block"
    CLOCK = "clock"
    STORM = "storm"
    REDIS_DELAY = "redis-delay"
    REDIS_CUT = "redis-cut"
    REDIS_HALVE = "redis-halve"
    REDIS_HOLE = "redis-hole"
    KAFKA_DELAY = "kafka-delay"
    KAFKA_CUT = "kafka-cut"
    KAFKA_HALVE = "kafka-halve"
    KAFKA_HOLE = "kafka-hole"
    REDIS_KILL = "redis-kill"
    REDIS_LOSS = "redis-loss"
    REDIS_FULL = "redis-full"
    DISK_FULL = "disk-full"
    SCRIPT_FLUSH = "script-flush"
    BROKER_KILL = "broker-kill"
    PARTITIONS = "partitions"


MEANING: Final = {
    Kind.KILL: "SIGKILL of a worker",
    Kind.FREEZE: "SIGSTOP of a worker for longer than its lease, then SIGCONT",
    Kind.TERMINATE: "SIGTERM of a worker",
    Kind.BLOCK: "a worker's event loop blocked for longer than its lease",
    Kind.CLOCK: "a worker's system clock moved by an hour, or back",
    Kind.STORM: "workers that join and leave the group one after the other",
    Kind.REDIS_DELAY: "a worker's connections to Redis delayed",
    Kind.REDIS_CUT: "connections to Redis reset",
    Kind.REDIS_HALVE: "half a message to or from Redis, then a reset",
    Kind.REDIS_HOLE: "nothing gets through to or from Redis",
    Kind.KAFKA_DELAY: "all connections to Kafka delayed",
    Kind.KAFKA_CUT: "connections to Kafka reset",
    Kind.KAFKA_HALVE: "half a message to or from Kafka, then a reset",
    Kind.KAFKA_HOLE: "nothing gets through to or from Kafka",
    Kind.REDIS_KILL: "kill -9 of Redis, and a restart",
    Kind.REDIS_LOSS: "kill -9 of Redis, its append-only file cut off behind the last barrier, and a restart",
    Kind.REDIS_FULL: "maxmemory below what Redis holds, with noeviction",
    Kind.DISK_FULL: "Redis's append-only file cannot grow",
    Kind.SCRIPT_FLUSH: "SCRIPT FLUSH",
    Kind.BROKER_KILL: "kill -9 of the broker, and a restart",
    Kind.PARTITIONS: "topics get another partition",
}

ONLY_WITH_A_DISK: Final = frozenset({Kind.BROKER_KILL, Kind.PARTITIONS})
"""The embedded broker forgets what it acknowledged when it is killed, and cannot add partitions."""

ALL: Final = tuple(Kind)


class Strike(NamedTuple):
    """One thing that is done.

    Attributes:
        at_s: When, from the beginning of the round.
        kind: What.
        duration_s: For how long, where it lasts.
        seed: For what else is left to chance: who is hit, in which direction.
    """

    at_s: float
    kind: Kind
    duration_s: float
    seed: int


def kinds_of(*, embedded: bool) -> tuple[Kind, ...]:
    """What can be done on a lane."""
    return tuple(kind for kind in ALL if not (embedded and kind in ONLY_WITH_A_DISK))


def make_schedule(seed: int, *, duration_s: float, kinds: Sequence[Kind], gap_s: float = 2.0) -> tuple[Strike, ...]:
    """The strikes of a seed, in order; each kind once before any comes again, and at least once each.

    Args:
        seed: The same one gives the same strikes.
        duration_s: The last one begins before that.
        kinds: What may be done.
        gap_s: Between two of them, about.
    """
    chance = random.Random(f"schedule {seed}")
    count = max(len(kinds), round(duration_s / gap_s))
    order: list[Kind] = []
    while len(order) < count:
        order += chance.sample(list(kinds), len(kinds))
    gap = duration_s / count
    return tuple(
        Strike((number + chance.random()) * gap, kind, chance.uniform(*_lasts(kind)), chance.getrandbits(32))
        for number, kind in enumerate(order[:count])
    )


def _lasts(kind: Kind) -> tuple[float, float]:
    match kind:
        case Kind.FREEZE:
            return 2.5, 5.0
        case Kind.REDIS_HOLE | Kind.KAFKA_HOLE | Kind.REDIS_DELAY | Kind.KAFKA_DELAY:
            return 1.0, 5.0
        case Kind.REDIS_FULL | Kind.DISK_FULL:
            return 1.5, 4.0
        case Kind.REDIS_KILL | Kind.REDIS_LOSS | Kind.BROKER_KILL:
            return 0.0, 2.0
        case _:
            return 0.0, 1.0
