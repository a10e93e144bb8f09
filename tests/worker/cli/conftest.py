"""A small application, a worker process that runs it, and the command called in this process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from perdure.worker.cli import app
from perdure.worker.settings import Settings, variable
from tests.waiting import PATIENCE_S

SHOP = '''
"""An application for tests of the command."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

from perdure import Context, ObjectContext, Service, TerminalError, VirtualObject, app

shop = Service("Shop")
basket = VirtualObject("Basket")


@shop.handler()
async def add(ctx: Context, order: dict) -> dict:
    count = await ctx.run("count", lambda: order["count"] + 1)
    await ctx.sleep(timedelta(milliseconds=20))
    return {"count": count, "headers": sorted(ctx.request().headers)}


@shop.handler()
async def ping(ctx: Context) -> str:
    return f"pong from {os.getpid()}"


@shop.handler()
async def refuse(ctx: Context) -> None:
    raise TerminalError("not today", 403, {"reason": "rain"})


@shop.handler()
async def wait_for(ctx: Context, path: str) -> int:
    async def file_is_there() -> int:
        Path(path + "." + str(os.getpid())).touch()
        while not Path(path).exists():
            await asyncio.sleep(0.01)
        return os.getpid()

    return await ctx.run("wait", file_is_there)


@basket.handler()
async def put(ctx: ObjectContext, item: str) -> list:
    items = [*(await ctx.get("items") or []), item]
    ctx.set("items", items)
    return [ctx.key(), *items]


application = app([shop, basket])
'''


class Ended(NamedTuple):
    """How a command ended and what it said."""

    exit_code: int
    stdout: str
    stderr: str


Command = Callable[..., Coroutine[Any, Any, Ended]]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the application into the current directory; its target."""
    (tmp_path / "shop_for_tests.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shop_for_tests", raising=False)
    return "shop_for_tests:application"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of the machine's."""
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


@pytest.fixture
def places(
    clean_environment: None, redis_url: str, bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have the environment name the session's servers and this test's namespace."""
    monkeypatch.setenv("PERDURE_REDIS_URL", redis_url)
    monkeypatch.setenv("PERDURE_BOOTSTRAP_SERVERS", bootstrap_servers)
    monkeypatch.setenv("PERDURE_NAMESPACE", namespace)
    monkeypatch.setenv("PERDURE_SLOTS", "4")
    monkeypatch.setenv("PERDURE_TOPIC_PARTITIONS", "1")
    monkeypatch.setenv("PERDURE_TOPIC_REPLICATION_FACTOR", "1")
    # One process is the whole fleet, and the embedded broker takes seconds to let it join a group.
    monkeypatch.setenv("PERDURE_KAFKA_ASSIGNMENT", "manual")
    monkeypatch.setenv("PERDURE_KAFKA_FETCH_MAX_WAIT_MS", "15")


@pytest.fixture
async def worker(shop: str, places: None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A `perdure worker` that runs the application."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perdure", "worker", shop, env=dict(os.environ)
    )
    yield process
    await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process in order, or with force, so that a failed test does not hang."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


@pytest.fixture
def perdure() -> Command:
    """Return what runs the command with the given arguments, off this test's event loop."""

    async def run(*arguments: str, input: str | None = None) -> Ended:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), input=input)
        # A command that runs workers has everything logged to its stderr, which is closed now.
        root.handlers[:] = handlers
        root.setLevel(level)
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run
