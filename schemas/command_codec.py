"""The commands of `commands` to bytes and back; `codec` is the way in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from .commands import (
    LOOKUPS,
    Attach,
    Awakeable,
    Call,
    CancelOther,
    ClearAll,
    ClearState,
    Lookup,
    PromiseWait,
    Resolve,
    Send,
    SetState,
    SignalWait,
)
from .ids import InvocationId
from .payloads import decode_headers, encode_headers, outcome_in, with_outcome, with_payload

Fields = dict[str, Any]

CommandEntry = (
    Lookup
    | Call
    | Send
    | Attach
    | Awakeable
    | SignalWait
    | PromiseWait
    | Resolve
    | CancelOther
    | SetState
    | ClearState
    | ClearAll
)


def encode_command(entry: CommandEntry) -> tuple[bytes, bytes]:
    """The type and the body of a command."""
    match entry:
        case SetState(index, name, value):
            return b"set", with_payload({"index": index, "name": name}, value)
        case Lookup(kind, index, name, at_ms, eager, outcome):
            head: Fields = {"index": index, "name": name, "at": at_ms, "eager": eager}
            return kind.encode(), with_outcome(head, outcome)
        case Call():
            return b"call", with_payload(_target(entry), entry.value)
        case Send():
            return b"send", with_payload(_target(entry) | {"not_before": entry.not_before_ms}, entry.value)
        case Resolve(index, at_ms, invocation_id, awaited, name, outcome):
            head = {"index": index, "at": at_ms, "id": invocation_id, "awaited": awaited, "name": name}
            return b"resolve", with_outcome(head, outcome)
        case Attach(index, at_ms, invocation_id):
            return b"attach", orjson.dumps({"index": index, "at": at_ms, "id": invocation_id})
        case CancelOther(index, at_ms, invocation_id):
            return b"cancel_invocation", orjson.dumps({"index": index, "at": at_ms, "id": invocation_id})
        case _:
            return _encode_bare(entry)


def _encode_bare(entry: Awakeable | SignalWait | PromiseWait | ClearState | ClearAll) -> tuple[bytes, bytes]:
    match entry:
        case Awakeable(index, at_ms):
            return b"awakeable", orjson.dumps({"index": index, "at": at_ms})
        case SignalWait(index, at_ms, name):
            return b"signal", orjson.dumps({"index": index, "at": at_ms, "name": name})
        case PromiseWait(index, at_ms, name):
            return b"promise", orjson.dumps({"index": index, "at": at_ms, "name": name})
        case ClearState(index, name):
            return b"clear", orjson.dumps({"index": index, "name": name})
        case ClearAll(index):
            return b"clear_all", orjson.dumps({"index": index})


def _target(entry: Call | Send) -> Fields:
    fields: Fields = {
        "index": entry.command_index,
        "at": entry.at_ms,
        "service": entry.service,
        "handler": entry.handler,
        "id": entry.invocation_id,
    }
    if entry.key is not None:
        fields["key"] = entry.key
    if entry.idempotency_key:
        fields["idempotency_key"] = entry.idempotency_key
    if entry.headers:
        fields["headers"] = encode_headers(entry.headers)
    return fields


def _call(f: Fields, v: bytes | None) -> Call:
    return Call(
        f["index"],
        f["at"],
        f["service"],
        f["handler"],
        f.get("key"),
        InvocationId(f["id"]),
        f.get("idempotency_key", ""),
        decode_headers(f.get("headers", [])),
        v if v is not None else b"",
    )


def _send(f: Fields, v: bytes | None) -> Send:
    call = _call(f, v)
    return Send(*call[:8], f["not_before"], call.value)


def _lookup(kind: str) -> Callable[[Fields, bytes | None], Lookup]:
    return lambda f, v: Lookup(kind, f["index"], f["name"], f["at"], f["eager"], outcome_in(f, v))


DECODERS: Mapping[bytes, Callable[[Fields, bytes | None], CommandEntry]] = {
    b"call": _call,
    b"send": _send,
    b"attach": lambda f, v: Attach(f["index"], f["at"], InvocationId(f["id"])),
    b"awakeable": lambda f, v: Awakeable(f["index"], f["at"]),
    b"signal": lambda f, v: SignalWait(f["index"], f["at"], f["name"]),
    b"promise": lambda f, v: PromiseWait(f["index"], f["at"], f["name"]),
    b"resolve": lambda f, v: Resolve(
        f["index"], f["at"], InvocationId(f["id"]), f["awaited"], f["name"], outcome_in(f, v)
    ),
    b"cancel_invocation": lambda f, v: CancelOther(f["index"], f["at"], InvocationId(f["id"])),
    b"set": lambda f, v: SetState(f["index"], f["name"], v if v is not None else b""),
    b"clear": lambda f, v: ClearState(f["index"], f["name"]),
    b"clear_all": lambda f, v: ClearAll(f["index"]),
    **{kind.encode(): _lookup(kind) for kind in LOOKUPS},
}
"""By the entry's type: from the fields before the payload, and the payload."""
