"""The composition root of `perdure worker --processes N`: a supervisor whose children are `perdure worker`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import read_namespace

from .clock import SystemClock, system_random
from .main import worker_name
from .settings import Settings
from .supervisor import Supervisor, SupervisorSettings, child_environment

FROZEN_MARGIN_S = 2.0
"""After a blocked worker has let go of its leases, for it to come back by itself before it is replaced."""


async def run_fleet(target: str, settings: Settings, *, processes: int) -> int:
    """Run that many worker processes until SIGTERM or SIGINT; returns the exit code.

    Args:
        target: `MODULE:APP`, which the children load.
        settings: The children's.
        processes: At least 1.
    """
    supervisor = Supervisor(
        SupervisorSettings(
            processes=processes,
            name=settings.worker_id or worker_name(system_random()),
            grace_s=settings.grace_s,
            environment=child_environment(settings.environment()),
            frozen_s=settings.block_ms_max / 1000 + FROZEN_MARGIN_S,
        ),
        command=lambda worker, descriptor, pulse: child_command(target, worker, lifeline=descriptor, pulse=pulse),
        report=lambda worker: report_death(settings, worker),
        clock=SystemClock(),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    try:
        return await supervisor.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def report_death(settings: Settings, worker: str) -> None:
    """End the leases of a worker that is dead, so that its invocations go on elsewhere at once.

    Raises:
        SettingsError: The Redis login is wrong.
        StoreError: Redis does not answer; the leases end by themselves.
    """
    found = await read_namespace(settings.redis_config, settings.namespace)
    if found is None:
        return
    keys = Keys(settings.namespace, slots=found.slots)
    async with connected_store(settings.redis_config, keys, name="perdure-supervisor") as store:
        await store.expire(worker)
        await store.retire(worker)


def child_command(target: str, worker: str, *, lifeline: int, pulse: int | None = None) -> Sequence[str]:
    """The command of one worker process; everything else comes to it by its environment."""
    return [
        *(sys.executable, "-m", "perdure", "worker", target, "--processes", "1"),
        *("--worker-id", worker, "--lifeline", str(lifeline)),
        *(() if pulse is None else ("--pulse", str(pulse))),
    ]
