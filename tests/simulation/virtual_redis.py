"""A Redis that can be cut off, that answers late, and that forgets: the store in memory behind a simulated network.

Every transition that arrives is logged. A failover is the same log played again up to some place, which is never
before what a barrier (`WAITAOF`) has vouched for.
"""

from __future__ import annotations

import random
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from perdure.journal.memory_store import MemoryStore
from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId

from .virtual_loop import VirtualClock, VirtualLoop

DELAY_S = 0.0004
"""What a message takes at least, each way; a tenth of all take up to `SLOW_S` more."""

SLOW_S = 0.03
FSYNC_S = 0.3
"""How long a barrier waits for the disk at worst."""

TRAP_S = 0.003
"""A moment: as long as an answer and what follows it are on their way."""

RECONNECT_S = 0.05
LATE_S = 2.0
"""How late a command may arrive over a connection that was given up: it lay in a buffer on its way."""


class Executed(NamedTuple):
    """One command as the server executed it."""

    at_ms: int
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class StoreClock:
    """The server's clock: it may jump ahead, and stands still while a log is played again."""

    def __init__(self, machine: VirtualClock) -> None:
        self.ahead_ms = 0
        self.replaying_ms: int | None = None
        self._machine = machine

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self._machine.now_ms() + self.ahead_ms if self.replaying_ms is None else self.replaying_ms


class Cuttable(Protocol):
    """Another connection: `virtual_barrier.VirtualBarrier`."""

    def cut(self) -> None:
        """Break it."""


StoreMaker = Callable[[StoreClock, Callable[[str, bytes], None]], MemoryStore]


class VirtualRedis:
    """The server.

    Args:
        loop: What it runs on.
        clock: Its time.
        make: Makes an empty store.
        chance: For delays.
        watch: Told each command, what it answered (or raised), after it was executed.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        clock: StoreClock,
        *,
        make: StoreMaker,
        chance: random.Random,
        watch: Callable[[Executed, object], None],
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.chance = chance
        self.down = False
        self.links: list[StoreLink] = []
        self.barriers: list[Cuttable] = []
        self.log: list[Executed] = []
        self.durable = 0
        self.trap: tuple[int, Callable[[], None]] | None = None
        self._executed = 0
        self._make = make
        self._watch = watch
        self._muted = False
        self.store = make(clock, self._publish)

    def execute(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, PerdureError | None]:
        """Execute a command now; its answer or its error."""
        command = Executed(self.clock.now_ms(), name, args, kwargs)
        if name not in READS:
            self.log.append(command)
        answer, error = self._apply(command)
        self._watch(command, error or answer)
        self._executed += 1
        if self.trap is not None and self._executed >= self.trap[0]:
            spring, self.trap = self.trap[1], None
            self.loop.call_later(TRAP_S * self.chance.random(), spring)
        return answer, error

    def after(self, commands: int, spring: Callable[[], None]) -> None:
        """Have something happen in the moment after so many more commands, unless something else waits for one."""
        if self.trap is None:
            self.trap = (self._executed + commands, spring)

    def fail_over(self, kept: float) -> int:
        """Forget the newest writes: of those that no barrier vouches for, that part is kept. How many were lost."""
        length = self.durable + int((len(self.log) - self.durable) * kept)
        lost, self.log = len(self.log) - length, self.log[:length]
        self.store = self._make(self.clock, self._publish)
        self._muted = True
        for command in self.log:
            self.clock.replaying_ms = command.at_ms
            self._apply(command)
        self.clock.replaying_ms = None
        self._muted = False
        return lost

    def stop(self) -> None:
        """Answer nobody; every connection is cut."""
        self.down = True
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection."""
        for link in self.links:
            link.cut()
        for barrier in self.barriers:
            barrier.cut()

    def delay_s(self) -> float:
        """How long a message is on its way."""
        luck = self.chance.random()
        return DELAY_S + (SLOW_S * self.chance.random() if luck < 0.1 else DELAY_S * luck)

    def _apply(self, command: Executed) -> tuple[object, PerdureError | None]:
        before = events._get_running_loop()
        events._set_running_loop(self.loop)
        try:
            done = getattr(self.store, command.name)(*command.args, **command.kwargs)
            error = done.exception()
            return (None if error else done.result()), error
        finally:
            events._set_running_loop(before)

    def _publish(self, channel: str, message: bytes) -> None:
        if self._muted:
            return
        for link in self.links:
            link.hear(channel, message)


READS = frozenset(
    {
        "read_journal",
        "read_invocation",
        "read_state",
        "read_names",
        "read_value",
        "peek_promise",
        "description",
        "memory",
    }
)
"""What changes nothing."""


class _Call:
    __slots__ = ("args", "future", "kwargs", "name", "once")

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], future: Any) -> None:
        self.name, self.args, self.kwargs, self.future, self.once = name, args, kwargs, future, False


class StoreLink:
    """A process's connection, which behaves as `perdure.journal.wire.Wire` does; its methods are those of `Store`.

    Args:
        server: At the other end.
        loop: The process.
        channel: Of its hints.
        on_hint: Told each one.
        on_gap: Told when hints may have been lost.
    """

    def __init__(
        self,
        server: VirtualRedis,
        loop: VirtualLoop,
        *,
        channel: str = "",
        on_hint: Callable[[bytes], None] | None = None,
        on_gap: Callable[[], None] | None = None,
    ) -> None:
        self.blocked = False
        self._server = server
        self._loop = loop
        self._channel, self._on_hint, self._on_gap = channel, on_hint, on_gap
        self._connection = 1
        self._up = not server.down
        self._unsent: list[_Call] = []
        self._pending: deque[_Call] = deque()
        self._flushing = False
        self._last_arrival_s = self._last_reply_s = 0.0
        server.links.append(self)
        if server.down:
            # A process may begin during an outage: it connects when it can.
            server.loop.call_later(RECONNECT_S, self._reconnect, self._connection)

    @property
    def slots(self) -> int:
        """See `Store.slots`."""
        return self._server.store.slots

    @property
    def losses(self) -> int:
        """See `Store.losses`."""
        return self._connection

    def acknowledge(self, invocation_id: InvocationId, *, as_of: int | None = None, **what: Any) -> Any:
        """See `Store.acknowledge`."""
        if as_of is not None and (as_of != self._connection or not self._up):
            future = self._loop.create_future()
            future.set_result(None)
            return future
        return self._call("acknowledge", (invocation_id,), what, once=as_of is not None)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, args, kwargs)

        # Found at once the next time.
        self.__dict__[name] = call
        return call

    def listen(self, on_hint: Callable[[bytes], None], on_gap: Callable[[], None]) -> None:
        """Name those who are told of hints."""
        self._on_hint, self._on_gap = on_hint, on_gap

    def hear(self, channel: str, message: bytes) -> None:
        """The server published something."""
        if channel == self._channel and self._up and self._on_hint is not None:
            connection = self._connection
            self._server.loop.call_later(self._server.delay_s(), self._heard, connection, message)

    def _heard(self, connection: int, message: bytes) -> None:
        if connection == self._connection and self._on_hint is not None and not self._loop.dead:
            self._loop.call_soon(self._on_hint, message)

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, once: bool = False) -> Any:
        future = self._loop.create_future()
        call = _Call(name, args, kwargs, future)
        call.once = once
        self._unsent.append(call)
        if not self._flushing and self._up:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._flushing = False
        if not self._up or not self._unsent:
            return
        calls, self._unsent = self._unsent, []
        self._pending.extend(calls)
        server = self._server
        arrival_s = max(self._last_arrival_s, server.loop.time() + server.delay_s())
        self._last_arrival_s = arrival_s
        server.loop.call_at(arrival_s, self._arrive, self._connection, calls)

    def _arrive(self, connection: int, calls: list[_Call]) -> None:
        server = self._server
        if server.down:
            return
        if connection != self._connection:
            self._arrive_late(calls)
            return
        if self._loop.dead and server.chance.random() < 0.5:
            # It died while it wrote: what left before it did arrives.
            calls = calls[: server.chance.randrange(len(calls) + 1)]
        answers = [(call, *server.execute(call.name, call.args, call.kwargs)) for call in calls]
        reply_s = max(self._last_reply_s, server.loop.time() + server.delay_s())
        self._last_reply_s = reply_s
        server.loop.call_at(reply_s, self._reply, connection, answers)

    def _arrive_late(self, calls: list[_Call]) -> None:
        """They were on their way when the connection was given up: lost, or executed although nobody hears of it."""
        server = self._server
        luck = server.chance.random()
        if luck < 0.4:
            return
        if luck < 0.6:
            server.loop.call_later(server.chance.random() * LATE_S, self._execute_unheard, calls)
        else:
            self._execute_unheard(calls)

    def _execute_unheard(self, calls: list[_Call]) -> None:
        if not self._server.down:
            for call in calls:
                self._server.execute(call.name, call.args, call.kwargs)

    def _reply(self, connection: int, answers: list[tuple[_Call, object, PerdureError | None]]) -> None:
        if connection == self._connection and not self._loop.dead:
            self._loop.call_soon(self._answered, connection, answers)

    def _answered(self, connection: int, answers: list[tuple[_Call, object, PerdureError | None]]) -> None:
        if connection != self._connection:
            # Cut while the process stood still: it finds its connection dead, and asks again.
            return
        for call, answer, error in answers:
            assert self._pending.popleft() is call, "replies come in order"
            if call.future.done():
                continue
            if error is None:
                call.future.set_result(answer)
            else:
                call.future.set_exception(error)

    def cut(self) -> None:
        """Break the connection; it is made anew, unless it is blocked or the server is down."""
        self._connection += 1
        self._up = False
        if not self._loop.dead:
            self._server.loop.call_later(
                RECONNECT_S * (1 + self._server.chance.random()), self._reconnect, self._connection
            )

    def _reconnect(self, connection: int) -> None:
        if connection != self._connection or self._loop.dead:
            return
        if self.blocked or self._server.down:
            self._server.loop.call_later(RECONNECT_S, self._reconnect, connection)
            return
        self._loop.call_soon(self._resume, connection)

    def _resume(self, connection: int) -> None:
        if connection != self._connection:
            return
        self._up = True
        waiting = [*self._pending, *self._unsent]
        for call in waiting:
            if call.once and not call.future.done():
                call.future.set_result(None)
        self._unsent = [call for call in waiting if not call.future.done()]
        self._pending.clear()
        self._flush()
        if self._on_gap is not None:
            self._on_gap()

    def close(self) -> None:
        """The process is gone."""
        self._server.links.remove(self)
