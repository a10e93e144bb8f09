"""A proxy of bytes between clients and one server, which can be made to delay, cut, halve and swallow what they say.

It knows nothing of what it carries: a fault strikes wherever the bytes happen to be. Faults of a direction concern the
connections of that moment and those that are opened while they last.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum

from perdure.worker.server_process import HOST

CHUNK_BYTES_MAX = 65_536
"""What is read at once, and so held at once while a direction is slow: as much as a socket's buffer."""

BACKLOG = 128
"""Connections that may wait to be taken: a storm of reconnections of all workers and clients is smaller."""

HALVE_WITHIN_S = 2.0
"""How long a cut in the middle of a message waits for one; heartbeats of all clients come more often."""


class Direction(StrEnum):
    """Which way bytes go."""

    UP = "up"
    DOWN = "down"


@dataclass
class Weather:
    """What befalls the bytes of one direction now.

    Attributes:
        delay_s: Each chunk waits for so long.
        open: Cleared while nothing gets through; what came is carried on when it is set again.
        swallows: What comes while nothing gets through is lost, and its connection is cut at the end.
    """

    delay_s: float = 0.0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    swallows: bool = False

    def __post_init__(self) -> None:
        self.open.set()


class Carried:
    """One connection through the proxy: two sockets."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self.halving: Direction | None = None
        self.swallowed_bytes = 0

    def cut(self) -> None:
        """Reset both ends; what was not delivered yet never is."""
        for end in self._ends:
            sock: socket.socket | None = end.get_extra_info("socket")
            if sock is not None:
                # Closed with this option, a socket sends RST and drops its buffer.
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


class Proxy:
    """Listens on a port of its own in front of a server. Use as an async context manager.

    Args:
        port: Where it listens on 127.0.0.1.
        upstream_port: Where the server does, whenever it runs.
    """

    def __init__(self, port: int, *, upstream_port: int) -> None:
        self.port = port
        self.held_bytes = 0
        self._upstream_port = upstream_port
        self._weather = {direction: Weather() for direction in Direction}
        # In the order in which they were opened, so that a seed picks the same ones where the same ones are open.
        self._carried: dict[Carried, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._carried)

    async def __aenter__(self) -> Proxy:
        self._listener = socket.create_server((HOST, self.port), backlog=BACKLOG)
        self._listener.setblocking(False)
        # Not asyncio's server: ended while it takes a connection, that of Python 3.11 leaves it open.
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._listener is not None, "it was entered"
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        # Each task has begun then, and closes what it was given; one that is cancelled before would not.
        await asyncio.sleep(0)
        for carried in list(self._carried):
            carried.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What was closed is closed by asyncio in its next turn, which may be the last one of its loop.
        await asyncio.sleep(0)

    def cut(self, chance: random.Random, *, share: float) -> int:
        """Reset some of the connections, at least one; how many."""
        victims = self._some(chance, share)
        for carried in victims:
            carried.cut()
        return len(victims)

    async def halve(self, chance: random.Random, *, direction: Direction, share: float) -> int:
        """Let half of the next message of some connections through, and reset them; how many had one to halve."""
        victims = self._some(chance, share)
        for carried in victims:
            carried.halving = direction
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HALVE_WITHIN_S):
                while any(carried in self._carried for carried in victims):  # noqa: ASYNC110 - bytes tell nobody
                    await asyncio.sleep(0.02)
        for carried in victims:
            carried.halving = None
        return sum(carried not in self._carried for carried in victims)

    @contextlib.asynccontextmanager
    async def slow(self, directions: tuple[Direction, ...], *, delay_s: float) -> AsyncIterator[None]:
        """Delay each chunk of these directions while the block runs."""
        for direction in directions:
            self._weather[direction].delay_s = delay_s
        try:
            yield
        finally:
            for direction in directions:
                self._weather[direction].delay_s = 0.0

    @contextlib.asynccontextmanager
    async def black_hole(self, directions: tuple[Direction, ...], *, swallows: bool) -> AsyncIterator[None]:
        """Let nothing through in these directions while the block runs.

        Args:
            directions: Which ones.
            swallows: Whether what was sent meanwhile is lost, with its connection; else it arrives afterwards.
        """
        for direction in directions:
            self._weather[direction].swallows = swallows
            self._weather[direction].open.clear()
        try:
            yield
        finally:
            for direction in directions:
                self._weather[direction].open.set()
                self._weather[direction].swallows = False
            for carried in [each for each in self._carried if each.swallowed_bytes]:
                carried.cut()

    def _some(self, chance: random.Random, share: float) -> list[Carried]:
        found = list(self._carried)
        return chance.sample(found, max(1, round(share * len(found)))) if found else []

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # It was reset before it was taken.
        sock.setblocking(False)
        task = asyncio.create_task(self._carry(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        carried = Carried(writer, server_writer)
        self._carried[carried] = None
        pumps = [
            asyncio.create_task(self._pump(carried, Direction.UP, reader, server_writer)),
            asyncio.create_task(self._pump(carried, Direction.DOWN, server_reader, writer)),
        ]
        try:
            # Where one way ends the other one is of no use to these protocols.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._carried.pop(carried, None)
            # Before anything is waited for: the proxy may end while it is, and cancel this.
            for end in (writer, server_writer):
                end.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, carried: Carried, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        weather = self._weather[direction]
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES_MAX):
                if weather.delay_s:
                    await asyncio.sleep(weather.delay_s)
                if not weather.open.is_set():
                    self.held_bytes += len(data)
                    if weather.swallows:
                        carried.swallowed_bytes += len(data)
                        continue
                    await weather.open.wait()
                if carried.halving is direction:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    carried.cut()
                    return
                writer.write(data)
                await writer.drain()
