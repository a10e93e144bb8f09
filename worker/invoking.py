"""Calls and sends: what journals invoke is admitted here where it can run here, and goes through Kafka elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from perdure.journal.store import Admission, Admitted, Caller, Claim, Claimed, Duplicate, Full, Lease, Store
from perdure.schemas.commands import Call, Send
from perdure.schemas.entries import Failure, Outcome
from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import InvocationId
from perdure.schemas.records import encode_call

from .acknowledging import Acknowledging
from .admissions import Invoke, admission_of, first_claim
from .answered import when_answered
from .answering import Answering
from .application import Application
from .broker import Outgoing
from .clock import Clock
from .outbox import Outbox
from .topics import service_topic

logger = logging.getLogger(__name__)


class Invoking:
    """What the journals of one worker's invocations invoke.

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
        answering: Tells callers what became of their calls.
        acknowledging: Told what has reached what it is for.
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
        answering: Answering,
        acknowledging: Acknowledging,
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
        self._answering = answering
        self._acknowledging = acknowledging
        self._expected: dict[str, Lease] = {}
        self._producing: set[tuple[InvocationId, int]] = set()

    def expected(self) -> list[Lease]:
        """Every lease that was asked for here and is not answered yet. May be called in any thread."""
        return list(self._expected.values())

    def invoke(self, origin: InvocationId, position: int, entry: Call | Send) -> None:
        """Begin what the entry at that position of `origin`'s journal invokes, and acknowledge it when it has begun."""
        caller = Caller(origin, entry.command_index, position) if isinstance(entry, Call) else None
        if entry.service not in self._application.services or not self._room():
            self._produce(origin, position, entry, caller)
            return
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
        as_of = self._store.losses
        try:
            admission = admission_of(self._application, wanted, token=self._new_token(), worker=self._worker)
        except DecodeError as error:
            self._answer(origin, position, caller, Failure(400, str(error)), as_of=as_of)
            return
        token = admission.token
        reply = self._store.admit(admission, lease_ms=self._lease_ms)
        self._expected[token] = Lease(admission.invocation_id, 1, token, self._worker, admission.target)
        reply.add_done_callback(lambda _: self._expected.pop(token))
        when_answered(reply, partial(self._admitted, origin, position, caller, admission, as_of))

    def _admitted(
        self,
        origin: InvocationId,
        position: int,
        caller: Caller | None,
        admission: Admission,
        as_of: int,
        admitted: Admitted,
    ) -> None:
        match admitted:
            case Claimed():
                self._start(first_claim(admission, admitted))
            case Duplicate(_, outcome) if outcome is not None and caller is not None:
                self._answer(origin, position, caller, outcome, as_of=as_of)
                return
            case Full():
                logger.debug("the queue of %s is full; %s tries again", admission.target, origin)
                return
            case _:
                pass
        self._acknowledging.put(origin, position, as_of=as_of)

    def _answer(
        self, origin: InvocationId, position: int, caller: Caller | None, outcome: Outcome, *, as_of: int
    ) -> None:
        def told(known: bool) -> None:
            if known:
                self._acknowledging.put(origin, position, as_of=as_of)

        if caller is None:
            told(True)
        else:
            when_answered(self._answering.tell(caller, outcome), told)

    def _produce(self, origin: InvocationId, position: int, entry: Call | Send, caller: Caller | None) -> None:
        if (origin, position) in self._producing:
            # Its copy waits already: `due` repeats it every few seconds, which during an outage is often.
            return
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
            self._too_large(origin, position, entry, caller, size)
            return
        self._producing.add((origin, position))
        key = None if entry.key is None else entry.key.encode("utf-8", "replace")
        topic = service_topic(self._namespace, entry.service)
        self._outbox.put(Outgoing(topic, key, value, entry.headers), lambda: self._produced(origin, position))

    def _too_large(
        self, origin: InvocationId, position: int, entry: Call | Send, caller: Caller | None, size: int
    ) -> None:
        if entry.service in self._application.services:
            # It needs no record once there is room for it here.
            return
        told = (
            f"The record for {entry.service}/{entry.handler} has {size} bytes; at most {self._record_bytes_max} go "
            "through Kafka to a service that runs elsewhere. Keep the data elsewhere, and send where it is."
        )
        if caller is None:
            logger.error("%s is not sent: %s", entry.invocation_id, told)
        self._answer(origin, position, caller, Failure(413, told), as_of=self._store.losses)

    def _produced(self, origin: InvocationId, position: int) -> None:
        self._producing.discard((origin, position))
        # Kafka has it, which no failover of the store changes.
        self._acknowledging.put(origin, position, as_of=None)
