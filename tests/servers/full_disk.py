"""A Redis whose disk can be filled, without a disk: no file of its process may grow beyond a limit."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from perdure.worker.clock import system_random
from perdure.worker.embedded import redis_arguments
from perdure.worker.server_process import REDIS_PROBE, ServerProcess, free_port

from . import lane
from .power_loss import append_only_file

WITHOUT_SIGXFSZ = (
    "import os, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Redis is to be refused further bytes, as by a full disk, and not to be killed for asking."""


def fillable_redis(directory: Path) -> ServerProcess:
    """Return the lane's Redis, not started yet; its data are in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port(system_random())
    command = [sys.executable, "-I", "-S", "-c", WITHOUT_SIGXFSZ, lane.redis_program()]
    return ServerProcess(
        "Redis",
        [*command, *redis_arguments(directory, port=port)],
        port=port,
        probe=REDIS_PROBE,
        log_path=directory / "redis.log",
    )


def fill_disk(redis: ServerProcess, directory: Path, *, left_bytes: int = 100) -> None:
    """Let its append-only file grow by so much and no further."""
    _limit(redis, append_only_file(directory).stat().st_size + left_bytes)


def empty_disk(redis: ServerProcess) -> None:
    """Let its files grow again."""
    _limit(redis, None)


def _limit(redis: ServerProcess, bytes_max: int | None) -> None:
    pid = redis.pid
    assert pid is not None, "it runs"
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if bytes_max is None else bytes_max, hard))
