"""Journal entries to bytes and back.

An entry is one stream field: its name is the entry's type, its value a JSON object. A payload is always the *last*
member, `"value":<raw JSON>`, embedded as the author's serde wrote it, or `"base64":"..."` where the bytes are not
JSON. So a payload is cut out by position and never parsed: the member name `,"value":` cannot occur before it, since
inside a JSON string its quotes would be escaped and no object stands before it. (In a `"failure":{...}`, which stands
in the payload's place, it can; what holds one is parsed whole.)
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from .entries import (
    AttemptFailed,
    AttemptStarted,
    Completion,
    Entry,
    Failure,
    Headers,
    Input,
    Outcome,
    Output,
    Paused,
    Run,
    Sleep,
    StepFailed,
    Success,
    Unknown,
)
from .errors import DecodeError

_VALUE = b',"value":'
_FAILURE = b',"failure":'


def is_json(payload: bytes) -> bool:
    """Whether `payload` is one JSON value, and can stand in a journal as it is."""
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return True


def _payload_tail(payload: bytes) -> bytes:
    # A serde for JSON need not be checked twice, but bytes may come from anywhere: what is not JSON must not tear the
    # object that it stands in.
    # Nothing at all, as a handler without an argument has, is not JSON either, and not worth asking.
    if payload and is_json(payload):
        return b"%b%b}" % (_VALUE, payload)
    return b',"base64":"%b"}' % base64.b64encode(payload)


def _with_payload(head: dict[str, Any], payload: bytes) -> bytes:
    return orjson.dumps(head)[:-1] + _payload_tail(payload)


def _with_outcome(head: dict[str, Any], outcome: Outcome) -> bytes:
    match outcome:
        case Success(value):
            return _with_payload(head, value)
        case Failure(code, message, metadata):
            head["failure"] = {"code": code, "message": message, "metadata": dict(metadata)}
            return orjson.dumps(head)


def _cut(body: bytes) -> tuple[dict[str, Any], bytes | None]:
    head, found, raw = body.partition(_VALUE)
    # A failure stands where the payload would, and its metadata may have a member of any name.
    if found and _FAILURE not in head:
        if not raw.endswith(b"}"):
            raise ValueError("it ends in the middle")
        return orjson.loads(head + b"}"), raw[:-1]
    fields = orjson.loads(body)
    encoded = fields.get("base64")
    return fields, None if encoded is None else base64.b64decode(encoded, validate=True)


def _outcome(fields: dict[str, Any], value: bytes | None) -> Outcome:
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


def encode_run(entry: Run) -> tuple[bytes, bytes]:
    """`encode` for the entry that every step writes."""
    head = {"index": entry.command_index, "name": entry.name, "at": entry.at_ms, "ms": entry.duration_ms}
    return b"run", _with_outcome(head, entry.outcome)


def encode(entry: Entry) -> tuple[bytes, bytes]:
    """The type and the body of an entry, as they stand in the stream."""
    match entry:
        case Run():
            return encode_run(entry)
        case Input(at_ms, worker, headers, value):
            head: dict[str, Any] = {"at": at_ms, "worker": worker, "headers": encode_headers(headers)}
            return b"input", _with_payload(head, value)
        case Output(at_ms, outcome):
            return b"output", _with_outcome({"at": at_ms}, outcome)
        case Sleep(index, name, at_ms, duration_ms):
            return b"sleep", orjson.dumps({"index": index, "name": name, "at": at_ms, "ms": duration_ms})
        case Completion(index, at_ms, outcome):
            return b"completion", _with_outcome({"index": index, "at": at_ms}, outcome)
        case StepFailed():
            return b"step_failed", _encode_step_failed(entry)
        case AttemptStarted(at_ms, worker):
            return b"attempt", orjson.dumps({"at": at_ms, "worker": worker})
        case AttemptFailed(at_ms, error, stack, command, retry_ms):
            failed = {"at": at_ms, "error": error, "stack": stack, "command": command, "retry_ms": retry_ms}
            return b"attempt_failed", orjson.dumps(failed)
        case Paused(at_ms, reason):
            return b"paused", orjson.dumps({"at": at_ms, "reason": reason})
        case Unknown(kind, body):
            return kind.encode(), body


def _encode_step_failed(entry: StepFailed) -> bytes:
    return orjson.dumps(
        {
            "index": entry.command_index,
            "name": entry.name,
            "at": entry.at_ms,
            "failures": entry.failures,
            "elapsed_ms": entry.elapsed_ms,
            "retry_ms": entry.retry_ms,
            "error": entry.error,
        }
    )


_Fields = dict[str, Any]
_DECODERS: Mapping[bytes, Callable[[_Fields, bytes | None], Entry]] = {
    b"input": lambda f, v: Input(f["at"], f["worker"], decode_headers(f["headers"]), v if v is not None else b""),
    b"run": lambda f, v: Run(f["index"], f["name"], f["at"], f["ms"], _outcome(f, v)),
    b"sleep": lambda f, v: Sleep(f["index"], f["name"], f["at"], f["ms"]),
    b"completion": lambda f, v: Completion(f["index"], f["at"], _outcome(f, v)),
    b"step_failed": lambda f, v: StepFailed(
        f["index"], f["name"], f["at"], f["failures"], f["elapsed_ms"], f["retry_ms"], f["error"]
    ),
    b"attempt": lambda f, v: AttemptStarted(f["at"], f["worker"]),
    b"attempt_failed": lambda f, v: AttemptFailed(f["at"], f["error"], f["stack"], f["command"], f["retry_ms"]),
    b"paused": lambda f, v: Paused(f["at"], f["reason"]),
    b"output": lambda f, v: Output(f["at"], _outcome(f, v)),
}


def decode(kind: bytes, body: bytes) -> Entry:
    """The entry that `encode` wrote; `Unknown` where a newer version wrote it.

    Raises:
        DecodeError: The body is not what its type demands: the journal was edited by hand, or is damaged.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        return Unknown(kind.decode("utf-8", "replace"), body)
    try:
        return decoder(*_cut(body))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DecodeError(
            f"A journal entry of type {kind.decode('utf-8', 'replace')} cannot be read ({error!r}): {body[:200]!r}. "
            "Inspect it with `perdure journal show`; it was edited or damaged."
        ) from error
