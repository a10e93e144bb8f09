"""PURE. From "invoke this handler" to what admission writes: mode, key, and the one id of a workflow's run."""

from __future__ import annotations

from typing import NamedTuple

from perdure.journal.store import Admission, Claim, Claimed
from perdure.journal.transitions import RETENTION_MS
from perdure.schemas.entries import Headers, Input, Positioned
from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import InvocationId, id_of_workflow, place_of, place_of_object
from perdure.schemas.limits import KEY_LENGTH_MAX, QUEUE_MAX

from .application import Application
from .handler import Handler, HandlerMode, ServiceKind, unknown_handler

SERVICE_QUEUE_MAX = 1_000
"""Invocations that wait in one queue of a service: some seconds of work. What is behind them waits in Kafka, as lag."""


IDEMPOTENT_RETENTION_MS = 24 * RETENTION_MS
"""Of results with an idempotency key: as long as a producer may reasonably repeat itself."""


class Invoke(NamedTuple):
    """One invocation that somebody wants.

    Attributes:
        service: Whose handler.
        handler: Its name.
        key: Of the object or workflow; ignored by services.
        invocation_id: As it would be for a service or an object.
        at_ms: Now, for display.
        headers: For the handler.
        value: The argument's bytes.
        not_before_ms: Do not start before that; 0: at once.
        idempotency_key: Where there is one.
        source: Where it came from, for people; of records what `record_source` writes.
        caller: A `Caller` that is told the outcome, or empty.
        reply_to: A topic, or empty.
        waiter: A channel, or empty.
        queue: The name of a queue that a service's invocation waits in, one after the other; empty: in none. The id is
            in the queue's place. Ignored by objects and workflows, whose keys have queues of their own.
    """

    service: str
    handler: str
    key: str | None
    invocation_id: InvocationId
    at_ms: int
    headers: Headers
    value: bytes
    not_before_ms: int = 0
    idempotency_key: str = ""
    source: str = ""
    caller: str = ""
    reply_to: str = ""
    waiter: str = ""
    queue: str = ""


def handler_for(application: Application, service: str, name: str) -> Handler:
    """The handler, or a stand-in that fails retryably where this application has none of that name."""
    handler = application.handler(service, name)
    if handler is not None:
        return handler
    definition = application.services.get(service)
    return unknown_handler(service, name, kind=ServiceKind.SERVICE if definition is None else definition.kind)


def retention_of(handler: Handler, *, idempotent: bool) -> tuple[int, int]:
    """How long an outcome of this handler is kept, and how long its journal is, in ms.

    Args:
        handler: Which.
        idempotent: Whether the invocation has an idempotency key.
    """
    options = handler.options
    default_ms = IDEMPOTENT_RETENTION_MS if idempotent else RETENTION_MS
    if options.workflow_retention is options.idempotency_retention is options.journal_retention is None:
        # Asked of each admission, and so answered without looking further.
        return default_ms, RETENTION_MS
    # A workflow's `main` alone has the former.
    outcome_ms = options.workflow_retention_ms
    if outcome_ms is None:
        outcome_ms = options.idempotency_retention_ms
    if outcome_ms is None:
        outcome_ms = default_ms
    journal_ms = RETENTION_MS if options.journal_retention_ms is None else options.journal_retention_ms
    return max(1, journal_ms, outcome_ms), max(1, journal_ms)


def admission_of(application: Application, wanted: Invoke, *, token: str, worker: str) -> Admission:
    """What is to be written for an invocation of one of this application's services.

    Raises:
        DecodeError: The service has keys, and there is none or it is too long.
    """
    handler = handler_for(application, wanted.service, wanted.handler)
    key, invocation_id = wanted.queue or None, wanted.invocation_id
    mode, queue_max = HandlerMode.EXCLUSIVE if wanted.queue else "", SERVICE_QUEUE_MAX
    if handler.keyed:
        key = wanted.key
        if not key:
            raise DecodeError(
                f'{handler.target} needs the key of its {handler.kind}: as the record\'s key, or as "key" in its value.'
            )
        if len(key) > KEY_LENGTH_MAX:
            raise DecodeError(f"The key has {len(key)} characters; at most {KEY_LENGTH_MAX} are allowed.")
        if handler.mode == HandlerMode.MAIN:
            invocation_id = id_of_workflow(wanted.service, key)
        elif place_of(invocation_id) != place_of_object(wanted.service, key):
            raise DecodeError(
                f"The id {invocation_id} is not in the place of {wanted.service}/{key}: leave the id out, or make it "
                "for this key with perdure.schemas.ids.new_invocation_id."
            )
        mode = handler.mode if handler.mode in (HandlerMode.EXCLUSIVE, HandlerMode.MAIN) else ""
        queue_max = handler.queue_max or QUEUE_MAX
    retention_ms, journal_retention_ms = retention_of(handler, idempotent=bool(wanted.idempotency_key))
    return Admission(
        invocation_id=invocation_id,
        service=wanted.service,
        handler=wanted.handler,
        key=key,
        input=Input(wanted.at_ms, worker, wanted.headers, wanted.value),
        token=token,
        worker=worker,
        not_before_ms=wanted.not_before_ms,
        reply_to=wanted.reply_to,
        waiter=wanted.waiter,
        idempotency_key=wanted.idempotency_key,
        source=wanted.source,
        mode=mode,
        caller=wanted.caller,
        queue_max=queue_max,
        retention_ms=retention_ms,
        journal_retention_ms=journal_retention_ms,
    )


def first_claim(admission: Admission, claimed: Claimed) -> Claim:
    """What the first attempt starts from."""
    return Claim(
        lease=claimed.lease,
        service=admission.service,
        handler=admission.handler,
        key=admission.key,
        idempotency_key=admission.idempotency_key,
        failures=0,
        admitted_at_ms=admission.input.at_ms,
        entries=[Positioned(1, claimed.lease.epoch, admission.input)],
        mode=admission.mode,
        state=claimed.state,
        source=admission.source,
    )
