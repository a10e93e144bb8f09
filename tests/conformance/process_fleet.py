"""The conformance application in real worker processes, on servers of a test's own: killed, stopped, started anew."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.worker.client import Client
from perdure.worker.settings import Settings
from tests.process.worker_process import WorkerProcess

from .outside import Outside

SLOTS = 8
TARGET = "tests.conformance.application:small_application"


class Fleet:
    """Worker processes of one namespace.

    Args:
        settings: Of every worker.
        size: How many there are.
        directory: For their logs.
        client: Of the namespace.
        outside: Looks at its invocations.
    """

    def __init__(self, settings: Settings, *, size: int, directory: Path, client: Client, outside: Outside) -> None:
        self.client = client
        self.outside = outside
        self.workers: dict[str, WorkerProcess] = {}
        self._settings = settings
        self._size = size
        self._directory = directory
        self._started = 0

    async def start(self) -> None:
        """Start as many as are missing, and wait until they have their partitions."""
        while sum(worker.alive for worker in self.workers.values()) < self._size:
            name = f"worker-{self._started}"
            self._started += 1
            environment = {**self._settings.environment(), "PERDURE_WORKER_ID": name}
            worker = WorkerProcess(environment, log_path=self._directory / f"{name}.log", target=TARGET)
            self.workers[name] = worker
            await worker.start()
        for worker in self.workers.values():
            if worker.alive:
                await worker.ready()

    async def restart(self, *, by_kill: bool) -> None:
        """Have others in the place of the workers: of all after a SIGKILL, of all but one of several after a SIGTERM.

        The embedded broker lets nobody join a group any more that its last members left at the same moment.
        """
        alive = [name for name, worker in self.workers.items() if worker.alive]
        for name in alive[1:] if self._size > 1 and not by_kill else alive:
            await self.end(by_kill=by_kill, only=name)
        await self.start()

    async def end(self, *, by_kill: bool, only: str | None = None) -> None:
        """End all workers, or one, by SIGKILL or by SIGTERM."""
        for name, worker in self.workers.items():
            if worker.alive and only in (None, name):
                if by_kill:
                    await worker.kill()
                else:
                    assert await worker.terminate() == 0

    async def close(self) -> None:
        """Leave nothing behind."""
        for name, worker in self.workers.items():
            await worker.close()
            # Shown by pytest where the test failed.
            print(f"--- {name}\n{worker.log()[-3_000:]}")  # noqa: T201


@contextlib.asynccontextmanager
async def fleet(settings: Settings, *, size: int, directory: Path) -> AsyncIterator[Fleet]:
    """Start so many workers, which end with the block."""
    config = settings.redis_config
    await open_namespace(config, settings.namespace, slots=SLOTS)
    async with (
        connected_store(config, Keys(settings.namespace, slots=SLOTS), name="conformance") as store,
        Client(settings) as client,
    ):
        made = Fleet(settings, size=size, directory=directory, client=client, outside=Outside(client, store))
        try:
            await made.start()
            yield made
        finally:
            await made.close()
