"""A dispatcher over the store in memory, for the tests of what it sends."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import (
    Admission,
    Claim,
    Claimed,
    Due,
    Lease,
)
from perdure.schemas.commands import Call, Send
from perdure.schemas.entries import (
    Completion,
    Entry,
    Input,
    Outcome,
    Output,
    Success,
)
from perdure.schemas.ids import InvocationId, id_of_call, new_invocation_id
from perdure.schemas.limits import RECORD_BYTES_MAX
from perdure.worker.application import app
from perdure.worker.clock import system_random
from perdure.worker.dispatch import Dispatcher
from perdure.worker.outbox import Outbox
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow
from tests.waiting import wait_until
from tests.worker.attempt_stage import DAY_MS, LEASE_MS, SkippingClock
from tests.worker.scripted_broker import ScriptedBroker

ONE = Success(b"1")
UNKNOWN = InvocationId("inv_3ff" + "0" * 24)

TURNS = 6
"""Of the loop, in which one thing leads to the next without a task for it."""


class Hurrying(SkippingClock):
    """A clock that does not sleep, but remembers for how long it was asked to; `meanwhile` happens instead."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self.slept.append(seconds)
        await asyncio.sleep(0)
        if self.meanwhile is not None:
            await self.meanwhile()


class Watched:
    """A store in memory that keeps what is acknowledged, and can be made to answer later."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self.losses = 0
        self.acknowledged: list[tuple[InvocationId, list[int]]] = []
        self.asked: set[asyncio.Future[Any]] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    async def acknowledge(self, invocation_id: InvocationId, *, as_of: int | None = None, **what: Any) -> Any:
        """See `Store.acknowledge`."""
        if as_of not in (None, self.losses):
            return None
        self.acknowledged.append((invocation_id, list(what.get("sent", ()))))
        return await self._memory.acknowledge(invocation_id, **what)

    def admit(self, admission: Any, *, lease_ms: int) -> asyncio.Future[Any]:
        """See `Store.admit`."""

        async def admitted() -> Any:
            await self.gate.wait()
            return await self._memory.admit(admission, lease_ms=lease_ms)

        return self._asked(admitted())

    def answer(self, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """See `Store.answer`."""
        return self._asked(self._memory.answer(*args, **kwargs))

    def _asked(self, answer: Awaitable[Any]) -> asyncio.Future[Any]:
        asked = asyncio.ensure_future(answer)
        self.asked.add(asked)
        asked.add_done_callback(self.asked.discard)
        return asked

    async def claim(self, *args: Any, **kwargs: Any) -> Any:
        """See `Store.claim`."""
        await self.gate.wait()
        return await self._memory.claim(*args, **kwargs)


def definitions() -> list[Any]:
    """A service, an object and a workflow, none of whose handlers is ever run."""
    service, thing, flow = Service("S"), VirtualObject("O", queue_max=1), Workflow("W")

    @service.handler()
    async def h(ctx: Any, argument: Any) -> None:
        raise AssertionError("nothing runs here")

    @thing.handler("change")
    async def change(ctx: Any, argument: Any) -> None:
        raise AssertionError("nothing runs here")

    @flow.main()
    async def main(ctx: Any, argument: Any) -> None:
        raise AssertionError("nothing runs here")

    return [service, thing, flow]


class Scene:
    """A dispatcher, invocations whose journals it is given entries of, and what came of them."""

    def __init__(self) -> None:
        self.clock = Hurrying()
        self.memory = MemoryStore(self.clock, slots=4)
        self.store = Watched(self.memory)
        self.broker = ScriptedBroker()
        self.outbox = Outbox(self.broker, clock=self.clock)
        self.room = True
        self.claims: list[Claim] = []
        self.due: list[Due] = []
        self._tokens = itertools.count(1)
        self._seqs: defaultdict[InvocationId, itertools.count[int]] = defaultdict(lambda: itertools.count(1))
        self._tasks: set[asyncio.Task[None]] = set()
        self._lengths: dict[InvocationId, int] = {}
        self.dispatcher = Dispatcher(
            app(definitions()),
            namespace="ns",
            store=self.store,
            outbox=self.outbox,
            clock=self.clock,
            worker="me",
            new_token=lambda: f"token {next(self._tokens)}",
            lease_ms=LEASE_MS,
            record_bytes_max=RECORD_BYTES_MAX,
            room=lambda: self.room,
            start=self.claims.append,
            on_due=self.due.extend,
            spawn=self.spawn,
        )

    def spawn(self, work: Awaitable[object]) -> None:
        """Run it on the side."""

        async def running() -> None:
            await work

        task = asyncio.create_task(running())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()

    async def settle(self) -> None:
        """Return when nothing runs on the side, and what was sent is acknowledged."""
        # Answers begin at the end of a turn, and acknowledgements at the end of another.
        for _ in range(TURNS):
            await wait_until(lambda: not (self._tasks or self.store.asked))
            await asyncio.sleep(0)
        await wait_until(lambda: not self._tasks)

    async def admitted(
        self, service: str = "S", handler: str = "h", key: str | None = None, *, mode: str = "", **fields: Any
    ) -> Lease:
        """An invocation that another worker runs."""
        invocation_id = fields.pop("invocation_id", None) or new_invocation_id(service, key, system_random())
        first = Input(self.clock.now_ms(), "test", (), b"null")
        admission = Admission(
            invocation_id, service, handler, key, first, "their token", "another", mode=mode, **fields
        )
        admitted = await self.memory.admit(admission, lease_ms=10 * DAY_MS)
        self._lengths[invocation_id] = 1
        return admitted.lease if isinstance(admitted, Claimed) else Lease(invocation_id, 0, "", "")

    async def write(self, lease: Lease, *entries: Entry) -> int:
        """Append to a journal; the position of the first entry."""
        length = len(await self.memory.read_journal(lease.invocation_id))
        await self.memory.append(
            lease, entries, after=length, seq=next(self._seqs[lease.invocation_id]), progress=False
        )
        return length + 1

    async def send(self, lease: Lease, entry: Entry, **where: str) -> int:
        """Append an entry, and dispatch it; its position."""
        position = await self.write(lease, entry)
        self.dispatcher.send(lease.invocation_id, position, entry, **where)
        await self.settle()
        return position

    async def complete(self, lease: Lease, outcome: Outcome) -> Any:
        """End an invocation."""
        length = len(await self.memory.read_journal(lease.invocation_id))
        return await self.memory.complete(
            lease,
            [Output(1, outcome)],
            after=length,
            seq=next(self._seqs[lease.invocation_id]),
            retention_ms=DAY_MS,
            journal_retention_ms=DAY_MS,
        )

    async def owed(self, lease: Lease) -> int:
        """How many entries of a journal are not acknowledged."""
        summary = await self.memory.read_invocation(lease.invocation_id)
        assert summary is not None
        return int(summary.fields.get("outgoing", 0))

    async def entries(self, invocation_id: InvocationId) -> list[Entry]:
        """A journal past its input."""
        return [row.entry for row in await self.memory.read_journal(invocation_id, after=1)]

    async def answers(self, lease: Lease) -> list[tuple[int, Outcome]]:
        """What a journal has been told: command indices and outcomes."""
        found = await self.entries(lease.invocation_id)
        return [(entry.command_index, entry.outcome) for entry in found if isinstance(entry, Completion)]

    async def fields(self, invocation_id: InvocationId) -> dict[str, str]:
        """What the store holds of an invocation."""
        summary = await self.memory.read_invocation(invocation_id)
        assert summary is not None
        return summary.fields

    async def produce(self) -> None:
        """Let the outbox work until it is empty."""
        task = asyncio.create_task(self.outbox.run())
        await self.outbox.emptied()
        task.cancel()
        await asyncio.wait([task])
        await self.settle()

    def call(self, lease: Lease, index: int = 0, *, service: str = "S", handler: str = "h", **fields: Any) -> Call:
        """A call of a handler."""
        key = fields.get("key")
        callee = fields.get("invocation_id") or id_of_call(
            service, key, parent=lease.invocation_id, command_index=index
        )
        headers = fields.get("headers", ())
        idempotency_key = fields.get("idempotency_key", "")
        return Call(index, self.clock.now_ms(), service, handler, key, callee, idempotency_key, headers, b'"x"')

    def sending(self, lease: Lease, index: int = 0, *, not_before_ms: int = 0, **fields: Any) -> Send:
        """A send to a handler."""
        call = self.call(lease, index, **fields)
        return Send(*call[:8], not_before_ms, call.value)
