"""Journal entries to bytes and back.

An entry is one stream field: its name is the entry's type, its value a JSON object whose payload stands last (see
`payloads`). The commands of objects, calls, promises and signals are in `command_codec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from .command_codec import DECODERS as COMMAND_DECODERS
from .command_codec import Fields, encode_command
from .entries import (
    AttemptFailed,
    AttemptStarted,
    CancelChild,
    Cancelled,
    Completion,
    Entry,
    Event,
    Input,
    Output,
    PauseAsked,
    Paused,
    Resumed,
    Run,
    Signalled,
    Sleep,
    StepFailed,
    Unknown,
)
from .errors import DecodeError
from .ids import InvocationId
from .payloads import cut, decode_headers, encode_headers, is_json, outcome_in, with_outcome, with_payload

__all__ = ["decode", "encode", "encode_run", "is_json"]


def encode_run(entry: Run) -> tuple[bytes, bytes]:
    """`encode` for the entry that every step writes."""
    index, name, at_ms, duration_ms, outcome = entry
    return b"run", with_outcome({"index": index, "name": name, "at": at_ms, "ms": duration_ms}, outcome)


def encode(entry: Entry) -> tuple[bytes, bytes]:
    """The type and the body of an entry, as they stand in the stream."""
    match entry:
        case Run():
            return encode_run(entry)
        case Input(at_ms, worker, headers, value):
            head: Fields = {"at": at_ms, "worker": worker, "headers": encode_headers(headers)}
            return b"input", with_payload(head, value)
        case Output(at_ms, outcome):
            return b"output", with_outcome({"at": at_ms}, outcome)
        case AttemptStarted() | AttemptFailed() | StepFailed() | Paused() | CancelChild() | PauseAsked() | Resumed():
            return _encode_event(entry)
        case Sleep(index, name, at_ms, duration_ms):
            return b"sleep", orjson.dumps({"index": index, "name": name, "at": at_ms, "ms": duration_ms})
        case Completion(index, at_ms, outcome):
            return b"completion", with_outcome({"index": index, "at": at_ms}, outcome)
        case Signalled(name, at_ms, outcome):
            return b"signalled", with_outcome({"name": name, "at": at_ms}, outcome)
        case Cancelled(at_ms):
            return b"cancelled", orjson.dumps({"at": at_ms})
        case Unknown(kind, body):
            return kind.encode(), body
        case _:
            return encode_command(entry)


def _encode_event(entry: Event) -> tuple[bytes, bytes]:
    match entry:
        case AttemptStarted(at_ms, worker):
            return b"attempt", orjson.dumps({"at": at_ms, "worker": worker})
        case AttemptFailed(at_ms, error, stack, command, retry_ms):
            failed = {"at": at_ms, "error": error, "stack": stack, "command": command, "retry_ms": retry_ms}
            return b"attempt_failed", orjson.dumps(failed)
        case StepFailed():
            return b"step_failed", _encode_step_failed(entry)
        case Paused(at_ms, reason):
            return b"paused", orjson.dumps({"at": at_ms, "reason": reason})
        case CancelChild(at_ms, cause, invocation_id):
            return b"cancel_child", orjson.dumps({"at": at_ms, "cause": cause, "id": invocation_id})
        case PauseAsked(at_ms):
            return b"pause_asked", orjson.dumps({"at": at_ms})
        case Resumed(at_ms):
            return b"resumed", orjson.dumps({"at": at_ms})


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


_DECODERS: Mapping[bytes, Callable[[Fields, bytes | None], Entry]] = {
    **COMMAND_DECODERS,
    b"input": lambda f, v: Input(f["at"], f["worker"], decode_headers(f["headers"]), v if v is not None else b""),
    b"run": lambda f, v: Run(f["index"], f["name"], f["at"], f["ms"], outcome_in(f, v)),
    b"sleep": lambda f, v: Sleep(f["index"], f["name"], f["at"], f["ms"]),
    b"completion": lambda f, v: Completion(f["index"], f["at"], outcome_in(f, v)),
    b"step_failed": lambda f, v: StepFailed(
        f["index"], f["name"], f["at"], f["failures"], f["elapsed_ms"], f["retry_ms"], f["error"]
    ),
    b"attempt": lambda f, v: AttemptStarted(f["at"], f["worker"]),
    b"attempt_failed": lambda f, v: AttemptFailed(f["at"], f["error"], f["stack"], f["command"], f["retry_ms"]),
    b"paused": lambda f, v: Paused(f["at"], f["reason"]),
    b"cancel_child": lambda f, v: CancelChild(f["at"], f["cause"], InvocationId(f["id"])),
    b"signalled": lambda f, v: Signalled(f["name"], f["at"], outcome_in(f, v)),
    b"cancelled": lambda f, v: Cancelled(f["at"]),
    b"pause_asked": lambda f, v: PauseAsked(f["at"]),
    b"resumed": lambda f, v: Resumed(f["at"]),
    b"output": lambda f, v: Output(f["at"], outcome_in(f, v)),
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
        return decoder(*cut(body))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DecodeError(
            f"A journal entry of type {kind.decode('utf-8', 'replace')} cannot be read ({error!r}): {body[:200]!r}. "
            "Inspect it with `perdure journal show`; it was edited or damaged."
        ) from error
