"""Worker processes under a supervisor for random programs, and what befalls them: killed, ended, frozen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from perdure.worker.settings import Settings
from tests.process.effects import DIRECTORY_VARIABLE
from tests.process.worker_process import READY, WorkerProcess
from tests.servers import lane
from tests.waiting import wait_until

from .random_layers import TARGET

FREEZE_S = 2.5
"""Longer than a lease of `fleet_settings`: who thaws finds that his invocations are somebody else's."""


def fleet_settings(redis_url: str, bootstrap_servers: str, namespace: str, **changes: object) -> Settings:
    """Settings with which the end of a worker is noticed soon."""
    chosen: dict[str, object] = {
        "redis_url": redis_url,
        "bootstrap_servers": bootstrap_servers,
        "namespace": namespace,
        "slots": 8,
        "topic_partitions": 3,
        "topic_replication_factor": 1,
        "kafka_fetch_max_wait_ms": 10,
        "kafka_session_timeout_ms": 1_000,
        "lease_s": 1.5,
        "grace_s": 3,
    }
    return Settings.load(**(chosen | changes))


class RandomFleet:
    """A supervisor and its workers.

    Args:
        supervisor: Started.
        processes: How many workers it keeps.
        chance: For who is hit, by what, and when.
    """

    def __init__(self, supervisor: WorkerProcess, *, processes: int, chance: random.Random) -> None:
        self.hits: Counter[str] = Counter()
        self._supervisor = supervisor
        self._processes = processes
        self._chance = chance

    async def ready(self) -> None:
        """Wait until each worker has its partitions."""
        await wait_until(
            lambda: self._supervisor.said(READY) >= self._processes, timeout_s=30, description="the workers are ready"
        )

    async def hit(self) -> None:
        """Hit one worker, soon."""
        await asyncio.sleep(self._chance.uniform(0.0, 0.6))
        (how,) = self._chance.choices(("kill", "end", "freeze"), (6, 1, 2))
        children = self._children()
        if not children:
            return
        pid = self._chance.choice(children)
        assigned = self._supervisor.said(READY)
        # It may have ended by itself since we looked.
        with contextlib.suppress(ProcessLookupError):
            await _hit(pid, how)
            self.hits[how] += 1
        if lane.LANE == "embedded":
            await self._joined(assigned)

    async def _joined(self, before: int) -> None:
        """Wait until all have partitions again, or some seconds.

        In the embedded broker a group of which a member dies while others join may assign nothing for a minute.
        """
        with contextlib.suppress(AssertionError):
            await wait_until(
                lambda: self._supervisor.said(READY) >= before + self._processes, timeout_s=10, description="joined"
            )

    def _children(self) -> list[int]:
        pid = self._supervisor.pid
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            return [int(child) for child in children.read().split()]


async def _hit(pid: int, how: str) -> None:
    match how:
        case "kill":
            os.kill(pid, signal.SIGKILL)
        case "end":
            os.kill(pid, signal.SIGTERM)
        case _:
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(FREEZE_S)
            finally:
                os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def random_fleet(
    settings: Settings, *, processes: int, chance: random.Random, directory: Path
) -> AsyncIterator[RandomFleet]:
    """Run so many workers while the block runs; their log is `workers.log`."""
    environment = {**settings.environment(), DIRECTORY_VARIABLE: str(directory), "PERDURE_LOG_LEVEL": "INFO"}
    flags = ("--processes", str(processes))
    supervisor = WorkerProcess(environment, log_path=directory / "workers.log", flags=flags, target=TARGET)
    await supervisor.start()
    try:
        yield RandomFleet(supervisor, processes=processes, chance=chance)
    finally:
        await supervisor.close()
