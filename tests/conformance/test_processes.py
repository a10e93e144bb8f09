"""What holds when worker processes and servers are killed, stopped and started anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perdure.schemas.entries import Sleep
from perdure.worker.clock import system_random
from perdure.worker.server_process import ServerProcess
from perdure.worker.settings import Settings
from tests.conftest import NAMESPACE_LETTERS
from tests.servers.lane import Servers
from tests.waiting import PATIENCE, wait_until

from .catalogue import verifies
from .contract_objects import counter, has_awakeable, unlock
from .contract_services import sleep_concurrently
from .core_cases import waits_for_ever
from .deployed import Point
from .process_fleet import SLOTS, Fleet, fleet

# Two corners of the matrix: each start of a process costs a second of one core.
PLAIN = Point(always_replay=False, workers=1)
CORNERS = [PLAIN, Point(always_replay=True, workers=3)]

ALONE = Point(always_replay=True, workers=1)


def settings_for(redis_url: str, bootstrap_servers: str, namespace: str, point: Point) -> Settings:
    """Settings with which the end of a worker is noticed soon."""
    return Settings.load(
        redis_url=redis_url,
        bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        slots=SLOTS,
        topic_partitions=2,
        topic_replication_factor=1,
        kafka_fetch_max_wait_ms=10,
        kafka_session_timeout_ms=2_000,
        always_replay=point.always_replay,
        lease_s=1.5,
        grace_s=3,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CORNERS, ids=str)
async def processes(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Fleet]:
    """Workers that the tests of this module share and end."""
    point: Point = request.param
    namespace = "f" + "".join(system_random().choices(NAMESPACE_LETTERS, k=6))
    settings = settings_for(servers.redis_url, servers.bootstrap_servers, namespace, point)
    async with fleet(settings, size=point.workers, directory=tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture(params=[PLAIN, ALONE], ids=str)
def private_settings(
    private_redis: ServerProcess, bootstrap_servers: str, namespace: str, request: pytest.FixtureRequest
) -> Settings:
    """Settings with a Redis that only one test has, for one worker."""
    return settings_for(f"redis://{private_redis.address}", bootstrap_servers, namespace, request.param)


@verifies("KillRuntime", "startAndKillRuntimeRetainsTheState")
async def test_state_outlives_a_kill(private_settings: Settings, private_redis: ServerProcess, tmp_path: Path) -> None:
    """Worker and Redis are killed and started anew: the counter goes on from what it was."""
    await count_over_restart(private_settings, private_redis, tmp_path, by_kill=True)


@verifies("StopRuntime", "startAndStopRuntimeRetainsTheState")
async def test_state_outlives_a_stop(private_settings: Settings, private_redis: ServerProcess, tmp_path: Path) -> None:
    """Worker and Redis are stopped and started anew: the counter goes on from what it was."""
    await count_over_restart(private_settings, private_redis, tmp_path, by_kill=False)


async def count_over_restart(
    settings: Settings, private_redis: ServerProcess, directory: Path, *, by_kill: bool
) -> None:
    """Add to a counter before and after the end of the worker and of its Redis."""
    async with fleet(settings, size=1, directory=directory) as processes:
        first = await processes.client.call(counter.add, 1, key="my-key", timeout=PATIENCE)
        assert (first.old_value, first.new_value) == (0, 1)
        await processes.end(by_kill=by_kill)
        await (private_redis.kill() if by_kill else private_redis.stop())
        await private_redis.start()
        await processes.start()
        second = await processes.client.call(counter.add, 2, key="my-key", timeout=PATIENCE)
        assert (second.old_value, second.new_value) == (1, 3)


@pytest.mark.parametrize("by_kill", [pytest.param(True, id="kill"), pytest.param(False, id="stop")])
@pytest.mark.asyncio(loop_scope="module")
@verifies("SleepWithFailures", "sleepAndKillServiceEndpoint", "sleepAndTerminateServiceEndpoint")
async def test_a_sleep_outlives_its_workers(processes: Fleet, by_kill: bool) -> None:
    """Workers are replaced while the handler sleeps, and it wakes."""
    handle = await processes.client.send(sleep_concurrently, [1_500])

    async def sleeps() -> bool:
        return any(isinstance(entry, Sleep) for entry in await processes.outside.journal(handle.invocation_id))

    await wait_until(sleeps)
    await processes.restart(by_kill=by_kill)
    await handle.result(timeout=PATIENCE)


@pytest.mark.asyncio(loop_scope="module")
@verifies("AwakeableLeaderTransferTest", "completionSurvivesTheWorker")
async def test_a_completion_meets_a_dead_worker(processes: Fleet) -> None:
    """An awakeable is resolved while the worker of its waiter is dead: another one takes both over."""
    handle = await processes.client.send(waits_for_ever, key="k")

    async def holds() -> bool:
        return await processes.client.call(has_awakeable, key="k", timeout=PATIENCE)

    await wait_until(holds)
    running = (await handle.status()).worker
    await processes.end(by_kill=True, only=running)
    await processes.start()
    await processes.client.call(unlock, "go", key="k", timeout=PATIENCE)
    await handle.result(timeout=PATIENCE)
