"""What docs/operations.md tells an operator to do by hand does what it says."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure import Client, Context, InvocationFilter, InvocationRetryPolicy, Service, Settings, app
from perdure.schemas.errors import InvocationNotFoundError
from perdure.worker.kafka_admin import create_topics
from perdure.worker.main import surroundings, worker_engine
from perdure.worker.topics import plan_topics
from tests.documents import ROOT, blocks
from tests.waiting import PATIENCE, PATIENCE_S, wait_until

RESUME = next(block.text for block in blocks(ROOT / "docs" / "operations.md") if block.title == "resume")

OPERATE = next(block.text for block in blocks(ROOT / "docs" / "operating.md") if block.title == "operate")


async def operator(script: str, settings: Settings) -> str:
    """Run a script of the page."""
    places = {"REDIS_URL": settings.redis_url.get_secret_value(), "NAMESPACE": settings.namespace}
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-eu", "-c", f'perdure() {{ "{sys.executable}" -m perdure "$@"; }}\n{script}'),
        env={**os.environ, **{f"PERDURE_{name}": value for name, value in places.items()}},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(shell.communicate(), PATIENCE_S)
    assert shell.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
def settings(redis_url: str, bootstrap_servers: str, namespace: str) -> Settings:
    """One worker on the session's servers."""
    return Settings.load(
        redis_url=redis_url,
        bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        kafka_assignment="manual",
        kafka_fetch_max_wait_ms=10,
        topic_partitions=2,
    )


async def test_a_paused_invocation_is_resumed_by_hand(settings: Settings) -> None:
    """After the command a worker goes on where it was: what is recorded stays, the failed step runs again."""
    service = Service("Mended")
    done: list[str] = []
    broken = asyncio.Event()
    broken.set()

    @service.handler(invocation_retry_policy=InvocationRetryPolicy(max_attempts=1))
    async def work(ctx: Context) -> str:
        async def second() -> str:
            if broken.is_set():
                raise ConnectionError("not yet")
            done.append("second")
            return "both"

        await ctx.run("first", lambda: done.append("first"))
        return await ctx.run("second", second)

    application = app([service])
    plans = plan_topics(settings.namespace, application.services, partitions=2, replication_factor=1)
    await create_topics(settings.kafka_config(), plans)

    @asynccontextmanager
    async def working() -> AsyncIterator[None]:
        async with worker_engine(application, settings, surroundings()) as engine:
            running = asyncio.create_task(engine.run())
            try:
                yield
            finally:
                engine.stop()
                await running

    async with working(), Client(settings) as client:
        handle = await client.send(work)

        async def paused() -> bool:
            try:
                return (await handle.status()).status == "paused"
            except InvocationNotFoundError:
                return False

        await wait_until(paused, description="it is paused")
        broken.clear()
        await operator(RESUME.replace("inv_…", handle.invocation_id), settings)
        assert await handle.result(timeout=PATIENCE) == "both"
        view = await handle.status()
    assert done == ["first", "second"]
    assert (view.attempts, view.status) == (2, "completed")


async def test_what_failed_alike_is_resumed_together(settings: Settings) -> None:
    """The function that docs/operating.md shows."""
    service = Service("Mended")
    broken = asyncio.Event()
    broken.set()

    @service.handler(invocation_retry_policy=InvocationRetryPolicy(max_attempts=1))
    async def work(ctx: Context) -> str:
        if broken.is_set():
            raise ConnectionError("The bank is away.")
        return "done"

    shown: dict[str, Any] = {}
    exec(compile(OPERATE, "operating.md", "exec"), shown)
    application = app([service])
    plans = plan_topics(settings.namespace, application.services, partitions=2, replication_factor=1)
    await create_topics(settings.kafka_config(), plans)
    async with worker_engine(application, settings, surroundings()) as engine, Client(settings) as client:
        running = asyncio.create_task(engine.run())
        handles = [await client.send(work) for _ in range(3)]

        async def all_paused() -> bool:
            return len((await client.list_invocations(InvocationFilter(statuses=("paused",)))).invocations) == 3

        await wait_until(all_paused)
        broken.clear()
        assert await shown["resume_what_failed_for_the_bank"](client) == 3
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == ["done"] * 3
        engine.stop()
        await running
