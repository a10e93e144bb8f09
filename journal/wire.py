"""One connection to one Redis node that coalesces: the commands of a loop tick leave in one write.

Replies resolve futures in order. Nothing here knows what a journal is; the only law is that every command given to it
may be sent twice:

- A lost connection is made again, for ever, and what has no reply yet is sent again in order. All our scripts are
  repeatable (see `store`), which makes that safe.
- A reply that says "not now" (loading, out of memory, read-only replica, ...) is asked again after a pause.
- An outage is logged once when it begins and once when it ends.

Cancelling the task that awaits a future does not reach the connection: the command is on its way.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, cast

import hiredis

from perdure.schemas.errors import FencedError, GapError, PerdureError, StoreError

logger = logging.getLogger(__name__)

Argument = bytes | str | int


def pack(arguments: tuple[Argument, ...]) -> bytes:
    """A command as it goes over the connection: `*<count>`, then each argument's length and bytes.

    Source: the Redis serialization protocol, RESP2.
    """
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # its stub says a tuple of one
    return packed


_RECONNECT_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between attempts to connect; the last one is repeated. A second is short enough for "goes on by itself"."""

_CONNECT_TIMEOUT_S = 5.0
"""Longer than a busy server needs to accept, shorter than anyone wants to wait for a black hole."""

REPLY_TIMEOUT_S = 15.0
"""A connection that owes a reply for this long is given up and made anew. Above what an fsync or a script stalls."""

COMMANDS_PER_WRITE = 16
"""So many commands leave at once, without waiting for the end of the loop's turn: Redis works on the first ones while
this process still makes the next, instead of the two taking turns."""

_NOT_NOW_PAUSE_S = 0.25
"""Between repeats of a command that the server says it cannot take now."""

_NOT_NOW = ("LOADING", "OOM", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF")


# A reply that does not fit what was expected fails its own call; it must not tear the connection of all others.
_UNREADABLE = (PerdureError, ValueError, LookupError, TypeError, AttributeError)


class Endpoint(NamedTuple):
    """Where and how to connect. `ssl` is `None` for plain TCP."""

    host: str
    port: int
    db: int = 0
    username: str | None = None
    password: str | None = None
    ssl: ssl.SSLContext | None = None


T = TypeVar("T")


class _Call:
    __slots__ = ("convert", "future", "packed", "sent_at")

    def __init__(self, packed: bytes, future: asyncio.Future[Any], convert: Callable[[Any], Any]) -> None:
        self.packed = packed
        self.future = future
        self.convert = convert
        self.sent_at = 0.0


def same(reply: Any) -> Any:
    """The reply as it is."""
    return reply


def refusal(text: str) -> PerdureError:
    """The error for a server's refusal: those that our scripts raise by name, and `StoreError` for the rest."""
    code, _, rest = text.partition(" ")
    if code == "FENCED":
        return FencedError(f"Another attempt owns the invocation (epoch {rest} in the store); nothing was written.")
    if code == "GAP":
        return GapError(f"The store has only {rest} entries: it lost some that this attempt knows. Replay from there.")
    return StoreError(f"Redis refused a command: {text}")


class Wire:
    """A self-healing, coalescing connection. Use as an async context manager.

    Args:
        locate: Where the node is now; asked before each connect, so that it may move.
        scripts: Script texts by their SHA-1; loaded on each connect and when the server has forgotten them.
        name: The connection's name, for `CLIENT LIST`.
        pending_max: How many commands may be without a reply. More is a bug in the caller's own bounds: each attempt,
            sweep and admission has one at a time.
    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[Endpoint]],
        scripts: Mapping[str, bytes],
        *,
        name: str,
        pending_max: int = 100_000,
    ) -> None:
        self._locate = locate
        self._scripts = scripts
        self._name = name
        self._pending_max = pending_max
        self._pending: deque[_Call] = deque()
        self._unsent: list[_Call] = []
        self._link: Link | None = None
        self._flushing = False
        self._loading = False
        self._connected = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link is not None

    async def wait_connected(self) -> None:
        """Return once there is a connection."""
        await self._connected.wait()

    def call(self, arguments: tuple[Argument, ...], convert: Callable[[Any], T]) -> asyncio.Future[T]:
        """Send one command; the future gets `convert(reply)`, or the `refusal` of the server.

        Raises:
            StoreError: Too many commands wait for a reply.
        """
        return self.send(pack(arguments), convert)

    def send(self, packed: bytes, convert: Callable[[Any], T]) -> asyncio.Future[T]:
        """As `call`, for a command that is packed already.

        Raises:
            StoreError: Too many commands wait for a reply.
        """
        loop = self._loop
        if loop is None:
            raise StoreError("The connection to Redis is used outside its `async with` block.")
        if len(self._pending) + len(self._unsent) >= self._pending_max:
            raise StoreError(f"{self._pending_max} commands wait for Redis already; this one was not sent.")
        future: asyncio.Future[T] = loop.create_future()
        self._unsent.append(_Call(packed, future, convert))
        if self._link is not None:
            if len(self._unsent) >= COMMANDS_PER_WRITE:
                self._write()
            elif not self._flushing:
                self._flushing = True
                loop.call_soon(self._flush)
        return future

    async def __aenter__(self) -> Wire:
        self._loop = asyncio.get_running_loop()
        self._keeper = self._loop.create_task(self._keep(), name=f"redis-wire-{self._name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        link, self._link = self._link, None
        self._connected.clear()
        if link is not None:
            link.transport.abort()
            await link.closed.wait()
        self._loop = None
        for call in [*self._pending, *self._unsent]:
            if not call.future.done():
                call.future.cancel()

    def _flush(self) -> None:
        self._flushing = False
        self._write()

    def _write(self) -> None:
        link, calls = self._link, self._unsent
        if link is None or not calls:
            return
        self._unsent = []
        self._loading = False
        now = link.loop.time()
        for call in calls:
            call.sent_at = now
        self._pending.extend(calls)
        if len(calls) == 1:
            link.transport.write(calls[0].packed)
        else:
            link.transport.write(b"".join([call.packed for call in calls]))

    def _reply(self, reply: Any) -> None:
        call = self._pending.popleft()
        if isinstance(reply, hiredis.ReplyError):
            self._refused(call, str(reply))
        elif not call.future.done():
            try:
                call.future.set_result(call.convert(reply))
            except _UNREADABLE as error:
                call.future.set_exception(error)

    def _refused(self, call: _Call, text: str) -> None:
        code = text.partition(" ")[0]
        assert self._loop is not None
        if code == "NOSCRIPT":
            self._load_scripts()
            self._again(call)
        elif code in _NOT_NOW:
            logger.debug("Redis cannot take a command now, asking again", extra={"reply": text})
            self._loop.call_later(_NOT_NOW_PAUSE_S, self._again, call)
        elif not call.future.done():
            call.future.set_exception(refusal(text))

    def _load_scripts(self) -> None:
        # Once in each write, however many calls in flight have met the same empty cache.
        if self._loading or self._loop is None:
            return
        self._loading = True
        for script in self._scripts.values():
            self._unsent.append(_Call(pack((b"SCRIPT", b"LOAD", script)), self._loop.create_future(), same))

    def _again(self, call: _Call) -> None:
        if self._loop is None:
            # Ended meanwhile: nobody may hang on an answer that cannot come any more.
            call.future.cancel()
            return
        if call.future.cancelled():
            return
        self._unsent.append(call)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    link = await self._connect()
            except (OSError, TimeoutError, StoreError) as error:
                if failures == 0:
                    logger.warning("Redis cannot be reached; work waits and goes on by itself: %s", error)
                await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
                failures += 1
                continue
            if failures:
                logger.info("Redis is back")
            self._resume(link)
            failures = 1
            await self._watch(link)
            self._link = None
            self._connected.clear()
            link.transport.abort()
            logger.warning("The connection to Redis was lost; work waits and goes on by itself")

    async def _connect(self) -> Link:
        scripts = [(b"SCRIPT", b"LOAD", script) for script in self._scripts.values()]
        return await connect(await self._locate(), scripts, name=self._name)

    def _resume(self, link: Link) -> None:
        # What had no reply goes first and in its old order, before what was asked for since.
        self._unsent = [call for call in (*self._pending, *self._unsent) if not call.future.cancelled()]
        self._pending = deque()
        self._link = link
        link.deliver = self._reply
        self._connected.set()
        self._flush()

    async def _watch(self, link: Link) -> None:
        while True:
            try:
                async with asyncio.timeout(REPLY_TIMEOUT_S / 4):
                    await link.closed.wait()
                return
            except TimeoutError:
                if self._pending and link.loop.time() - self._pending[0].sent_at > REPLY_TIMEOUT_S:
                    logger.warning("Redis owes a reply for %d s; connecting anew", int(REPLY_TIMEOUT_S))
                    return


async def connect(endpoint: Endpoint, greetings: Iterable[tuple[Argument, ...]] = (), *, name: str) -> Link:
    """Connect and log in; the answers to `greetings`, which are sent with the login, are waited for.

    Raises:
        OSError: Nobody answers.
        StoreError: The server refused something, such as the password, or closed the connection.
    """
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Link(loop), endpoint.host, endpoint.port, ssl=endpoint.ssl)
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

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
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
            self._greeting.set_exception(StoreError("Redis closed the connection during the greeting."))

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
        self.transport.write(b"".join(pack(command) for command in commands))

    def _greeted(self, reply: Any) -> None:
        self._greetings_left -= 1
        greeting = self._greeting
        if greeting is None or greeting.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            greeting.set_exception(StoreError(f"Redis refused the connection: {reply}"))
        elif self._greetings_left == 0:
            greeting.set_result(None)
