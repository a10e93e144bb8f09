"""The pytest plugin, `_perdure_pytest.py`, as a user's pytest finds it: by its entry point."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

from perdure.testing import ServerAddresses
from perdure.worker.harness_servers import KAFKA_VARIABLE, REDIS_VARIABLE

# Unset, pytest-asyncio warns of it.
LOOPS = "asyncio_default_fixture_loop_scope=function"

UNUSED = """
import sys

def test_perdure_is_not_even_imported(request):
    assert request.config.pluginmanager.hasplugin("perdure")
    assert not [name for name in sys.modules if name.split(".")[0] == "perdure"]
"""

MISTAKEN = """
from perdure import Service, app

service = Service("S")
seen = 0

@service.handler()
async def look(ctx):
    global seen
    seen += 1
    return await ctx.run(f"look {seen}", lambda: None)

async def test_looks(perdure_harness):
    from datetime import timedelta
    async with perdure_harness(app([service]), always_replay=True) as env:
        await env.client.call("S/look", timeout=timedelta(seconds=2))
"""

OTHER_SERVERS = """
import pytest
from perdure.testing import ServerAddresses

@pytest.fixture(scope="session")
def perdure_servers():
    return ServerAddresses("redis://redis.example:1", "kafka.example:2")

def test_they_are_the_ones(perdure_harness):
    assert perdure_harness.keywords["servers"].bootstrap_servers == "kafka.example:2"
"""


async def pytest_of_a_user(text: str, directory: Path, *options: str, **variables: str) -> tuple[int | None, str]:
    """Run a file of tests in a project of its own; returns the exit code and what was printed."""
    (directory / "test_it.py").write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", *options, "test_it.py"),
        cwd=directory,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def test_it_is_installed() -> None:
    """Pytest finds one plugin of ours."""
    assert [point.value for point in entry_points(group="pytest11", name="perdure")] == ["_perdure_pytest"]


async def test_unused_it_costs_nothing(tmp_path: Path) -> None:
    """A run that uses none of its fixtures has the plugin, and does not import perdure."""
    code, output = await pytest_of_a_user(UNUSED, tmp_path, "-W", "error", "-o", LOOPS)
    assert code == 0, output


async def test_a_failing_test_says_why(tmp_path: Path, perdure_servers: ServerAddresses) -> None:
    """Pytest's report of a call in vain shows both sides of the divergence, and the worker's warning."""
    places = {REDIS_VARIABLE: perdure_servers.redis_url, KAFKA_VARIABLE: perdure_servers.bootstrap_servers}
    code, output = await pytest_of_a_user(MISTAKEN, tmp_path, "-o", "asyncio_mode=auto", **places)
    assert code == 1
    shown = [line[1:].strip() for line in output.splitlines() if line.startswith("E ")]
    assert any(line.startswith("S/look is paused (inv_") for line in shown), output
    assert 'journal: run "look 1"' in shown
    assert 'handler: run "look 2"' in shown
    assert "Captured log call" in output


async def test_its_servers_may_be_overridden(tmp_path: Path) -> None:
    """A fixture `perdure_servers` of the user's own decides where harnesses run."""
    code, output = await pytest_of_a_user(OTHER_SERVERS, tmp_path)
    assert code == 0, output
