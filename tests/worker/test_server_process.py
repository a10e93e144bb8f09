"""One server as a child process: `perdure.worker.server_process`, on the lane's own servers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from perdure.schemas.errors import ServerProcessError
from perdure.worker.clock import system_random
from perdure.worker.server_process import PORTS, REDIS_PROBE, ServerProcess, free_port
from tests.waiting import wait_until


def client_of(server: ServerProcess) -> redis.Redis:
    """Return a client that gives up after a tenth of a second and does not try again."""
    return redis.Redis(port=server.port, socket_timeout=0.1, retry=Retry(NoBackoff(), 0))


async def test_a_killed_redis_comes_back_on_its_port_with_its_data(private_redis: ServerProcess) -> None:
    """What Redis answered before SIGKILL is there after a restart, at the same address under a new pid."""
    address, pid = private_redis.address, private_redis.pid
    with client_of(private_redis) as client:
        client.set("kept", "yes")
    await private_redis.kill()
    assert not private_redis.is_running
    assert private_redis.pid is None
    await private_redis.start()
    assert (private_redis.address, private_redis.pid == pid) == (address, False)
    with client_of(private_redis) as client:
        assert client.get("kept") == b"yes"


async def test_a_paused_server_keeps_connections_and_answers_nothing(private_redis: ServerProcess) -> None:
    """SIGSTOP makes requests time out on an open connection; SIGCONT lets the server go on."""
    with client_of(private_redis) as client:
        assert client.ping()
        await private_redis.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert private_redis.is_running
        await private_redis.resume()
        assert client.ping()


async def test_a_paused_server_can_be_killed(private_redis: ServerProcess) -> None:
    """SIGKILL ends a stopped process too."""
    pid = private_redis.pid
    assert pid is not None
    await private_redis.pause()
    await private_redis.kill()
    await wait_until(lambda: not exists(pid), description="the server is gone")


async def test_a_server_can_be_ended_without_a_loop(private_redis: ServerProcess) -> None:
    """At the end of a process asyncio has no threads any more; killing a server needs none."""
    pid = private_redis.pid
    assert pid is not None
    private_redis.kill_blocking()
    assert not private_redis.is_running
    await wait_until(lambda: not exists(pid), description="the server is gone")
    private_redis.kill_blocking()


async def test_a_broker_serves_and_ends(private_broker: ServerProcess) -> None:
    """The probe takes a Kafka broker for serving only when it answers, and stopping twice is as good as once."""
    assert private_broker.is_running
    await private_broker.stop()
    await private_broker.stop()
    assert not private_broker.is_running


async def test_starting_a_running_server_changes_nothing(private_redis: ServerProcess) -> None:
    """A second start leaves the same process."""
    pid = private_redis.pid
    await private_redis.start()
    assert private_redis.pid == pid


async def test_a_server_that_ends_at_once_is_named_with_its_log(tmp_path: Path) -> None:
    """The message says what ended, with which code, and what it said last."""
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"]
    with pytest.raises(ServerProcessError, match=r"Sham ended with exit code 3 .*\nno such option"):
        await sham(command, tmp_path).start()


async def test_a_program_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    """A missing program is reported as such, and not as a server that is slow."""
    with pytest.raises(ServerProcessError, match="Sham could not be executed"):
        await sham([str(tmp_path / "nothing")], tmp_path).start()


async def test_signals_need_a_running_server(tmp_path: Path) -> None:
    """Pausing what does not run is an error that says so; ending it is not."""
    server = sham(["true"], tmp_path)
    await server.kill()
    with pytest.raises(ServerProcessError, match="not running, so it cannot be sent SIGSTOP"):
        await server.pause()


def test_free_ports_are_below_those_of_outgoing_connections() -> None:
    """A client that retries a dead server cannot take its port: it lies outside the ephemeral range."""
    assert free_port(system_random()) in PORTS
    assert PORTS.stop < 32768


def sham(command: list[str], directory: Path) -> ServerProcess:
    """Return a server made of any command; it never answers the probe."""
    return ServerProcess(
        "Sham", command, port=free_port(system_random()), probe=REDIS_PROBE, log_path=directory / "sham.log"
    )


def exists(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
