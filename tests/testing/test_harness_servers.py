"""`perdure.testing.shared_servers`: one pair for a process. The embedded one, on either lane."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import redis

from perdure.schemas.errors import SettingsError
from perdure.testing import shared_servers
from perdure.worker.harness_servers import KAFKA_VARIABLE, REDIS_VARIABLE, EmbeddedPairs, ServerAddresses
from tests.waiting import wait_until

HEAD = """
import asyncio, os, signal, sys, time
from perdure import Service, app
from perdure.testing import harness, shared_servers

service = Service("S")

@service.handler()
async def nothing(ctx): ...

application = app([service])

def say(where):
    print(where.redis_url.removeprefix("redis://"), where.bootstrap_servers, flush=True)
"""

TWO_HARNESSES = """
async def once():
    async with harness(application) as env:
        say(env)

asyncio.run(once())
asyncio.run(once())
"""

THEN_KILLED = """
say(shared_servers())
os.kill(os.getpid(), signal.SIGKILL)
"""

FORKED = """
say(shared_servers())
child = os.fork()
say(shared_servers())
if child:
    os.waitpid(child, 0)
    # What the child ended was its own.
    from perdure import Client
    async def ask():
        async with harness(application) as env:
            say(env)
    asyncio.run(ask())
"""


async def run(script: str, directory: Path) -> list[str]:
    """Run a script in a process of its own and return the lines it printed; its temporary files go to `directory`."""
    environment = {name: value for name, value in os.environ.items() if name not in (REDIS_VARIABLE, KAFKA_VARIABLE)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HEAD + script),
        stdout=asyncio.subprocess.PIPE,
        env=environment | {"TMPDIR": str(directory)},
    )
    output, _ = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL)
    return output.decode().splitlines()


def answers(address: str) -> bool:
    """Whether anybody listens there."""
    host, _, port = address.rpartition(":")
    with socket.socket() as caller:
        return caller.connect_ex((host, int(port))) == 0


async def test_one_pair_serves_all_and_ends_with_the_process(tmp_path: Path) -> None:
    """Two loops, one after the other, find the same servers; afterwards there is neither a server nor a file."""
    first, second = await run(TWO_HARNESSES, tmp_path)
    assert first == second
    assert not any(answers(address) for address in first.split())
    assert os.listdir(tmp_path) == []


async def test_a_killed_process_leaves_no_server(tmp_path: Path) -> None:
    """Not even SIGKILL of the process that runs the tests keeps them alive."""
    (line,) = await run(THEN_KILLED, tmp_path)
    await wait_until(lambda: not any(answers(address) for address in line.split()), description="both servers ended")


async def test_a_forked_process_has_servers_of_its_own(tmp_path: Path) -> None:
    """The child starts a pair, and takes only that with it when it ends."""
    parent, *others = await run(FORKED, tmp_path)
    assert others.count(parent) == 2
    assert len(set(others)) == 2
    assert os.listdir(tmp_path) == []


async def test_a_pair_that_somebody_ended_is_started_anew() -> None:
    """A test that ends one of the shared servers costs the next one half a second, and not the session."""
    pairs = EmbeddedPairs()
    try:
        before = pairs.running()
        assert pairs.running() == before
        with redis.Redis.from_url(before.redis_url) as client:
            client.shutdown(nosave=True)
        await wait_until(lambda: pairs.running() != before, description="another pair runs")
        after = pairs.running()
        assert not answers(before.bootstrap_servers)
        assert answers(after.bootstrap_servers)
    finally:
        pairs.end()
    assert not answers(after.bootstrap_servers)
    pairs.end()


def test_servers_of_ones_own_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment names for tests is what tests get; nothing is started."""
    monkeypatch.setenv(REDIS_VARIABLE, "redis://redis.example:6379/3")
    monkeypatch.setenv(KAFKA_VARIABLE, "kafka.example:9092")
    assert shared_servers() == ServerAddresses("redis://redis.example:6379/3", "kafka.example:9092", embedded=False)


@pytest.mark.parametrize(("given", "missing"), [(REDIS_VARIABLE, KAFKA_VARIABLE), (KAFKA_VARIABLE, REDIS_VARIABLE)])
def test_one_server_is_not_enough(monkeypatch: pytest.MonkeyPatch, given: str, missing: str) -> None:
    """With one variable of the two, tests would run half on a server that was not meant."""
    monkeypatch.setenv(given, "x:1")
    monkeypatch.delenv(missing, raising=False)
    with pytest.raises(SettingsError, match=f"{given} is set and {missing} is not"):
        shared_servers()
