"""Redis and Kafka away, slow, restarted or unfit while an engine runs: it says so once, waits, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis

from perdure.journal.redis_line import Line
from perdure.schemas.entries import AttemptFailed
from perdure.schemas.errors import SettingsError
from perdure.worker.application import Application, app
from perdure.worker.clock import SystemClock
from perdure.worker.context import Context
from perdure.worker.main import worker_engine
from perdure.worker.server_process import ServerProcess
from perdure.worker.service import Service
from perdure.worker.timers import Timers
from tests.integration.conftest import quick_settings
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

OURS = "perdure"

SHORT_LEASE_S = 1.0
"""Of tests whose outage is longer than it."""


class Mill:
    """A service whose steps wait at a gate between two others."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.gate = asyncio.Event()
        service = Service("Mill")

        @service.handler()
        async def grind(ctx: Context, name: str) -> str:
            async def step(part: str) -> None:
                self.effects[f"{name} {part}"] += 1
                if part == "middle":
                    await self.gate.wait()

            for part in ("begin", "middle", "end"):
                await ctx.run(part, step, args=(part,))
            return name

        self.application: Application = app([service])

    @property
    def waiting(self) -> int:
        """How many invocations have come to the gate."""
        return sum(name.endswith("middle") for name in self.effects)


@pytest.fixture
def mill() -> Mill:
    """A mill of this test's own."""
    return Mill()


@pytest.fixture
def breakable(private_redis: ServerProcess, private_broker: ServerProcess, namespace: str) -> Deployment:
    """A deployment on servers of this test's own."""
    return Deployment(quick_settings(f"redis://{private_redis.address}", private_broker.address, namespace))


Act = Callable[[ServerProcess, ServerProcess], Coroutine[Any, Any, None]]


async def kill_redis(redis: ServerProcess, broker: ServerProcess) -> None:
    """Kill Redis, and start it again from its append-only file."""
    await redis.kill()
    await asyncio.sleep(0.5)
    await redis.start()


async def kill_broker(redis: ServerProcess, broker: ServerProcess) -> None:
    """Kill the broker, and start it again."""
    await broker.kill()
    await asyncio.sleep(0.5)
    await broker.start()


async def kill_both(redis: ServerProcess, broker: ServerProcess) -> None:
    """Kill both, and start them again, the broker first."""
    await redis.kill()
    await broker.kill()
    await asyncio.sleep(0.3)
    await broker.start()
    await asyncio.sleep(0.3)
    await redis.start()


async def freeze_redis(redis: ServerProcess, broker: ServerProcess) -> None:
    """Stop Redis's process for a while, its connections open."""
    await redis.pause()
    await asyncio.sleep(1.0)
    await redis.resume()


async def freeze_broker(redis: ServerProcess, broker: ServerProcess) -> None:
    """Stop the broker's process for a while, its connections open."""
    await broker.pause()
    await asyncio.sleep(1.0)
    await broker.resume()


async def written(redis: ServerProcess) -> bool:
    """Whether all that Redis was told outlives its process: while an fsync runs it may hold back what came since."""
    async with Redis.from_url(f"redis://{redis.address}") as asked:
        return bool((await asked.info("persistence"))["aof_buffer_length"] == 0)


@pytest.mark.parametrize("act", [kill_redis, kill_broker, kill_both, freeze_redis, freeze_broker])
async def test_running_work_survives(
    breakable: Deployment,
    mill: Mill,
    act: Act,
    private_redis: ServerProcess,
    private_broker: ServerProcess,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What runs stalls and ends as if nothing had been, each step once; the outage is no storm of log lines."""
    async with (
        breakable.sender(mill.application),
        breakable.worker(mill.application, lease_s=10.0),
        breakable.client() as client,
    ):
        handles = [await client.send("Mill/grind", f"g{n}") for n in range(10)]
        await wait_until(lambda: mill.waiting == 10)
        await wait_until(lambda: written(private_redis))
        with caplog.at_level(logging.INFO):
            breaking = asyncio.create_task(act(private_redis, private_broker))
            await asyncio.sleep(0.1)
            mill.gate.set()
            await breaking
            assert [await handle.result(timeout=PATIENCE) for handle in handles] == [f"g{n}" for n in range(10)]
            if act in (kill_redis, freeze_redis, freeze_broker):
                # A broker without a disk forgets its topics; what is sent while they are made anew is another test.
                assert await client.call("Mill/grind", "afterwards", timeout=PATIENCE) == "afterwards"
    lines = Counter(record.getMessage() for record in caplog.records if record.name.startswith(OURS))
    assert all(count <= 3 for count in lines.values()), lines
    assert len(mill.effects) >= 30
    assert set(mill.effects.values()) == {1}


async def kill_redis_for_long(redis: ServerProcess) -> None:
    """Kill Redis, and start it again when every lease has ended."""
    await redis.kill()
    await asyncio.sleep(2 * SHORT_LEASE_S)
    await redis.start()


async def freeze_redis_for_long(redis: ServerProcess) -> None:
    """Stop Redis's process until every lease has ended, its connections open."""
    await redis.pause()
    await asyncio.sleep(2 * SHORT_LEASE_S)
    await redis.resume()


@contextlib.asynccontextmanager
async def newcomer(deployment: Deployment) -> AsyncIterator[None]:
    """Sweep every slot as a worker does that just began; it waits for Redis where that is away."""
    async with deployment.store() as store:
        lease_ms = int(SHORT_LEASE_S * 1000)
        timers = Timers(store, clock=SystemClock(), worker="newcomer", lease_ms=lease_ms, on_due=lambda due: None)
        sweeping = asyncio.create_task(timers.run())
        yield
        sweeping.cancel()
        await asyncio.wait([sweeping])


@pytest.mark.parametrize("act", [kill_redis_for_long, freeze_redis_for_long])
async def test_an_outage_longer_than_the_lease_repeats_nothing(
    breakable: Deployment,
    mill: Mill,
    act: Callable[[ServerProcess], Coroutine[Any, Any, None]],
    private_redis: ServerProcess,
) -> None:
    """Every lease ended meanwhile; neither its worker's sweeps nor those of one that saw no outage take them away."""
    async with (
        breakable.sender(mill.application),
        breakable.worker(mill.application, lease_s=SHORT_LEASE_S),
        breakable.client() as client,
        breakable.store() as store,
    ):
        handles = [await client.send("Mill/grind", f"g{n}") for n in range(20)]
        await wait_until(lambda: mill.waiting == 20)
        await act(private_redis)
        async with newcomer(breakable):
            # For so long leases that nobody renews would have been ended by either.
            await asyncio.sleep(2 * SHORT_LEASE_S)
            mill.gate.set()
            assert [await handle.result(timeout=PATIENCE) for handle in handles] == [f"g{n}" for n in range(20)]
        journals = [await store.read_journal(handle.invocation_id) for handle in handles]
    assert [row.entry for journal in journals for row in journal if isinstance(row.entry, AttemptFailed)] == []
    assert [{row.epoch for row in journal} for journal in journals] == [{1}] * 20
    assert set(mill.effects.values()) == {1}


async def ask(redis: ServerProcess, *command: str) -> None:
    """Give Redis a command."""
    settings = quick_settings(f"redis://{redis.address}", "127.0.0.1:1", "any")
    line = Line(settings.redis_config, name="test")
    await line.connect()
    await line.ask_all([command])
    await line.close()


UNFIT = {
    "no append-only file": (("CONFIG", "SET", "appendonly", "no"), "append"),
    "an evicting policy": (("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"), "allkeys-lru"),
}


@pytest.mark.parametrize("unfit", UNFIT)
async def test_a_redis_that_may_lose_data_is_refused(
    breakable: Deployment, mill: Mill, private_redis: ServerProcess, unfit: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker does not start, and says what to mend; told to go on nevertheless, it works."""
    command, named = UNFIT[unfit]
    await ask(private_redis, *command)
    with pytest.raises(SettingsError) as error:
        async with worker_engine(mill.application, breakable.settings, breakable.around):
            raise AssertionError("it started")
    assert named in str(error.value)
    assert "PERDURE_REQUIRE_DURABLE_REDIS" in str(error.value)
    mill.gate.set()
    async with (
        breakable.sender(mill.application),
        breakable.worker(mill.application, require_durable_redis=False),
        breakable.client() as client,
    ):
        assert await client.call("Mill/grind", "a", timeout=PATIENCE) == "a"
    assert named in caplog.text


async def test_a_worker_that_starts_before_its_servers(
    breakable: Deployment, mill: Mill, private_redis: ServerProcess, private_broker: ServerProcess
) -> None:
    """It waits for both, in either order, and works as soon as they answer."""
    mill.gate.set()
    await private_redis.kill()
    await private_broker.kill()
    done = asyncio.Event()

    async def work() -> None:
        async with breakable.worker(mill.application):
            await done.wait()

    working = asyncio.create_task(work())
    await asyncio.sleep(0.3)
    await private_redis.start()
    await asyncio.sleep(0.3)
    await private_broker.start()
    async with breakable.sender(mill.application), breakable.client() as client:
        assert await client.call("Mill/grind", "a", timeout=PATIENCE) == "a"
    done.set()
    await working
