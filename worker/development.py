"""The composition root of `perdure dev`: embedded servers, a worker, and a new worker when the code changes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clock import system_random
from .code_watch import Snapshot, code_root, snapshot, wait_for_change
from .embedded import EmbeddedServers, embedded_servers
from .fleet import child_command
from .lifeline import lifeline
from .main import worker_name
from .settings import Settings
from .supervisor import child_environment

logger = logging.getLogger(__name__)

FETCH_MAX_WAIT_MS = 5
"""The embedded broker ends its long polls late: a short wait is what makes it quick."""

TOPIC_PARTITIONS = 2
"""One worker reads them all, and the embedded broker's part of a fetch grows with them: with 8 a record takes half as
long again. Two, so that what holds only with one is found."""

GRACE_S = 3.0
"""What runs gets so long when the code changed: shorter than a developer's patience."""

KILL_MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Development:
    """What `perdure dev` was asked for. Without ports there are free ones, without a directory a temporary one."""

    target: str
    data_dir: Path | None = None
    redis_port: int | None = None
    broker_port: int | None = None
    reload: bool = True


async def run_development(
    asked: Development, settings: Settings, *, on_ready: Callable[[EmbeddedServers, Settings], None]
) -> int:
    """Run servers and worker until SIGTERM or SIGINT; returns the exit code.

    Args:
        asked: See there.
        settings: What the environment and flags say; the servers' places are put over them.
        on_ready: Called once with the running servers and the settings with which to reach them.

    Raises:
        SettingsError: The embedded servers are not installed.
        ServerProcessError: One of them did not start.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with embedded_servers(
            data_dir=asked.data_dir, redis_port=asked.redis_port, broker_port=asked.broker_port
        ) as servers:
            here = _settings_for(servers, settings)
            on_ready(servers, here)
            return await _keep_worker(asked, here, stopping)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _settings_for(servers: EmbeddedServers, settings: Settings) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    ours = {
        "redis_url": servers.redis_url,
        "bootstrap_servers": servers.bootstrap_servers,
        "kafka_security_protocol": "PLAINTEXT",
        "kafka_assignment": "manual",
        "kafka_fetch_max_wait_ms": FETCH_MAX_WAIT_MS,
    }
    unless_given = {"grace_s": GRACE_S, "topic_replication_factor": 1, "topic_partitions": TOPIC_PARTITIONS}
    return Settings.load(**unless_given | given | ours)


async def _keep_worker(asked: Development, settings: Settings, stopping: asyncio.Event) -> int:
    root = code_root(asked.target.partition(":")[0], Path.cwd())
    with lifeline() as descriptor:
        while True:
            before = await asyncio.to_thread(snapshot, root)
            process = await _start(asked.target, settings, descriptor)
            try:
                happened = await _first(_changed(asked, root, before), stopping.wait(), process.wait())
                if not happened and not asked.reload:
                    return process.returncode or 0
                if not happened:
                    logger.warning("The worker ended with exit code %d; waiting for a change", process.returncode)
                    happened = await _first(_changed(asked, root, before), stopping.wait())
            finally:
                await _end(process, grace_s=settings.grace_s)
            if stopping.is_set():
                return 0
            logger.info("%s: starting the worker anew", happened)


async def _first(change: Coroutine[Any, Any, str], *others: Coroutine[Any, Any, object]) -> str:
    """Wait for the first of all; the text of `change` if that was it, else nothing."""
    tasks = [asyncio.create_task(coroutine) for coroutine in (change, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return str(tasks[0].result()) if tasks[0].done() else ""
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _changed(asked: Development, root: Path, before: Snapshot) -> str:
    if not asked.reload:
        await asyncio.Event().wait()
    files = [str(path.relative_to(root)) for path in await wait_for_change(root, before)]
    return f"{', '.join(files[:3])}{' and others' if len(files) > 3 else ''} changed"


async def _start(target: str, settings: Settings, descriptor: int) -> asyncio.subprocess.Process:
    command = child_command(target, worker_name(system_random()), lifeline=descriptor)
    return await asyncio.create_subprocess_exec(
        *command, env=child_environment(settings.environment()), pass_fds=[descriptor], start_new_session=True
    )


async def _end(process: asyncio.subprocess.Process, *, grace_s: float) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(grace_s + KILL_MARGIN_S):
            await process.wait()
    except TimeoutError:
        logger.warning("The worker did not end within its grace and is killed")
    finally:
        # Also where this task is cancelled: no worker outlives its servers.
        if process.returncode is None:
            process.kill()
            await process.wait()
