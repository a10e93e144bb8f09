"""From fetched records to admitted invocations, claimed resumes and dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from perdure.journal.store import (
    Admission,
    Admitted,
    Claim,
    Claimed,
    Duplicate,
    Full,
    Lease,
    Queued,
    Scheduled,
    Store,
)
from perdure.schemas.entries import Outcome
from perdure.schemas.errors import DecodeError, PerdureError
from perdure.schemas.ids import InvocationId, id_of_idempotency_key, id_of_record
from perdure.schemas.limits import HEADERS_MAX
from perdure.schemas.records import Envelope, Resume, decode_invocation, decode_resume, encode_reply

from .admissions import Invoke, admission_of, first_claim, handler_for
from .application import Application
from .broker import Headers, Outgoing, Record, stray_names
from .clock import Clock
from .outbox import Outbox

logger = logging.getLogger(__name__)


class IntakeLimits(NamedTuple):
    """Bounds on what is taken.

    Attributes:
        record_bytes_max: A larger value is a dead letter.
        lease_ms: Of the first lease.
        dead_letter_topic: Where what cannot be understood goes.
    """

    record_bytes_max: int
    lease_ms: int
    dead_letter_topic: str


class Intake:
    """Takes batches of records.

    Args:
        application: Whose services the topics are.
        store: Where invocations are admitted and claimed.
        outbox: For dead letters and for replies to duplicates.
        clock: For display times.
        worker: This worker's id.
        new_token: Makes a fencing token that nobody made before.
        services: The service of each topic of new invocations.
        resumes: Likewise of each resume topic.
        limits: Bounds.
        start: Called with every claim; the attempt begins.
        settled: Called with a record and its generation once its offset may move.
        tell: Called with a caller, an outcome, and what to call once the caller knows it.
    """

    def __init__(
        self,
        application: Application,
        store: Store,
        outbox: Outbox,
        *,
        clock: Clock,
        worker: str,
        new_token: Callable[[], str],
        services: Mapping[str, str],
        resumes: Mapping[str, str],
        limits: IntakeLimits,
        start: Callable[[Claim], None],
        settled: Callable[[Record, int], None],
        tell: Callable[[str, Outcome, Callable[[], None]], None],
    ) -> None:
        self._application = application
        self._tell = tell
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._worker = worker
        self._new_token = new_token
        self._services = services
        self._resumes = resumes
        self._expected: dict[str, Lease] = {}
        self._limits = limits
        self._start = start
        self._settled = settled

    async def take(self, records: Sequence[tuple[Record, int]]) -> None:
        """Admit or claim a batch, with the generation of each record: one round trip, then everything runs.

        A record that cannot be understood becomes a dead letter and holds up nothing but its own offset.
        """
        admissions: list[tuple[Record, int, Admission, Awaitable[Admitted]]] = []
        claims: list[tuple[Record, int, Lease, Awaitable[Claim | None]]] = []
        for record, generation in records:
            try:
                if record.partition.topic in self._resumes:
                    claims.append((record, generation, *self._claim(self._resume(record))))
                else:
                    admission = self._admission(record)
                    admissions.append((record, generation, admission, self._admit(admission)))
            except DecodeError as error:
                self._bury(record, generation, str(error))
        answers = asyncio.gather(*(claim for *_, claim in claims), return_exceptions=True)
        for record, generation, admission, reply in admissions:
            try:
                self._admitted(record, generation, admission, await reply)
            except PerdureError as error:
                self._left_behind(record, error)
            finally:
                self._expected.pop(admission.token, None)
        for (record, generation, lease, _), claim in zip(claims, await answers, strict=True):
            match claim:
                case PerdureError():
                    self._left_behind(record, claim)
                case BaseException():
                    raise claim
                case _:
                    self._settled(record, generation)
                    if claim is not None:
                        self._start(claim)
            self._expected.pop(lease.token, None)

    def _left_behind(self, record: Record, error: PerdureError) -> None:
        topic, number = record.partition
        logger.error(
            "the record of %s/%d at offset %d was refused by Redis; its offset waits and Kafka delivers it again when "
            "a worker starts: %s",
            topic,
            number,
            record.offset,
            error,
        )

    async def take_again(self, records: Sequence[Record]) -> None:
        """Admit and claim again what Redis may have lost since; what it still knows changes nothing."""
        admissions: list[tuple[Admission, Awaitable[Admitted]]] = []
        claims: list[tuple[Lease, Awaitable[Claim | None]]] = []
        for record in records:
            try:
                if record.partition.topic in self._resumes:
                    # A lost claim leaves its invocation ready, and its attempt may have ended here in good faith.
                    claims.append(self._claim(self._resume(record)))
                else:
                    admission = self._admission(record)
                    admissions.append((admission, self._admit(admission)))
            except DecodeError:
                # It is a dead letter, which does not depend on Redis.
                continue
        try:
            for admission, reply in admissions:
                admitted = await reply
                if isinstance(admitted, Claimed):
                    self._start(first_claim(admission, admitted))
            for _, waiting in claims:
                claim = await waiting
                if claim is not None:
                    self._start(claim)
        finally:
            for admission, _ in admissions:
                self._expected.pop(admission.token, None)
            for lease, _ in claims:
                self._expected.pop(lease.token, None)

    def _resume(self, record: Record) -> Resume:
        _check_names(record.headers)
        if record.value is None:
            raise DecodeError("The value is null; a resume notice is a JSON object.")
        return decode_resume(record.value)

    def expected(self) -> list[Lease]:
        """Every lease that was asked for and is not answered yet. May be called in any thread."""
        # One call into C makes the list: nothing can change the dict meanwhile.
        return list(self._expected.values())

    def _admit(self, admission: Admission) -> Awaitable[Admitted]:
        self._expected[admission.token] = Lease(
            admission.invocation_id, 1, admission.token, admission.worker, admission.target
        )
        return self._store.admit(admission, lease_ms=self._limits.lease_ms)

    def _claim(self, resume: Resume) -> tuple[Lease, Awaitable[Claim | None]]:
        lease = Lease(resume.id, resume.epoch + 1, self._new_token(), self._worker)
        self._expected[lease.token] = lease
        claim = self._store.claim(
            resume.id,
            resume.epoch,
            token=lease.token,
            worker=self._worker,
            lease_ms=self._limits.lease_ms,
            at_ms=self._clock.now_ms(),
        )
        return lease, claim

    def _admission(self, record: Record) -> Admission:
        service = self._services.get(record.partition.topic)
        if service is None:
            raise DecodeError(f"No service of this worker belongs to topic {record.partition.topic}.")
        if record.value is None:
            raise DecodeError("The value is null; an invocation is a JSON object with a handler.")
        if len(record.value) > self._limits.record_bytes_max:
            raise DecodeError(
                f"The value has {len(record.value)} bytes; at most {self._limits.record_bytes_max} are allowed."
            )
        if len(record.headers) > HEADERS_MAX:
            raise DecodeError(f"The record has {len(record.headers)} headers; at most {HEADERS_MAX} are allowed.")
        _check_names(record.headers)
        envelope = decode_invocation(record.value)
        extra = tuple([(name, value.encode()) for name, value in envelope.headers.items()])
        key = _key_of(record, envelope) if handler_for(self._application, service, envelope.handler).keyed else None
        wanted = Invoke(
            service,
            envelope.handler,
            key,
            _id_of(service, key, envelope, record),
            self._clock.now_ms(),
            (*record.headers, *extra),
            envelope.payload,
            not_before_ms=envelope.not_before_ms(),
            idempotency_key=envelope.idempotency_key or "",
            source=f"{record.partition.topic}/{record.partition.number}/{record.offset}",
            caller=envelope.caller,
            reply_to=envelope.reply_to or "",
            waiter=envelope.waiter or "",
        )
        return admission_of(self._application, wanted, token=self._new_token(), worker=self._worker)

    def _admitted(self, record: Record, generation: int, admission: Admission, admitted: Admitted) -> None:
        match admitted:
            case Claimed():
                self._settled(record, generation)
                self._start(first_claim(admission, admitted))
            case Duplicate(_, outcome) if outcome is not None and admission.caller:
                # Likewise: the record is all that knows of this caller.
                self._tell(admission.caller, outcome, lambda: self._settled(record, generation))
            case Duplicate(_, outcome) if outcome is not None and admission.reply_to:
                # The offset waits for the reply: nothing in Redis remembers that this record wants one.
                reply = Outgoing(
                    admission.reply_to, admission.invocation_id.encode(), encode_reply(admission.invocation_id, outcome)
                )
                self._outbox.put(reply, lambda: self._settled(record, generation))
            case Scheduled() | Queued() | Duplicate():
                self._settled(record, generation)
            case Full():
                pass

    def _bury(self, record: Record, generation: int, reason: str) -> None:
        topic, number = record.partition
        logger.warning(
            "a record of %s/%d at offset %d goes to the dead letters: %s", topic, number, record.offset, reason
        )
        about = (
            ("perdure-reason", reason.encode("utf-8", "replace")),
            ("perdure-topic", topic.encode()),
            ("perdure-partition", str(number).encode()),
            ("perdure-offset", str(record.offset).encode()),
            ("perdure-timestamp", str(record.timestamp_ms).encode()),
        )
        headers = (*_legible(record.headers), *about)
        letter = Outgoing(self._limits.dead_letter_topic, record.key, record.value, headers)
        self._outbox.put(letter, lambda: self._settled(record, generation))


def _check_names(headers: Headers) -> None:
    if headers and (stray := stray_names(headers)):
        at, name = next(iter(stray.items()))
        raise DecodeError(f"The name of header {at}, counted from 0, is not UTF-8: {name!r}.")


def _legible(headers: Headers) -> Headers:
    """Put each name that is not UTF-8 into the value of a header of its own, so that any client can read the letter."""
    stray = stray_names(headers)
    shown = ((stray[at].decode("utf-8", "replace") if at in stray else name, v) for at, (name, v) in enumerate(headers))
    return (*shown, *((f"perdure-header-{at}-name", name) for at, name in stray.items()))


def _key_of(record: Record, envelope: Envelope) -> str | None:
    if envelope.key is not None or not record.key:
        return envelope.key
    try:
        return record.key.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"The record's key is not UTF-8, and it is the key of an object: {error}.") from error


def _id_of(service: str, key: str | None, envelope: Envelope, record: Record) -> InvocationId:
    if envelope.id is not None:
        return InvocationId(envelope.id)
    if envelope.idempotency_key is not None:
        return id_of_idempotency_key(service, envelope.handler, key, idempotency_key=envelope.idempotency_key)
    topic, partition = record.partition
    return id_of_record(
        service, key, topic=topic, partition=partition, offset=record.offset, timestamp_ms=record.timestamp_ms
    )
