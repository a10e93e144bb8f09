"""One connection to one Redis node that coalesces: the commands of a loop tick leave in one write.

Replies resolve futures in order. Nothing here knows what a journal is; the only law is that every command given to it
may be sent twice:

- A lost connection is made again, for ever, and what has no reply yet is sent again in order. All our scripts are
  repeatable (see `store`), which makes that safe.
- A reply that says "not now" (loading, out of memory, read-only replica, ...) is asked again after a pause.
- What would be wrong on a server that has lost what the one before it had answered is sent once, by `call_once`.
- An outage is logged once when it begins and once when it ends.

Cancelling the task that awaits a future does not reach the connection: the command is on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

from perdure.schemas.errors import FencedError, GapError, PerdureError, StoreError

from .keys import Keys
from .link import Argument, Link, Locate, ReplyError, connect, pack

logger = logging.getLogger(__name__)

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

_ELSEWHERE = ("MOVED", "ASK")
"""What a node of a cluster answers for keys that another one has."""


# A reply that does not fit what was expected fails its own call; it must not tear the connection of all others.
_UNREADABLE = (PerdureError, ValueError, LookupError, TypeError, AttributeError)


T = TypeVar("T")


class Call:
    """One command on its way. `redirections` is set where there were any."""

    __slots__ = ("convert", "future", "packed", "redirections", "sent_at")

    redirections: int

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


class Cluster(Protocol):
    """What a wire to one node of a cluster tells of what it cannot do itself: `cluster_wire.ClusterWire`."""

    def redirected(self, call: Call, text: str, asked: Wire) -> None:
        """The node says that the keys are elsewhere."""

    def returned(self, call: Call) -> None:
        """The wire has ended, and the call was not answered."""

    def troubled(self) -> None:
        """The node is away, or says that something is wrong with the cluster."""


class Wire:
    """A self-healing, coalescing connection. Use as an async context manager.

    Args:
        locate: Where the node is now; asked before each connect, so that it may move.
        scripts: Script texts by their SHA-1; loaded on each connect and when the server has forgotten them.
        name: The connection's name, for `CLIENT LIST`.
        pending_max: How many commands may be without a reply. More is a bug in the caller's own bounds: each attempt,
            sweep and admission has one at a time.
        cluster: Whom to tell what this node does not do, where it is one of a cluster.
    """

    def __init__(
        self,
        locate: Locate,
        scripts: Mapping[str, bytes],
        *,
        name: str,
        pending_max: int = 100_000,
        cluster: Cluster | None = None,
    ) -> None:
        self._locate = locate
        self._scripts = scripts
        self._name = name
        self._pending_max = pending_max
        self._cluster = cluster
        self.losses = 0
        """How many connections were lost: with each of them, what was answered before may be lost, too."""
        self._pending: deque[Call] = deque()
        self._unsent: list[Call] = []
        self._unrepeated: set[asyncio.Future[Any]] = set()
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

    @property
    def waits_s(self) -> float:
        """For how long the oldest command on its way has had no reply."""
        if not self._pending or self._loop is None:
            return 0.0
        return self._loop.time() - self._pending[0].sent_at

    @property
    def one_node(self) -> bool:
        """See `Wiring`: a node of a cluster is `ClusterWire`'s."""
        return True

    async def wait_connected(self) -> None:
        """Return once there is a connection."""
        await self._connected.wait()

    def by_slot(self, keys: Keys) -> Sequence[Wire]:
        """The wire for each slot of a namespace: this one."""
        return (self,) * keys.slots

    def of(self, key: str) -> Wire:
        """The wire for a key that belongs to no slot: this one."""
        return self

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
        self._unsent.append(Call(packed, future, convert))
        if self._link is not None:
            if len(self._unsent) >= COMMANDS_PER_WRITE:
                self._write()
            elif not self._flushing:
                self._flushing = True
                loop.call_soon(self._flush)
        return future

    def call_once(self, arguments: tuple[Argument, ...], convert: Callable[[Any], T]) -> asyncio.Future[T | None]:
        """As `call`, over the connection that there is now and no other: `None` where that is lost, or there is none.

        Raises:
            StoreError: Too many commands wait for a reply.
        """
        future: asyncio.Future[T | None] = self.call(arguments, convert)
        if self._link is None:
            future.set_result(None)
        else:
            self._unrepeated.add(future)
            future.add_done_callback(self._unrepeated.discard)
        return future

    def begin(self) -> None:
        """Connect in the background, and take calls."""
        self._loop = asyncio.get_running_loop()
        self._keeper = self._loop.create_task(self._keep(), name=f"redis-wire-{self._name}")

    def take(self, call: Call, *, asking: bool = False) -> None:
        """Send a call that another node of the cluster did not answer; `asking` where its keys are just coming here."""
        assert self._loop is not None
        if asking:
            self._unsent.append(Call(pack((b"ASKING",)), self._loop.create_future(), same))
        self._again(call)

    def hand_over(self) -> list[Call]:
        """Give up all calls without a reply, to be sent elsewhere: the node does not serve them any more."""
        self._lost()
        calls = [call for call in (*self._pending, *self._unsent) if not call.future.done()]
        self._pending, self._unsent = deque(), []
        if self._link is not None:
            self._link.deliver = same
            self._link.transport.abort()
        return calls

    async def __aenter__(self) -> Wire:
        self.begin()
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
        link.write(calls[0].packed if len(calls) == 1 else b"".join([call.packed for call in calls]))

    def _reply(self, reply: Any) -> None:
        call = self._pending.popleft()
        if isinstance(reply, ReplyError):
            self._refused(call, str(reply))
        elif not call.future.done():
            try:
                call.future.set_result(call.convert(reply))
            except _UNREADABLE as error:
                call.future.set_exception(error)

    def _refused(self, call: Call, text: str) -> None:
        code = text.partition(" ")[0]
        assert self._loop is not None
        if code == "NOSCRIPT":
            self._load_scripts()
            self._again(call)
        elif code in _NOT_NOW:
            logger.debug("Redis cannot take a command now, asking again", extra={"reply": text})
            self._loop.call_later(_NOT_NOW_PAUSE_S, self._again, call)
            self._not_now(code)
        elif code in _ELSEWHERE and self._cluster is not None and call.future not in self._unrepeated:
            self._cluster.redirected(call, text, self)
        elif call.future in self._unrepeated and code in _ELSEWHERE:
            call.future.set_result(None)
        elif not call.future.done():
            call.future.set_exception(refusal(text))

    def _not_now(self, code: str) -> None:
        if code == "READONLY" and self._link is not None:
            # It is a replica now: the primary may be found under the same name, or by who knows where it is.
            self._link.transport.abort()
        if code in ("READONLY", "CLUSTERDOWN", "MASTERDOWN") and self._cluster is not None:
            self._cluster.troubled()

    def _load_scripts(self) -> None:
        # Once in each write, however many calls in flight have met the same empty cache.
        if self._loading or self._loop is None:
            return
        self._loading = True
        for script in self._scripts.values():
            self._unsent.append(Call(pack((b"SCRIPT", b"LOAD", script)), self._loop.create_future(), same))

    def _again(self, call: Call) -> None:
        if self._loop is None:
            # Ended meanwhile: nobody may hang on an answer that cannot come any more.
            if self._cluster is None:
                call.future.cancel()
            else:
                self._cluster.returned(call)
            return
        if call.future.done():
            return
        self._unsent.append(call)
        if not self._flushing and self._link is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    link = await self._connect()
            except (OSError, TimeoutError, PerdureError) as error:
                if failures == 0:
                    logger.warning("Redis cannot be reached; work waits and goes on by itself: %s", error)
                self._trouble()
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
            self._lost()
            link.transport.abort()
            logger.warning("The connection to Redis was lost; work waits and goes on by itself")
            self._trouble()

    def _lost(self) -> None:
        self.losses += 1
        for future in list(self._unrepeated):
            if not future.done():
                future.set_result(None)

    def _trouble(self) -> None:
        if self._cluster is not None:
            self._cluster.troubled()

    async def _connect(self) -> Link:
        scripts = [(b"SCRIPT", b"LOAD", script) for script in self._scripts.values()]
        return await connect(await self._locate(), scripts, name=self._name)

    def _resume(self, link: Link) -> None:
        # What had no reply goes first and in its old order, before what was asked for since.
        self._unsent = [call for call in (*self._pending, *self._unsent) if not call.future.done()]
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
