"""Several real worker processes under a supervisor: `perdure worker --processes N`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.worker.client import Client
from perdure.worker.fleet import report_death
from perdure.worker.kafka_admin import create_topics
from perdure.worker.settings import Settings
from perdure.worker.supervisor import child_environment
from perdure.worker.topics import plan_topics
from tests.waiting import PATIENCE, PATIENCE_S, wait_until

pytestmark = pytest.mark.process

# The step says by a file which process executes it, and ends in another process than the first one only.
APPLICATION = """
import asyncio
import os
from pathlib import Path

from perdure import Context, Service, app

shop = Service("Shop")


@shop.handler()
async def outlive(ctx: Context, directory: str) -> int:
    async def step() -> int:
        Path(directory, str(os.getpid())).touch()
        while len(list(Path(directory).iterdir())) < 2:
            await asyncio.sleep(0.01)
        return os.getpid()

    return await ctx.run("step", step)


application = app([shop])
"""


@pytest.fixture
def settings(redis_url: str, bootstrap_servers: str, namespace: str) -> Settings:
    """Long leases, so that only a reported death ends them within the test; short sessions, for a quick join."""
    return Settings.load(
        redis_url=redis_url,
        bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        slots=4,
        lease_s=300,
        grace_s=2,
        topic_partitions=2,
        topic_replication_factor=1,
        kafka_session_timeout_ms=1_000,
        kafka_fetch_max_wait_ms=15,
    )


@asynccontextmanager
async def supervised(
    settings: Settings, directory: Path, *, processes: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `perdure worker --processes N` in a directory that holds the application."""
    (directory / "fleet_shop.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "perdure", "worker", "fleet_shop:application", "--processes", str(processes)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, env=child_environment(settings.environment())
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def workers_of(settings: Settings) -> list[int]:
    """The process ids of the live workers, as they say of themselves."""
    keys = Keys(settings.namespace, slots=settings.slots)
    async with connected_store(settings.redis_config, keys, name="test") as store:
        wire = store._wires[0]
        names = await wire.call((b"ZRANGE", keys.workers, 0, -1), lambda reply: reply)
        hashes = [await wire.call((b"HGET", keys.worker(name.decode()), b"pid"), lambda r: r) for name in names]
    return sorted(int(pid) for pid in hashes if pid is not None)


async def test_a_killed_child_costs_no_lease(settings: Settings, tmp_path: Path) -> None:
    """What ran in a child killed by SIGKILL goes on in the other one at once; SIGTERM ends all, with exit code 0."""
    marks = tmp_path / "marks"
    marks.mkdir()
    plans = plan_topics(settings.namespace, ["Shop"], partitions=2, replication_factor=1)
    await create_topics(settings.kafka_config(), plans)
    async with supervised(settings, tmp_path, processes=2) as fleet, Client(settings) as client:
        handle = await client.send("Shop/outlive", str(marks))
        await wait_until(lambda: list(marks.iterdir()), description="the step is executed")
        (first,) = (int(path.name) for path in marks.iterdir())
        os.kill(first, signal.SIGKILL)
        second = await handle.result(timeout=PATIENCE)
        assert second != first
        assert (await handle.status()).attempts == 2
        pids = await workers_of(settings)
        assert first not in pids
        fleet.terminate()
        assert await fleet.wait() == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_settings_that_a_worker_refuses_end_the_fleet(settings: Settings, tmp_path: Path) -> None:
    """A namespace with other slots is exit code 2, not a restart for ever."""
    async with Client(settings):
        pass
    wrong = Settings.load(**{name: getattr(settings, name) for name in settings.model_fields_set} | {"slots": 8})
    async with supervised(wrong, tmp_path, processes=2) as fleet:
        assert await asyncio.wait_for(fleet.wait(), PATIENCE_S) == 2


async def test_a_death_in_a_namespace_that_is_not_there_is_nothing(settings: Settings) -> None:
    """Where nothing was ever written there is nothing to end."""
    await report_death(settings, "nobody")
