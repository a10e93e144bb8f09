"""PURE. What a fetched record asks for: an envelope of a service's own topic, or a raw record of a subscribed one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from perdure.schemas.errors import DecodeError, SerdeError
from perdure.schemas.ids import InvocationId, id_of_idempotency_key, id_of_record, id_of_subscribed_record
from perdure.schemas.limits import HEADERS_BYTES_MAX, HEADERS_MAX, REASON_CHARACTERS_MAX, shorten
from perdure.schemas.records import Envelope, decode_invocation

from .admissions import Invoke, handler_for
from .application import Application
from .broker import Headers, Record, stray_names
from .record_source import source_of
from .sealing import Sealer
from .subscriptions import Subscription

DEAD_LETTER_REPLY: Final = "!dead-letter"
"""In place of a reply topic, and none of Kafka's names: a failure is to become a dead letter."""

_QUEUE_KEY_LENGTH_MAX: Final = 200
"""Longer record keys stand in the names of queues by their hash: the names become part of Redis keys."""


class Reading(Protocol):
    """How records of some topics are read."""

    def __call__(self, record: Record) -> Invoke:
        """What the record asks for.

        Raises:
            DecodeError: It cannot be understood.
        """


class EnvelopeReading:
    """Reads invocations as they are produced to the topics of services.

    Args:
        application: Whose services.
        services: The service of each topic.
        record_bytes_max: A larger value is not read.
        now_ms: The time, for display.
    """

    def __init__(
        self,
        application: Application,
        services: Mapping[str, str],
        *,
        record_bytes_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._application = application
        self._services = services
        self._record_bytes_max = record_bytes_max
        self._now_ms = now_ms

    def __call__(self, record: Record) -> Invoke:
        """See `Reading`."""
        service = self._services.get(record.partition.topic)
        if service is None:
            raise DecodeError(f"No service of this worker belongs to topic {record.partition.topic}.")
        if record.value is None:
            raise DecodeError("The value is null; an invocation is a JSON object with a handler.")
        _check(record, len(record.value), self._record_bytes_max)
        envelope = decode_invocation(record.value)
        extra = tuple([(name, value.encode()) for name, value in envelope.headers.items()])
        key = _key_of(record, envelope) if handler_for(self._application, service, envelope.handler).keyed else None
        return Invoke(
            service,
            envelope.handler,
            key,
            _id_of(service, key, envelope, record),
            self._now_ms(),
            (*record.headers, *extra),
            envelope.payload,
            not_before_ms=envelope.not_before_ms(),
            idempotency_key=envelope.idempotency_key or "",
            source=source_of(record),
            caller=envelope.caller,
            reply_to=envelope.reply_to or "",
            waiter=envelope.waiter or "",
        )


class SubscriptionReading:
    """Reads the records of subscribed topics as they are: the value is the argument.

    Args:
        application: Whose handlers are subscribed.
        subscriptions: Those of one consumer group.
        group: That group.
        record_bytes_max: A value that is larger, with its key, is not read.
        now_ms: The time, for display.
    """

    def __init__(
        self,
        application: Application,
        subscriptions: Iterable[Subscription],
        *,
        group: str,
        record_bytes_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._application = application
        self._subscriptions = {subscription.topic: subscription for subscription in subscriptions}
        self._group = group
        self._record_bytes_max = record_bytes_max
        self._now_ms = now_ms

    def __call__(self, record: Record) -> Invoke:
        """See `Reading`."""
        subscription = self._subscriptions.get(record.partition.topic)
        if subscription is None:
            raise DecodeError(f"No subscription of this worker is to topic {record.partition.topic}.")
        _check(record, len(record.value or b"") + len(record.key or b""), self._record_bytes_max)
        service, _, handler = subscription.target.partition("/")
        keyed = handler_for(self._application, service, handler).keyed
        key = _object_key(record, subscription.target) if keyed else None
        queue = "" if keyed else self._queue(subscription, record)
        (topic, number), offset, timestamp_ms, *_ = record
        invocation_id = id_of_subscribed_record(
            service,
            key or queue or None,
            group=self._group,
            topic=topic,
            partition=number,
            offset=offset,
            timestamp_ms=timestamp_ms,
        )
        return Invoke(
            service,
            handler,
            key,
            invocation_id,
            self._now_ms(),
            record.headers,
            self._kept(record.value or b""),
            source=source_of(record, with_key=True),
            reply_to=DEAD_LETTER_REPLY if subscription.on_terminal_failure == "dead-letter" else "",
            queue=queue,
        )

    def _kept(self, value: bytes) -> bytes:
        # What clients send has been through the codec already.
        codec = self._application.payload_codec
        if codec is None or not value:
            return value
        try:
            return Sealer(codec).seal(value)
        except SerdeError as error:
            raise DecodeError(shorten(str(error), REASON_CHARACTERS_MAX)) from error

    def _queue(self, subscription: Subscription, record: Record) -> str:
        topic, number = record.partition
        match subscription.ordering:
            case "partition":
                return f"{self._group}/{topic}/{number}"
            case "key" if record.key is not None:
                return f"{self._group}/{topic}/{_legible_key(record.key)}"
            case _:
                return ""


def _check(record: Record, record_bytes: int, record_bytes_max: int) -> None:
    if record_bytes > record_bytes_max:
        raise DecodeError(f"The value has {record_bytes} bytes; at most {record_bytes_max} are allowed.")
    if len(record.headers) > HEADERS_MAX:
        raise DecodeError(f"The record has {len(record.headers)} headers; at most {HEADERS_MAX} are allowed.")
    check_names(record.headers)
    headers_bytes = sum(len(name.encode()) + len(value or b"") for name, value in record.headers)
    if headers_bytes > HEADERS_BYTES_MAX:
        raise DecodeError(f"The record's headers have {headers_bytes} bytes; at most {HEADERS_BYTES_MAX} are allowed.")


def check_names(headers: Headers) -> None:
    """Refuse names of headers that are not UTF-8, which nothing could hand on.

    Raises:
        DecodeError: One is not.
    """
    if headers and (stray := stray_names(headers)):
        at, name = next(iter(stray.items()))
        raise DecodeError(f"The name of header {at}, counted from 0, is not UTF-8: {name!r}.")


def _key_of(record: Record, envelope: Envelope) -> str | None:
    if envelope.key is not None or not record.key:
        return envelope.key
    return _text(record.key)


def _object_key(record: Record, target: str) -> str:
    if not record.key:
        raise DecodeError(f"The record has no key, and {target} needs one: it is the key of its object or workflow.")
    return _text(record.key)


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"The record's key is not UTF-8, and it is the key of an object: {error}.") from error


def _legible_key(key: bytes) -> str:
    if len(key) <= _QUEUE_KEY_LENGTH_MAX:
        try:
            return f"key:{key.decode()}"
        except UnicodeDecodeError:
            pass
    return f"hash:{hashlib.sha256(key).hexdigest()}"


def _id_of(service: str, key: str | None, envelope: Envelope, record: Record) -> InvocationId:
    if envelope.id is not None:
        return InvocationId(envelope.id)
    if envelope.idempotency_key is not None:
        return id_of_idempotency_key(service, envelope.handler, key, idempotency_key=envelope.idempotency_key)
    topic, partition = record.partition
    return id_of_record(
        service, key, topic=topic, partition=partition, offset=record.offset, timestamp_ms=record.timestamp_ms
    )
