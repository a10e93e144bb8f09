"""One TCP connection to one Redis server: bytes to replies.

Law: the only module that imports hiredis.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, cast

import hiredis

from perdure.schemas.errors import StoreError

from .redis_config import Address, unreachable

logger = logging.getLogger(__name__)

ReplyError = hiredis.ReplyError

Argument = bytes | str | int


def pack(arguments: tuple[Argument, ...]) -> bytes:
    """A command as it goes over the connection: `*<count>`, then each argument's length and bytes.

    Source: the Redis serialization protocol, RESP2.
    """
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # its stub says a tuple of one
    return packed


def unpack(packed: bytes) -> list[bytes]:
    """The arguments of a packed command."""
    reader = hiredis.Reader()
    reader.feed(packed)
    arguments: list[bytes] = reader.gets()
    return arguments


class Endpoint(NamedTuple):
    """Where and how to connect. `ssl` is `None` for plain TCP."""

    host: str
    port: int
    db: int = 0
    username: str | None = None
    password: str | None = None
    ssl: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        """Where, without the login: it may stand in a traceback."""
        return f"Endpoint({self.host}:{self.port}/{self.db})"


Locate = Callable[[], Awaitable[Endpoint]]
"""Says where a server is now; asked before each connect."""


async def connect(endpoint: Endpoint, greetings: Iterable[tuple[Argument, ...]] = (), *, name: str) -> Link:
    """Connect and log in; the answers to `greetings`, which are sent with the login, are waited for.

    Raises:
        OSError: Nobody answers.
        StoreError: The server refused something, such as the password, or closed the connection.
    """
    loop = asyncio.get_running_loop()
    place = str(Address(endpoint.host, endpoint.port))
    try:
        _, link = await loop.create_connection(
            lambda: Link(loop, place, tls=endpoint.ssl is not None), endpoint.host, endpoint.port, ssl=endpoint.ssl
        )
    except ssl.SSLError as error:
        raise StoreError(unreachable(place, error, tls=True)) from error
    login: list[tuple[Argument, ...]] = []
    if endpoint.password is not None:
        user = () if endpoint.username is None else (endpoint.username,)
        login.append((b"AUTH", *user, endpoint.password))
    if endpoint.db:
        login.append((b"SELECT", endpoint.db))
    login.append((b"CLIENT", b"SETNAME", name))
    try:
        await link.greet([*login, *greetings])
    except BaseException:
        link.transport.abort()
        raise
    return link


class Link(asyncio.Protocol):
    """One TCP connection: bytes to replies, each handed to `deliver`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, place: str, *, tls: bool) -> None:
        self.loop = loop
        self._place = place
        self._tls = tls
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport
        self.deliver: Callable[[Any], None] = self._greeted
        self._reader = hiredis.Reader()
        self._greeting: asyncio.Future[None] | None = None
        self._greetings_left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # create_connection for a stream always makes a Transport; its signature only says BaseTransport.
        self.transport = cast("asyncio.Transport", transport)
        # Without a buffer of its own uvloop sends at the call, not at the end of the loop's turn.
        self.transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        reader = self._reader
        reader.feed(data)
        while True:
            try:
                reply = reader.gets()
            # hiredis has an error of its own, and lets others through: of keys that are lists, of lists of 2^32 items.
            except (hiredis.ProtocolError, TypeError, MemoryError) as error:
                self._give_up(error)
                return
            if reply is False:
                return
            self.deliver(reply)

    def _give_up(self, error: Exception) -> None:
        why = f"What answers there does not speak Redis's protocol ({error}): is PERDURE_REDIS_URL another server's?"
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(StoreError(why))
        else:
            logger.error("%s", why)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.closed.set()
        if self._greeting is not None and not self._greeting.done():
            why = OSError("it closed the connection during the greeting") if exc is None else exc
            self._greeting.set_exception(StoreError(unreachable(self._place, why, tls=self._tls)))

    async def greet(self, commands: list[tuple[Argument, ...]]) -> None:
        """Send the connection's first commands and wait for all replies.

        Raises:
            StoreError: The server refused one, such as a wrong password.
        """
        self._greeting = self.loop.create_future()
        self._greetings_left = len(commands)
        self.send(*commands)
        await self._greeting

    def send(self, *commands: tuple[Argument, ...]) -> None:
        """Send in one write. What is sent to a lost connection is lost."""
        self.write(b"".join(pack(command) for command in commands))

    def write(self, data: bytes) -> None:
        """Send bytes. What is sent to a lost connection is lost."""
        # A closed transport of uvloop raises RuntimeError, where asyncio's own drops what it is given.
        if not self.transport.is_closing():
            self.transport.write(data)

    def _greeted(self, reply: Any) -> None:
        self._greetings_left -= 1
        greeting = self._greeting
        if greeting is None or greeting.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            greeting.set_exception(StoreError(f"Redis refused the connection: {reply}"))
        elif self._greetings_left == 0:
            greeting.set_result(None)
