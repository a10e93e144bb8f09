"""Values of Kafka records: the invocation envelope, the resume notice, the reply.

Producible by hand: an invocation is one JSON object, `{"handler": "add", "argument": {...}}` and no more is needed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import orjson
import pydantic_core
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from .codec import is_json
from .entries import Failure, Outcome, Success
from .errors import DecodeError
from .ids import InvocationId, is_invocation_id
from .limits import HEADERS_MAX, KEY_LENGTH_MAX, NAME_LENGTH_MAX, REASON_CHARACTERS_MAX, shorten

_Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH_MAX)]
_Key = Annotated[str, StringConstraints(min_length=1, max_length=KEY_LENGTH_MAX)]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_JSON_NAMES: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class Invocation(BaseModel):
    """The value of a record of `<ns>.<Service>`: which handler to run, with what.

    Attributes:
        handler: The handler's name within the service that the topic names.
        argument: Any JSON; left out for a handler that takes none.
        key: The object or workflow key; the record's own key says the same where this is left out.
        id: An invocation id (`inv_...`) of the producer's making; a second record with it is a duplicate.
        idempotency_key: A name of the producer's own for this invocation; likewise.
        not_before: Do not start before this instant (ISO 8601 with a zone, or seconds since the epoch).
        reply_to: A topic that the outcome is produced to.
        waiter: A Redis channel that is told the outcome; used by `Client`.
        headers: Passed to the handler with the record's own headers.
        base64: The argument where it is not JSON, for handlers that take bytes; instead of `argument`.
        caller: Which command of which invocation is told the outcome; written by workers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    handler: _Name
    argument: Any = None
    key: _Key | None = None
    id: str | None = None
    idempotency_key: _Key | None = None
    not_before: datetime | None = None
    reply_to: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^(?:[A-Za-z0-9_-]|\.[A-Za-z0-9_-]|\.\.[A-Za-z0-9._-])[A-Za-z0-9._-]*$", max_length=249
            ),
        ]
        | None
    ) = None
    waiter: Annotated[str, StringConstraints(pattern=rf"^\S{{1,{NAME_LENGTH_MAX}}}$")] | None = None
    headers: dict[str, str] = Field(default_factory=dict, max_length=HEADERS_MAX)
    base64: Base64Bytes | None = None
    caller: Annotated[str, StringConstraints(pattern=r"^inv_[0-3][0-9a-f]{26}:[0-9]{1,9}:[0-9]{1,9}$")] | None = None

    @model_validator(mode="after")
    def _check(self) -> Invocation:
        if self.id is not None and not is_invocation_id(self.id):
            raise ValueError(
                f"id {self.id!r} is not an invocation id (inv_ and 27 hexadecimal digits); "
                "use idempotency_key for a name of your own"
            )
        if self.id is not None and self.idempotency_key is not None:
            raise ValueError("give id or idempotency_key, not both: each of them alone says which invocation it is")
        if self.not_before is not None and self.not_before.tzinfo is None:
            raise ValueError("not_before needs a time zone, such as 2030-01-01T12:00:00Z")
        if self.base64 is not None and "argument" in self.model_fields_set:
            raise ValueError("give argument or base64, not both: each of them alone is the argument")
        return self


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Envelope(NamedTuple):
    """A valid `Invocation`, as it was read.

    `payload` is the argument as bytes for the handler's serde: its JSON, or nothing where the record has no argument.
    """

    handler: str
    payload: bytes
    key: str | None
    id: str | None
    idempotency_key: str | None
    not_before: datetime | None
    reply_to: str | None
    waiter: str | None
    headers: Mapping[str, str]
    caller: str = ""

    def not_before_ms(self) -> int:
        """`not_before` in milliseconds since the epoch, rounded up: never early; 0 where there is none."""
        return 0 if self.not_before is None else -(-(self.not_before - _EPOCH) // _MILLISECOND)


# What nearly every envelope is made of. Letters that pydantic's patterns and Python's might judge differently are left
# to pydantic.
_PLAIN_FIELDS: Final = frozenset({"handler", "argument", "id", "idempotency_key", "waiter"})
_PLAIN_WAITER: Final = re.compile(rf"[!-~]{{1,{NAME_LENGTH_MAX}}}")


def plain_envelope(fields: Mapping[str, Any]) -> Envelope | None:
    """The envelope of these fields, where a quick look tells that it is valid; `None` says nothing about it.

    For what clients send, in a third of the time that pydantic takes.

    Raises:
        DecodeError: As `checked_envelope`.
    """
    if not _PLAIN_FIELDS.issuperset(fields):
        return None
    handler = fields.get("handler")
    invocation_id = fields.get("id")
    name = fields.get("idempotency_key")
    waiter = fields.get("waiter")
    if type(handler) is not str or not 0 < len(handler) <= NAME_LENGTH_MAX:
        return None
    if invocation_id is not None and (type(invocation_id) is not str or not is_invocation_id(invocation_id)):
        return None
    if name is not None and (invocation_id is not None or type(name) is not str or not 0 < len(name) <= KEY_LENGTH_MAX):
        return None
    if waiter is not None and (type(waiter) is not str or not _PLAIN_WAITER.fullmatch(waiter)):
        return None
    return Envelope(handler, _payload(fields), None, invocation_id, name, None, None, waiter, _NO_HEADERS)


def checked_envelope(fields: Mapping[str, Any]) -> Envelope:
    """The envelope of these fields.

    Raises:
        DecodeError: They are not one; the message says where.
    """
    try:
        found = Invocation.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'envelope'}: {e['msg']}" for e in error.errors())
        raise DecodeError(f"The value is not an invocation: {shorten(problems, REASON_CHARACTERS_MAX)}.") from error
    return Envelope(
        found.handler,
        _payload(fields) if found.base64 is None else found.base64,
        found.key,
        found.id,
        found.idempotency_key,
        found.not_before,
        found.reply_to,
        found.waiter,
        found.headers,
        found.caller or "",
    )


def _payload(fields: Mapping[str, Any]) -> bytes:
    if "argument" not in fields:
        return b""
    payload = pydantic_core.to_json(fields["argument"])
    # A number beyond what a float holds is read as infinity, which is no JSON any more.
    if b"Infinity" in payload and not is_json(payload):
        raise DecodeError("The value is not an invocation: argument: it holds a number that is too large for a float.")
    return payload


def decode_invocation(value: bytes) -> Envelope:
    """Read the envelope.

    Raises:
        DecodeError: The bytes are not JSON, or not this envelope; the message says where.
    """
    try:
        fields = pydantic_core.from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise DecodeError(f"The value is not JSON: {error}.") from error
    if not isinstance(fields, dict):
        found = _JSON_NAMES.get(type(fields), "a number")
        raise DecodeError(f"The value is JSON, but {found} and not an object with a handler.")
    return plain_envelope(fields) or checked_envelope(fields)


def encode_call(
    *,
    handler: str,
    invocation_id: InvocationId,
    key: str | None,
    idempotency_key: str,
    not_before_ms: int,
    caller: str,
    argument: bytes,
) -> bytes:
    """The envelope of what a handler calls or sends; headers travel as the record's own."""
    fields: dict[str, Any] = {"handler": handler}
    if idempotency_key:
        fields["idempotency_key"] = idempotency_key
    else:
        fields["id"] = invocation_id
    if key is not None:
        fields["key"] = key
    if not_before_ms:
        fields["not_before"] = (_EPOCH + not_before_ms * _MILLISECOND).isoformat()
    if caller:
        fields["caller"] = caller
    if argument and is_json(argument):
        fields["argument"] = orjson.Fragment(argument)
    elif argument:
        fields["base64"] = base64.b64encode(argument).decode()
    return orjson.dumps(fields)


class Resume(NamedTuple):
    """The value of a record of `<ns>.<Service>.resume`: run the next attempt of this invocation.

    `epoch` is the epoch that it ends: whoever finds another one in Redis drops the record.
    """

    id: InvocationId
    epoch: int

    def encode(self) -> bytes:
        """As JSON."""
        return orjson.dumps({"id": self.id, "epoch": self.epoch})


def decode_resume(value: bytes) -> Resume:
    """Read a resume notice.

    Raises:
        DecodeError: It is not one.
    """
    try:
        fields = orjson.loads(value)
        invocation_id, epoch = fields["id"], fields["epoch"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DecodeError(f"The value is not a resume notice: {error}.") from error
    if not isinstance(invocation_id, str) or not is_invocation_id(invocation_id) or type(epoch) is not int:
        raise DecodeError("The value is not a resume notice: it needs an invocation id and an epoch.")
    return Resume(InvocationId(invocation_id), epoch)


def encode_reply(invocation_id: str, outcome: Outcome) -> bytes:
    """The value of a record of a `reply_to` topic: `{"id", "status", "value" | "base64" | "failure"}`."""
    match outcome:
        case Success(value):
            head: dict[str, Any] = {"id": invocation_id, "status": "success"}
            if value and not is_json(value):
                return orjson.dumps({**head, "base64": base64.b64encode(value).decode()})
            return orjson.dumps({**head, "value": orjson.Fragment(value) if value else None})
        case Failure(code, message, metadata):
            failure = {"code": code, "message": message, "metadata": dict(metadata)}
            return orjson.dumps({"id": invocation_id, "status": "failure", "failure": failure})
