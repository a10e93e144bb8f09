"""Payloads in the JSON of entries: how they are put in, and how they are cut out without being parsed.

A payload is always the *last* member, `"value":<raw JSON>`, embedded as the author's serde wrote it, or
`"base64":"..."` where the bytes are not JSON. So it is cut out by position: the member name `,"value":` cannot occur
before it, since inside a JSON string its quotes would be escaped and no object stands before it. (In a
`"failure":{...}`, which stands in the payload's place, it can; what holds one is parsed whole.)
"""

from __future__ import annotations

import base64
from typing import Any

import orjson

from .outcomes import Failure, Headers, Outcome, Success

SEALED = b"\x00perdure-sealed:"
"""What an application's payload codec has encoded begins with it; nothing that is JSON does."""

SEALED_TEXT = "perdure-sealed:"
"""The same of a failure's message, and then base64."""

_VALUE = b',"value":'
_FAILURE = b',"failure":'


def is_json(payload: bytes) -> bool:
    """Whether `payload` is one JSON value, and can stand in a journal as it is."""
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return True


def payload_tail(payload: bytes) -> bytes:
    """What ends an object that carries this payload."""
    # A serde for JSON need not be checked twice, but bytes may come from anywhere: what is not JSON must not tear the
    # object that it stands in.
    # Nothing at all, as a handler without an argument has, is not JSON either, and not worth asking.
    if payload and is_json(payload):
        return b"%b%b}" % (_VALUE, payload)
    return b',"base64":"%b"}' % base64.b64encode(payload)


def with_payload(head: dict[str, Any], payload: bytes) -> bytes:
    """An object of these members, and the payload last."""
    # The two of `payload_tail`, spelled out: every step's result comes by here.
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return orjson.dumps(head)[:-1] + payload_tail(payload)
    return b"%b%b%b}" % (orjson.dumps(head)[:-1], _VALUE, payload)


def with_outcome(head: dict[str, Any], outcome: Outcome) -> bytes:
    """An object of these members, and the outcome last. Adds to `head`."""
    if isinstance(outcome, Success):
        return with_payload(head, outcome.value)
    head["failure"] = {"code": outcome.code, "message": outcome.message, "metadata": dict(outcome.metadata)}
    return orjson.dumps(head)


def cut(body: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The members before the payload, and the payload; with a failure or without a payload, all members and `None`.

    Raises:
        ValueError: The body is not JSON, or ends in the middle.
    """
    head, found, raw = body.partition(_VALUE)
    # A failure stands where the payload would, and its metadata may have a member of any name.
    if found and _FAILURE not in head:
        if not raw.endswith(b"}"):
            raise ValueError("it ends in the middle")
        return orjson.loads(head + b"}"), raw[:-1]
    fields = orjson.loads(body)
    encoded = fields.get("base64")
    return fields, None if encoded is None else base64.b64decode(encoded, validate=True)


def outcome_in(fields: dict[str, Any], value: bytes | None) -> Outcome:
    """The outcome that `cut` took apart.

    Raises:
        LookupError: There is neither a payload nor a failure.
    """
    if value is not None:
        return Success(value)
    failure = fields["failure"]
    return Failure(failure["code"], failure["message"], failure.get("metadata") or {})


def encode_headers(headers: Headers) -> list[list[str]]:
    """Headers as JSON: `[name, text]`, `[name, base64, "base64"]` where the value is not UTF-8, `[name]` for none."""
    rows = []
    for name, value in headers:
        if value is None:
            rows.append([name])
            continue
        try:
            rows.append([name, value.decode()])
        except UnicodeDecodeError:
            rows.append([name, base64.b64encode(value).decode(), "base64"])
    return rows


def decode_headers(rows: list[list[str]]) -> Headers:
    """The inverse of `encode_headers`."""
    return tuple((row[0], _header_value(row)) for row in rows)


def _header_value(row: list[str]) -> bytes | None:
    match row:
        case [_]:
            return None
        case [_, text]:
            return text.encode()
        case _:
            return base64.b64decode(row[1], validate=True)
