"""What invocations send: calls, answers, signals, cancellations, waits for promises. Done here where that is possible.

Each is an entry of a journal and has a deadline in `due` since the moment it was written; it is acknowledged when it
has reached what it is for. So everything here may be cut off at any instant, and done twice: receivers know repeats.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from perdure.journal.store import (
    Caller,
    Claim,
    Due,
    Lease,
    ResumeDue,
    Store,
)
from perdure.schemas.commands import Attach, Call, CancelOther, PromiseWait, Resolve, Send
from perdure.schemas.entries import (
    CancelChild,
    Completion,
    Entry,
    Failure,
    Outcome,
    Signalled,
)
from perdure.schemas.errors import GapError
from perdure.schemas.ids import InvocationId

from .acknowledging import Acknowledging
from .answering import Answering
from .application import Application
from .cancelling import UNKNOWN, Cancelling
from .clock import Clock
from .invoking import Invoking
from .killing import Killing
from .outbox import Outbox
from .refusals import refusal
from .sealing import Sealer

logger = logging.getLogger(__name__)

UNKNOWN_DELAYS_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Between the looks at a callee that is on its way: as long as a record takes in a calm fleet, and no longer than a
worker may take to stop. After them it is looked for when `due` says so, every few seconds."""


class Dispatcher:
    """Sends what the journals of one worker's invocations hold.

    Args:
        application: Whose services run here.
        namespace: Of the topics.
        store: The invocations.
        outbox: For what goes through Kafka.
        clock: For display times.
        worker: This worker's id.
        new_token: Makes a fencing token that nobody made before.
        lease_ms: Of leases that are taken here.
        record_bytes_max: A larger record is read by nobody.
        room: Whether another attempt may begin here.
        start: Begins an attempt.
        on_due: Told what else is to be done.
        spawn: Runs something on the side; errors are logged there.
    """

    def __init__(
        self,
        application: Application,
        *,
        namespace: str,
        store: Store,
        outbox: Outbox,
        clock: Clock,
        worker: str,
        new_token: Callable[[], str],
        lease_ms: int,
        record_bytes_max: int,
        room: Callable[[], bool],
        start: Callable[[Claim], None],
        on_due: Callable[[Sequence[Due]], None],
        spawn: Callable[[Awaitable[object]], None],
    ) -> None:
        self._application = application
        self._store = store
        self._clock = clock
        self._worker = worker
        self._new_token = new_token
        self._lease_ms = lease_ms
        self._room = room
        self._start = start
        self._on_due = on_due
        self._spawn = spawn
        self._cancelling = Cancelling(store, clock=clock, worker=worker, on_due=on_due)
        self._killing = Killing(store, clock=clock, cancelling=self._cancelling, sealed=self._sealed, on_due=on_due)
        self._answering = Answering(store, clock=clock, worker=worker, on_due=on_due)
        self._acknowledging = Acknowledging(store, spawn=spawn)
        self._invoking = Invoking(
            application,
            namespace=namespace,
            store=store,
            outbox=outbox,
            clock=clock,
            worker=worker,
            new_token=new_token,
            lease_ms=lease_ms,
            record_bytes_max=record_bytes_max,
            room=room,
            start=start,
            answering=self._answering,
            acknowledging=self._acknowledging,
        )
        self._expected: dict[str, Lease] = {}

    def expected(self) -> list[Lease]:
        """Every lease that was asked for here and is not answered yet. May be called in any thread."""
        return [*self._expected.values(), *self._invoking.expected()]

    @property
    def claiming(self) -> int:
        """How many ready invocations are being claimed: each will need a place if it is."""
        return len(self._expected)

    def send(self, origin: InvocationId, position: int, entry: Entry, *, target: str = "") -> None:
        """Send the entry at that position of `origin`'s journal, and acknowledge it.

        Args:
            origin: Whose journal.
            position: Where the entry stands.
            entry: One of `OUTGOING`.
            target: `Service/key` of the origin's workflow, where it is known; only waits for promises need it.
        """
        if isinstance(entry, Call | Send):
            self._invoking.invoke(origin, position, entry)
        else:
            self._spawn(self._send(origin, position, entry, target))

    def resume(self, due: ResumeDue) -> bool:
        """Claim a ready invocation for this worker; whether there is room for it here and its service runs here."""
        if due.service not in self._application.services or not self._room():
            return False
        self._spawn(self._claim(due))
        return True

    async def cancel_callees(self, origin: InvocationId, told: Collection[tuple[int, InvocationId]]) -> None:
        """See `Cancelling.cancel_callees`."""
        await self._cancelling.cancel_callees(origin, told)

    def tell(self, caller: Caller, outcome: Outcome) -> asyncio.Future[bool]:
        """See `Answering.tell`."""
        return self._answering.tell(caller, outcome)

    async def kill_callees(self, origin: InvocationId) -> None:
        """See `Killing.kill_callees`."""
        await self._killing.kill_callees(origin)

    def _sealed(self, failure: Failure) -> Outcome:
        codec = self._application.payload_codec
        return failure if codec is None else Sealer(codec).seal_outcome(failure)

    async def _send(self, origin: InvocationId, position: int, entry: Entry, target: str) -> None:
        for delay_s in UNKNOWN_DELAYS_S:
            as_of = self._store.losses
            reached = await self._reach(origin, position, entry, target)
            if reached:
                self._acknowledging.put(origin, position, as_of=as_of)
            if reached is not None:
                return
            await self._clock.sleep(delay_s)

    async def _reach(self, origin: InvocationId, position: int, entry: Entry, target: str) -> bool | None:
        """Whether what is sent has reached what it is for; `None`: not yet, but it is on its way there."""
        match entry:
            case Attach():
                return await self._attach(origin, position, entry)
            case Resolve(_, at_ms, callee):
                return await self._resolve(origin, entry) or await self._gone(origin, position, callee, at_ms)
            case CancelOther(index, at_ms, callee):
                once = f"x:{origin}:{index}"
                # Repeated for others than callees, too: it asks for no answer.
                known = await self._cancelling.cancel_other(origin, position, callee, once=once)
                return known or not self._cancelling.recent(at_ms)
            case CancelChild(_, cause, callee):
                await self._cancelling.cancel_callees(origin, [(cause, callee)])
                return True
            case PromiseWait(index, _, name):
                workflow = target or await self._target_of(origin)
                try:
                    told = await self._store.await_promise(workflow, name, origin, index, position=position)
                except GapError:
                    # As with a lost call: the next attempt waits anew.
                    return False
                self._on_due(told or ())
                return told is not None
            case _:
                logger.error("entry %d of %s is nothing that can be sent: %r", position, origin, type(entry).__name__)
                return True

    async def _gone(self, origin: InvocationId, position: int, callee: InvocationId, at_ms: int) -> bool | None:
        """Whether an invocation that nobody knows will not come any more; `None` where it is on its way.

        It is where `origin` itself has invoked it: what it does to it must not overtake that.
        """
        if self._cancelling.recent(at_ms):
            for row in await self._store.read_journal(origin, entries_max=position):
                if isinstance(row.entry, Call | Send) and row.entry.invocation_id == callee:
                    return None
        return True

    async def _target_of(self, origin: InvocationId) -> str:
        summary = await self._store.read_invocation(origin)
        fields = {} if summary is None else summary.fields
        return f"{fields.get('service', '')}/{fields.get('key', '')}"

    async def _attach(self, origin: InvocationId, position: int, entry: Attach) -> bool | None:
        caller = Caller(origin, entry.command_index, position)
        status = await self._store.attach(entry.invocation_id, "", caller=str(caller))
        if status is None:
            if not await self._gone(origin, position, entry.invocation_id, entry.at_ms):
                return None
            gone = Failure(404, f"there is no invocation {entry.invocation_id}, or it is kept no longer")
            return await self._answering.tell(caller, gone)
        if status.outcome is not None:
            return await self._answering.tell(caller, status.outcome)
        return status.told

    async def _resolve(self, origin: InvocationId, entry: Resolve) -> bool:
        at_ms = self._clock.now_ms()
        if entry.name:
            signal = Signalled(entry.name, at_ms, entry.outcome)
            once = f"s:{origin}:{entry.command_index}"
            delivery = await self._store.deliver(entry.invocation_id, signal, once=once, here=self._worker)
        else:
            completion = Completion(entry.awaited_index, at_ms, entry.outcome)
            delivery = await self._store.complete_awakeable(entry.invocation_id, completion, here=self._worker)
        self._on_due(delivery.due)
        if refused := refusal(delivery, entry.invocation_id, entry.awaited_index):
            # The handler went on when it had asked for it: nobody can be told but people.
            logger.error("command %d of %s is dropped: %s", entry.command_index, origin, refused)
        return delivery.result != UNKNOWN

    async def _claim(self, due: ResumeDue) -> None:
        lease = Lease(due.invocation_id, due.epoch + 1, self._new_token(), self._worker)
        self._expected[lease.token] = lease
        try:
            claim = await self._store.claim(
                due.invocation_id,
                due.epoch,
                token=lease.token,
                worker=self._worker,
                lease_ms=self._lease_ms,
                at_ms=self._clock.now_ms(),
            )
        finally:
            del self._expected[lease.token]
        if claim is not None:
            self._start(claim)
