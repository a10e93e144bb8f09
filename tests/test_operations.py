"""What docs/operations.md tells an operator to do by hand does what it says."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from perdure import Client, Context, InvocationRetryPolicy, Service, Settings, app
from perdure.schemas.errors import InvocationNotFoundError
from perdure.worker.kafka_admin import create_topics
from perdure.worker.main import surroundings, worker_engine
from perdure.worker.topics import plan_topics
from tests.documents import ROOT, blocks
from tests.waiting import wait_until

RESUME = next(block.text for block in blocks(ROOT / "docs" / "operations.md") if block.title == "resume")

# In the place of redis-cli, which not every machine has: one command a line, from stdin.
REDIS_CLI = """
import sys, redis
client = redis.Redis.from_url(sys.argv[1]).client()
for line in sys.stdin:
    print(client.execute_command(*line.split()))
"""


async def operator(script: str, *, redis_url: str) -> str:
    """Run a script of the page."""
    function = f'redis-cli() {{ "{sys.executable}" -c "$REDIS_CLI" "{redis_url}"; }}\n'
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-eu", "-c", function + script),
        env={**os.environ, "REDIS_CLI": REDIS_CLI},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(shell.communicate(), 20)
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


async def test_a_paused_invocation_is_resumed_by_hand(settings: Settings, redis_url: str) -> None:
    """After the four commands a worker goes on where it was: what is recorded stays, the failed step runs again."""
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
        script = RESUME.replace("inv_…", handle.invocation_id).replace("perdure:", f"{settings.namespace}:")
        await operator(script, redis_url=redis_url)
        assert await handle.result(timeout=timedelta(seconds=20)) == "both"
        view = await handle.status()
    assert done == ["first", "second"]
    assert (view.attempts, view.status) == (2, "completed")
