"""A Redis that runs out of memory: journals of what is completed go first, new work waits, work in progress goes on."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from datetime import timedelta

import pytest

from perdure.journal.redis_admin import opened
from perdure.journal.redis_store import RedisStore
from perdure.schemas.errors import InvocationNotFoundError
from perdure.schemas.ids import InvocationId, slot_of
from perdure.worker.application import Application, app
from perdure.worker.ceiling import SHED_FROM
from perdure.worker.client import Client
from perdure.worker.context import Context
from perdure.worker.doctor import examine
from perdure.worker.server_process import ServerProcess
from perdure.worker.service import Service
from tests.integration.conftest import quick_settings
from tests.integration.controlled import reach
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

PAYLOAD = 10_000


class Works:
    """A service whose invocations are large, or wait."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        service = Service("Works")

        @service.handler()
        async def large(ctx: Context, number: int) -> int:
            await ctx.run("fill", lambda: f"{number % 10}" * PAYLOAD)
            return number

        @service.handler()
        async def steps(ctx: Context) -> str:
            self.begun += 1
            await ctx.run("wait", self.gate.wait)
            for name in "abc":
                await ctx.run(name, lambda: None)
            return "done"

        @service.handler(inactivity_timeout=timedelta())
        async def leaves(ctx: Context) -> str:
            return await ctx.signal("go", type_hint=str)

        self.large = large
        self.application: Application = app([service])


@pytest.fixture
def small(private_redis: ServerProcess, bootstrap_servers: str, namespace: str) -> Deployment:
    """A deployment on a Redis of this test's own."""
    return Deployment(quick_settings(f"redis://{private_redis.address}", bootstrap_servers, namespace))


async def use(deployment: Deployment, store: RedisStore, share: float) -> None:
    """Give Redis as much memory that what it holds now is this share of it; 0: without a bound."""
    used = (await store.memory())[0].used_bytes
    async with opened(deployment.settings.redis_config) as line:
        await line.ask("CONFIG", "SET", "maxmemory", str(int(used / share)) if share else "0")


async def fill(deployment: Deployment) -> None:
    """Have something large in Redis that is none of ours."""
    async with opened(deployment.settings.redis_config) as line:
        await line.ask("SET", "ballast", "x" * 60_000_000)


async def test_new_work_waits_and_work_in_progress_goes_on(small: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    """What was begun, in memory or suspended, comes to its end; what is new waits in Kafka, visibly; none is lost."""
    works = Works()
    async with (
        small.sender(works.application),
        small.worker(works.application) as engine,
        small.client() as client,
        small.store() as store,
    ):
        running = [await client.send("Works/steps") for _ in range(3)]
        suspended = await client.send("Works/leaves")
        await wait_until(lambda: works.begun == 3)
        await reach(suspended, "suspended")
        # So that the rest is room enough for what connections hold for a moment.
        await fill(small)
        with caplog.at_level(logging.INFO):
            await use(small, store, 0.95)
            await wait_until(lambda: not engine._ceiling.admits, description="new work waits")
            late = [await client.send("Works/steps") for _ in range(4)]
            works.gate.set()
            assert [await handle.result(timeout=PATIENCE) for handle in running] == ["done"] * 3
            await client.send_signal(suspended.invocation_id, "go", "on")
            assert await suspended.result(timeout=PATIENCE) == "on"
            assert [await admitted(client, handle.invocation_id) for handle in late] == [False] * 4
            assert works.begun == 3
            assert "new work waits in Kafka" in await doctors_word(small)
            await wait_until(lambda: told(small), description="the worker says why it takes nothing new")
            await use(small, store, 0)
            assert [await handle.result(timeout=PATIENCE) for handle in late] == ["done"] * 4
            await wait_until(lambda: nothing_told(small), description="the worker takes new work again")
    said = [record.getMessage() for record in caplog.records if record.name == "perdure.worker.ceiling"]
    assert sum(line.startswith("new work waits") for line in said) == 1
    assert sum(line.startswith("new work is taken again") for line in said) == 1


async def admitted(client: Client, invocation_id: str) -> bool:
    """Whether an invocation is known."""
    try:
        await client.status(invocation_id)
    except InvocationNotFoundError:
        return False
    return True


async def doctors_word(deployment: Deployment) -> str:
    """What `perdure doctor` finds."""
    findings = await examine(deployment.settings, None, target="", names=())
    return "\n".join(f"{finding.level}: {finding.found}" for finding in findings)


async def told(deployment: Deployment) -> str:
    """Why the worker takes nothing new, as it says of itself."""
    async with opened(deployment.settings.redis_config) as line:
        (worker,) = await line.ask("ZRANGE", f"{deployment.settings.namespace}:workers", "0", "-1")
        why = await line.ask("HGET", f"{deployment.settings.namespace}:worker:{worker.decode()}", "waits")
    return (why or b"").decode()


async def nothing_told(deployment: Deployment) -> bool:
    """Whether the worker takes new work, as it says of itself."""
    return not await told(deployment)


async def filled(client: Client, works: Works, count: int) -> list[InvocationId]:
    """Invocations that have ended, and whose journals are large."""
    handles = [await client.send(works.large, number) for number in range(count)]
    assert [await handle.result(timeout=PATIENCE) for handle in handles] == list(range(count))
    return [InvocationId(handle.invocation_id) for handle in handles]


async def test_the_oldest_journals_of_what_is_completed_go_first(
    small: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """As many as it takes, and not all; their outcomes stay, and doctor says what happens."""
    works = Works()
    async with (
        small.sender(works.application),
        small.worker(works.application),
        small.client() as client,
        small.store() as store,
    ):
        ids = await filled(client, works, 600)
        await use(small, store, SHED_FROM + 0.02)

        async def enough() -> bool:
            return (await store.memory())[0].share < SHED_FROM

        await wait_until(enough, description="there is room again")
        left = [bool(await store.read_journal(invocation_id)) for invocation_id in ids]
        assert 0 < sum(left) < len(ids)
        ended: defaultdict[int, list[tuple[int, bool]]] = defaultdict(list)
        for invocation_id, there in zip(ids, left, strict=True):
            summary = await store.read_invocation(invocation_id)
            assert summary is not None
            ended[slot_of(invocation_id, 8)].append((int(summary.fields["completed_at"]), there))
        for rows in ended.values():
            gone = [at_ms for at_ms, there in rows if not there]
            stayed = [at_ms for at_ms, there in rows if there]
            assert not gone or not stayed or max(gone) <= min(stayed)
        assert await client.result(ids[0], timeout=PATIENCE) == 0
        assert await client.call(works.large, 7, timeout=PATIENCE) == 7
        await use(small, store, (SHED_FROM + 0.9) / 2)
        assert "advice: It has 8" in await doctors_word(small)
    assert "journals of completed invocations are removed before their retention ends" in caplog.text


async def test_a_full_redis_makes_room_by_itself(small: Deployment) -> None:
    """It refuses every write, and the removal of journals is none: work goes on without anybody's help."""
    works = Works()
    async with (
        small.sender(works.application),
        small.worker(works.application),
        small.client() as client,
        small.store() as store,
    ):
        waiting = await client.send("Works/steps")
        await wait_until(lambda: works.begun == 1)
        await filled(client, works, 400)
        await use(small, store, 1.1)
        works.gate.set()
        assert await waiting.result(timeout=PATIENCE) == "done"
        assert await client.call(works.large, 7, timeout=PATIENCE) == 7
