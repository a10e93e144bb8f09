"""`perdure dev`: servers, a worker, and a new worker when the code changes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from perdure.schemas.errors import BrokerError, SettingsError
from perdure.worker.client import Client
from perdure.worker.settings import Settings, variable
from tests.waiting import PATIENCE_S, wait_until
from tests.worker.cli.conftest import end

pytestmark = pytest.mark.process

CODE = """
from perdure import Context, Service, app

shop = Service("Shop")


@shop.handler()
async def version(ctx: Context) -> int:
    return {version}


application = app([shop])
"""


class Dev:
    """A running `perdure dev` in a directory, and a client of its servers."""

    def __init__(self, process: asyncio.subprocess.Process, client: Client, code: Path) -> None:
        self.process = process
        self._client = client
        self._code = code

    def write(self, text: str) -> None:
        """Change the application's code."""
        self._code.write_text(text)

    async def answers(self, expected: int) -> bool:
        """Whether the handler returns that."""
        try:
            return bool(await self._client.call("Shop/version", timeout=timedelta(seconds=5)) == expected)
        except (TimeoutError, BrokerError, SettingsError):
            # The worker that makes the topics may not have begun yet.
            return False


@pytest.fixture
async def dev(tmp_path: Path) -> AsyncIterator[Dev]:
    """Run `perdure dev` until the test ends."""
    code = tmp_path / "dev_shop.py"
    code.write_text(CODE.format(version=1))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(variable(""))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure", "dev", "dev_shop:application"),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            exports = ""
            while "export" not in exports:
                exports = (await process.stdout.readline()).decode()
        places = dict(word.split("=", 1) for word in exports.split() if "=" in word)
        settings = Settings.load(
            bootstrap_servers=places["PERDURE_BOOTSTRAP_SERVERS"], redis_url=places["PERDURE_REDIS_URL"]
        )
        async with Client(settings) as client:
            yield Dev(process, client, code)
    finally:
        await end(process)


async def test_changed_code_is_run(dev: Dev) -> None:
    """A new worker with the new code; broken code is waited out; Ctrl-C ends everything in order."""
    await wait_until(lambda: dev.answers(1))
    dev.write(CODE.format(version=2))
    await wait_until(lambda: dev.answers(2))
    dev.write("this is not Python\n")
    dev.write(CODE.format(version=3))
    await wait_until(lambda: dev.answers(3))
    dev.process.send_signal(signal.SIGINT)
    assert await dev.process.wait() == 0


async def test_without_the_module_it_waits_for_it(dev: Dev, tmp_path: Path) -> None:
    """A worker that cannot start is told of on stderr; the servers stay, and the next change is tried."""
    (tmp_path / "dev_shop.py").unlink()
    (tmp_path / "other.py").write_text("")
    dev.write(CODE.format(version=5))
    await wait_until(lambda: dev.answers(5))
