"""What invocations send: calls, answers, signals, cancellations, waits for promises. Done here where that is possible.

Each is an entry of a journal and has a deadline in `due` since the moment it was written; it is acknowledged when it
has reached what it is for. So everything here may be cut off at any instant, and done twice: receivers know repeats.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence

from perdure.journal.store import (
    Caller,
    Claim,
    Claimed,
    Due,
    Duplicate,
    Full,
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
from perdure.schemas.errors import DecodeError, GapError
from perdure.schemas.ids import InvocationId
from perdure.schemas.records import encode_call

from .admissions import Invoke, admission_of, first_claim
from .answering import Answering
from .application import Application
from .broker import Outgoing
from .cancelling import UNKNOWN, Cancelling
from .clock import Clock
from .killing import Killing
from .outbox import Outbox
from .refusals import refusal
from .sealing import Sealer
from .topics import service_topic

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
        self._namespace = namespace
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._worker = worker
        self._new_token = new_token
        self._lease_ms = lease_ms
        self._record_bytes_max = record_bytes_max
        self._room = room
        self._start = start
        self._on_due = on_due
        self._spawn = spawn
        self._cancelling = Cancelling(store, clock=clock, worker=worker, on_due=on_due)
        self._killing = Killing(store, clock=clock, cancelling=self._cancelling, sealed=self._sealed, on_due=on_due)
        self._answering = Answering(store, clock=clock, worker=worker, on_due=on_due)
        self._expected: dict[str, Lease] = {}
        self._sent: defaultdict[tuple[InvocationId, int | None], list[int]] = defaultdict(list)
        self._acknowledging = False
        self._producing: set[tuple[InvocationId, int]] = set()

    def expected(self) -> list[Lease]:
        """Every lease that was asked for here and is not answered yet. May be called in any thread."""
        return list(self._expected.values())

    def send(self, origin: InvocationId, position: int, entry: Entry, *, target: str = "") -> None:
        """Send the entry at that position of `origin`'s journal, and acknowledge it.

        Args:
            origin: Whose journal.
            position: Where the entry stands.
            entry: One of `OUTGOING`.
            target: `Service/key` of the origin's workflow, where it is known; only waits for promises need it.
        """
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

    async def tell(self, callers: Sequence[Caller], outcome: Outcome) -> bool:
        """Tell an outcome to those who called; whether all of them know it now, or never can."""
        told = [await self._answering.tell(caller, outcome) for caller in callers]
        return all(told)

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
                self._acknowledge(origin, position, as_of=as_of)
            if reached is not None:
                return
            await self._clock.sleep(delay_s)

    async def _reach(self, origin: InvocationId, position: int, entry: Entry, target: str) -> bool | None:
        """Whether what is sent has reached what it is for; `None`: not yet, but it is on its way there."""
        match entry:
            case Call() | Send():
                return await self._invoke(origin, position, entry)
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

    def _acknowledge(self, origin: InvocationId, position: int, *, as_of: int | None) -> None:
        self._sent[origin, as_of].append(position)
        if not self._acknowledging:
            self._acknowledging = True
            # What was sent in one turn of the loop is acknowledged together.
            asyncio.get_running_loop().call_soon(self._acknowledge_all)

    def _acknowledge_all(self) -> None:
        self._acknowledging = False
        sent, self._sent = self._sent, defaultdict(list)
        for (origin, as_of), positions in sent.items():
            self._spawn(self._store.acknowledge(origin, sent=positions, as_of=as_of))

    async def _invoke(self, origin: InvocationId, position: int, entry: Call | Send) -> bool:
        caller = Caller(origin, entry.command_index, position) if isinstance(entry, Call) else None
        if entry.service not in self._application.services or not self._room():
            return await self._produce(origin, position, entry, caller)
        wanted = Invoke(
            entry.service,
            entry.handler,
            entry.key,
            entry.invocation_id,
            self._clock.now_ms(),
            entry.headers,
            entry.value,
            not_before_ms=entry.not_before_ms if isinstance(entry, Send) else 0,
            idempotency_key=entry.idempotency_key,
            source=f"{origin}/{entry.command_index}",
            caller="" if caller is None else str(caller),
        )
        try:
            admission = admission_of(self._application, wanted, token=self._new_token(), worker=self._worker)
        except DecodeError as error:
            return caller is None or await self._answering.tell(caller, Failure(400, str(error)))
        self._expected[admission.token] = Lease(
            admission.invocation_id, 1, admission.token, self._worker, admission.target
        )
        try:
            admitted = await self._store.admit(admission, lease_ms=self._lease_ms)
        finally:
            del self._expected[admission.token]
        match admitted:
            case Claimed():
                self._start(first_claim(admission, admitted))
            case Duplicate(_, outcome) if outcome is not None and caller is not None:
                return await self._answering.tell(caller, outcome)
            case Full():
                logger.debug("the queue of %s is full; %s tries again", admission.target, origin)
                return False
            case _:
                pass
        return True

    async def _produce(self, origin: InvocationId, position: int, entry: Call | Send, caller: Caller | None) -> bool:
        """Have it go through Kafka; `True` only where it cannot, and nothing is left to do."""
        if (origin, position) in self._producing:
            # Its copy waits already: `due` repeats it every few seconds, which during an outage is often.
            return False
        value = encode_call(
            handler=entry.handler,
            invocation_id=entry.invocation_id,
            key=entry.key,
            idempotency_key=entry.idempotency_key,
            not_before_ms=entry.not_before_ms if isinstance(entry, Send) else 0,
            caller="" if caller is None else str(caller),
            argument=entry.value,
        )
        size = len(value) + sum(len(name.encode()) + len(text or b"") for name, text in entry.headers)
        if size > self._record_bytes_max:
            return await self._too_large(entry, caller, size)
        self._producing.add((origin, position))
        key = None if entry.key is None else entry.key.encode("utf-8", "replace")
        topic = service_topic(self._namespace, entry.service)
        self._outbox.put(Outgoing(topic, key, value, entry.headers), lambda: self._produced(origin, position))
        return False

    async def _too_large(self, entry: Call | Send, caller: Caller | None, size: int) -> bool:
        if entry.service in self._application.services:
            # It needs no record once there is room for it here.
            return False
        told = (
            f"The record for {entry.service}/{entry.handler} has {size} bytes; at most {self._record_bytes_max} go "
            "through Kafka to a service that runs elsewhere. Keep the data elsewhere, and send where it is."
        )
        if caller is not None:
            return await self._answering.tell(caller, Failure(413, told))
        logger.error("%s is not sent: %s", entry.invocation_id, told)
        return True

    def _produced(self, origin: InvocationId, position: int) -> None:
        self._producing.discard((origin, position))
        # Kafka has it, which no failover of the store changes.
        self._acknowledge(origin, position, as_of=None)

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
