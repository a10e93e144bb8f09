"""How long a fault is felt: a worker killed, Redis or the broker killed, workers restarted one after another.

Each leg has servers and workers of its own; a window is one round of all legs. Times of entries are the workers' wall
clocks, which are one clock on one machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from perdure import Client, Settings
from perdure.journal.keys import Keys
from perdure.schemas.codec import decode
from perdure.schemas.entries import AttemptFailed, AttemptStarted, Entry
from perdure.schemas.errors import PerdureError
from perdure.worker.server_process import ServerProcess

from .deployment import WORKER, Environment, Servers, WorkerProcess, answering, running_servers
from .measuring import Measured, Moment, Plan, percentile

HELD = 200
"""Invocations that run on the worker process which is killed, about: as many again run on the other one."""

HELD_S = 60.0
"""How long each of them would run: longer than any recovery."""

FAULT_S = 2.0
"""How long Redis or the broker stays away."""

CALLERS = 16
"""Of no-ops, one after another each, while something fails or restarts."""

ASK_EVERY_S = 0.02
"""Between two calls whose time is taken."""

CALL_TIMEOUT = timedelta(seconds=30)
"""For one of them; far above what any outage here lasts."""

SESSION_TIMEOUT_MS = 2_000
"""Of Kafka's group on the embedded broker, which answers a join after half of it."""

WAIT_S = 90.0
"""For anything to happen: far above what it takes, so that only a hang ends a run."""

LOOK_S = 0.02
"""Between two looks."""

READY = b"partitions are assigned"
"""What a worker logs when it begins to read."""

UNITS = {
    "supervised": "s",
    "unsupervised": "s",
    "redis_back": "s",
    "broker_back": "s",
    "rolling_p99": "s",
    "rolling_failed": "attempts",
}
"""From SIGKILL of a worker process to the last of its invocations running elsewhere, under a supervisor and without
one; from the first answer of a server that is back to the first completion; while three workers are restarted, the
p99 of a no-op, and how many attempts failed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scene:
    """One leg's servers."""

    servers: Servers
    settings: Settings
    directory: Path
    redis: Redis
    client: Client

    @property
    def keys(self) -> Keys:
        """Names of Redis's keys."""
        return Keys(self.settings.namespace, slots=self.settings.slots)

    async def start(self, *flags: str) -> WorkerProcess:
        """Start a worker; not ready yet."""
        log_path = self.directory / f"worker-{time.monotonic_ns()}.log"
        command = [sys.executable, *WORKER, *flags]
        return await asyncio.to_thread(WorkerProcess, self.settings, log_path, command=command)

    @contextlib.asynccontextmanager
    async def workers(self, *commands: Sequence[str]) -> AsyncIterator[list[WorkerProcess]]:
        """Run one worker for each tuple of flags; what is in the list at the end is ended."""
        running: list[WorkerProcess] = []
        try:
            for flags in commands:
                worker = await self.start(*flags)
                running.append(worker)
            for worker in running:
                await answering(self.client, worker)
            yield running
        finally:
            for worker in running:
                await asyncio.to_thread(worker.stop)


async def recovery(environment: Environment, plan: Plan) -> Measured:
    """Run all legs, one after another, as often as there are windows."""
    windows = []
    for _ in range(plan.windows):
        moment = Moment({})
        p99_s, failed = await _on_scene(environment, _rolling)
        values = {
            "supervised": await _on_scene(environment, _supervised),
            "unsupervised": await _on_scene(environment, _unsupervised),
            "redis_back": await _on_scene(environment, lambda scene: _back(scene, scene.servers.redis)),
            "broker_back": await _on_scene(environment, lambda scene: _back(scene, scene.servers.broker)),
            "rolling_p99": p99_s,
            "rolling_failed": failed,
        }
        windows.append(moment.until_now(1, values))
    return Measured(UNITS, "round", windows, 4, HELD)


async def _on_scene(environment: Environment, leg: Callable[[Scene], Awaitable[T]]) -> T:
    with tempfile.TemporaryDirectory(prefix="perdure-bench-recovery-") as directory:
        async with running_servers(environment) as servers:
            changes: dict[str, object] = {"kafka_assignment": "group"}
            if environment.servers == "embedded":
                changes["kafka_session_timeout_ms"] = SESSION_TIMEOUT_MS
            settings = servers.settings(environment).model_copy(update=changes)
            redis = Redis.from_url(f"redis://{servers.redis.address}")
            async with redis, Client(settings) as client:
                return await leg(Scene(servers, settings, Path(directory), redis, client))


async def _supervised(scene: Scene) -> float:
    async with scene.workers(("--processes", "2")) as workers:
        await _until(lambda: _ready(workers) >= 2)
        return await _killed_s(scene)


async def _unsupervised(scene: Scene) -> float:
    async with scene.workers((), ()) as workers:
        await _until(lambda: _ready(workers) >= 2)
        return await _killed_s(scene)


async def _killed_s(scene: Scene) -> float:
    """From SIGKILL of the worker process that runs the most to the last of what it ran being claimed elsewhere."""
    ids = [(await scene.client.send("Bench/hold", HELD_S)).invocation_id for _ in range(2 * HELD)]
    held: dict[bytes, list[str]] = defaultdict(list)

    async def all_run() -> bool:
        held.clear()
        for invocation_id, worker in zip(ids, await _fields(scene, ids, "worker"), strict=True):
            held[worker or b""].append(invocation_id)
        return b"" not in held

    await _until(all_run)
    victim = max(held, key=lambda worker: len(held[worker]))
    pid = await scene.redis.hget(scene.keys.worker(victim.decode()), "pid")
    killed_at_s = time.time()
    os.kill(int(pid or 0), signal.SIGKILL)
    claims: list[float] = []

    async def all_claimed() -> bool:
        claims[:] = [
            max((entry.at_ms / 1000 for entry in entries if isinstance(entry, AttemptStarted)), default=0.0)
            for entries in await _journals(scene, held[victim])
        ]
        return all(claims)

    await _until(all_claimed)
    return max(claims) - killed_at_s


async def _back(scene: Scene, server: ServerProcess) -> float:
    """From the first answer of a server that was killed to the first completion after it."""
    async with scene.workers(()), _calling(scene):
        await asyncio.sleep(FAULT_S)
        await server.kill()
        await asyncio.sleep(FAULT_S)
        await server.start()
        back_s = time.perf_counter()
        before = await _completed(scene)

        async def one_more() -> bool:
            return await _completed(scene) > before

        await _until(one_more)
        return time.perf_counter() - back_s


async def _rolling(scene: Scene) -> tuple[float, int]:
    """The p99 of no-ops while three workers are stopped and started again one by one, and how many attempts failed."""
    async with scene.workers((), (), ()) as workers:
        await _until(lambda: _ready(workers) >= 3)
        taken_s: list[float] = []
        async with _calling(scene), _asking(scene, taken_s):
            for at in range(len(workers)):
                await asyncio.to_thread(workers[at].stop)
                workers[at] = await scene.start()
                await _until(partial(_ready, workers[at : at + 1]))
        ids = [raw.decode().rpartition(":")[2] async for raw in scene.redis.scan_iter("*:invocation:*", count=1_000)]
        journals = await _journals(scene, ids)
        failed = sum(isinstance(entry, AttemptFailed) for entries in journals for entry in entries)
        return percentile(taken_s, 0.99), failed


@contextlib.asynccontextmanager
async def _asking(scene: Scene, taken_s: list[float]) -> AsyncIterator[None]:
    """Call a no-op every ASK_EVERY_S while the block runs, however long the others take, and note how long each took.

    Who calls only once the last call was answered hardly calls while nothing is answered, and sees no outage.
    """

    async def ask() -> None:
        began_s = time.perf_counter()
        with contextlib.suppress(PerdureError, TimeoutError):
            await scene.client.call("Bench/noop", timeout=CALL_TIMEOUT)
        taken_s.append(time.perf_counter() - began_s)

    async def keep_asking(group: asyncio.TaskGroup) -> None:
        while True:
            group.create_task(ask())
            await asyncio.sleep(ASK_EVERY_S)

    async with asyncio.TaskGroup() as asked:
        asking = asked.create_task(keep_asking(asked))
        await asyncio.sleep(FAULT_S)
        taken_s.clear()
        yield
        asking.cancel()


@contextlib.asynccontextmanager
async def _calling(scene: Scene) -> AsyncIterator[None]:
    """Have CALLERS call no-ops while the block runs; what an outage fails is called again."""

    async def call() -> None:
        while True:
            try:
                await scene.client.call("Bench/noop", timeout=CALL_TIMEOUT)
            except (PerdureError, TimeoutError):
                await asyncio.sleep(LOOK_S)

    async with asyncio.TaskGroup() as callers:
        tasks = [callers.create_task(call()) for _ in range(CALLERS)]
        yield
        for task in tasks:
            task.cancel()


async def _completed(scene: Scene) -> int:
    async with scene.redis.pipeline(transaction=False) as commands:
        for slot in range(scene.settings.slots):
            commands.zcard(scene.keys.status(slot, "completed"))
        return sum(await commands.execute())


async def _fields(scene: Scene, ids: Sequence[str], field: str) -> list[bytes | None]:
    async with scene.redis.pipeline(transaction=False) as commands:
        for invocation_id in ids:
            commands.hget(scene.keys.of(invocation_id).invocation, field)
        return await commands.execute()


async def _journals(scene: Scene, ids: Sequence[str]) -> list[list[Entry]]:
    async with scene.redis.pipeline(transaction=False) as commands:
        for invocation_id in ids:
            commands.xrange(scene.keys.of(invocation_id).journal)
        found: list[Any] = await commands.execute()
    return [[decode(kind, body) for _, fields in rows for kind, body in fields.items()] for rows in found]


def _ready(workers: Sequence[WorkerProcess]) -> int:
    """How many processes, of supervisors too, have been given partitions."""
    return sum(worker.log_path.read_bytes().count(READY) for worker in workers if worker.log_path.exists())


async def _until(condition: Callable[[], Awaitable[bool] | int]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            held = condition()
            if held if isinstance(held, int) else await held:
                return
            await asyncio.sleep(LOOK_S)
