"""The proxy of bytes: `tests.chaos.proxy`."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from perdure.worker.clock import system_random
from perdure.worker.server_process import HOST, free_port
from tests.waiting import wait_until

from .proxy import Direction, Proxy

BOTH = (Direction.UP, Direction.DOWN)


class Echo:
    """A server that says everything twice to whom it heard it from, and remembers it."""

    def __init__(self) -> None:
        self.heard = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the other side ends."""
        try:
            while data := await reader.read(1_000):
                self.heard += data
                writer.write(data * 2)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    """An echo behind a proxy."""
    made, ports = Echo(), system_random()
    server = await asyncio.start_server(made.serve, HOST, free_port(ports))
    try:
        port: int = server.sockets[0].getsockname()[1]
        async with Proxy(free_port(ports), upstream_port=port) as proxy:
            yield made, proxy
    finally:
        server.close()


async def dialogue(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has said hello and was answered."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(b"hello")
    assert await reader.readexactly(10) == b"hellohello"
    return reader, writer


async def test_bytes_go_both_ways() -> None:
    """Undisturbed, a proxy is not noticed."""
    async with echo() as (server, proxy):
        _, writer = await dialogue(proxy)
        assert server.heard == b"hello"
        assert proxy.connections == 1
        writer.close()
        await wait_until(lambda: proxy.connections == 0)


async def test_cut_is_a_reset() -> None:
    """A connection that is cut ends with an error and not with an end."""
    async with echo() as (_, proxy):
        reader, _ = await dialogue(proxy)
        assert proxy.cut(random.Random(1), share=1.0) == 1
        with pytest.raises(ConnectionResetError):
            await reader.read()


@pytest.mark.parametrize(
    ("direction", "heard", "answered"), [(Direction.UP, b"abc", b""), (Direction.DOWN, b"abcdef", b"abcdef")]
)
async def test_halved_message_arrives_in_part(direction: Direction, heard: bytes, answered: bytes) -> None:
    """Half of the next message arrives, and then there is no connection any more."""
    async with echo() as (server, proxy):
        reader, writer = await dialogue(proxy)
        halving = asyncio.create_task(proxy.halve(random.Random(1), direction=direction, share=1.0))
        await asyncio.sleep(0)
        writer.write(b"abcdef")
        assert await halving == 1
        assert server.heard == b"hello" + heard
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(len(answered) + 1)


@pytest.mark.parametrize("directions", [(Direction.UP,), (Direction.DOWN,), BOTH])
async def test_black_hole_holds_what_comes(directions: tuple[Direction, ...]) -> None:
    """Nothing gets through while it lasts; afterwards it all does, and new connections are no better off."""
    async with echo() as (server, proxy):
        reader, writer = await dialogue(proxy)
        late_reader, late_writer = await asyncio.open_connection(HOST, proxy.port)
        async with proxy.black_hole(directions, swallows=False):
            writer.write(b"x")
            late_writer.write(b"y")
            await wait_until(lambda: proxy.held_bytes >= 2)
            assert (len(server.heard) == 5) is (Direction.UP in directions)
        assert await reader.readexactly(2) == b"xx"
        assert await late_reader.readexactly(2) == b"yy"


async def test_swallowed_bytes_never_arrive() -> None:
    """What a black hole swallows is gone, and its connection with it: a stream has no holes."""
    async with echo() as (server, proxy):
        reader, writer = await dialogue(proxy)
        async with proxy.black_hole((Direction.UP,), swallows=True):
            writer.write(b"x")
            await wait_until(lambda: proxy.held_bytes == 1)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert server.heard == b"hello"


async def test_delayed_bytes_arrive_in_order() -> None:
    """A slow connection carries everything, in order."""
    async with echo() as (server, proxy):
        reader, writer = await dialogue(proxy)
        async with proxy.slow(BOTH, delay_s=0.01):
            for letter in b"abcdef":
                writer.write(bytes([letter]))
                await asyncio.sleep(0)
            assert len(await reader.readexactly(12)) == 12
        assert server.heard == b"helloabcdef"


async def test_connection_to_a_server_that_is_away_is_refused_at_once() -> None:
    """Who connects while there is no server is not left waiting."""
    ports = system_random()
    async with Proxy(free_port(ports), upstream_port=free_port(ports)) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("turns", range(8))
async def test_nothing_stays_open_whenever_it_ends(turns: int) -> None:
    """Connections that come, stand and end just when the proxy does are closed; one that is left open is a warning."""
    ports = system_random()
    async with echo() as (_, outer), Proxy(free_port(ports), upstream_port=outer.port) as proxy:
        sockets = [socket.create_connection((HOST, proxy.port)) for _ in range(3)]
        await wait_until(lambda: outer.connections == len(sockets))
        sockets[0].close()
        sockets += [socket.create_connection((HOST, proxy.port)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
    for each in sockets:
        each.close()
    gc.collect()
