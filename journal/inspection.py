"""PURE. Journals and invocations as people and programs read them: views, table rows, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from perdure.schemas.codec import decode, encode, is_json
from perdure.schemas.commands import (
    Attach,
    Call,
    CancelOther,
    Lookup,
    Resolve,
    Send,
)
from perdure.schemas.entries import (
    AttemptFailed,
    AttemptStarted,
    CancelChild,
    Command,
    Completion,
    Entry,
    Failure,
    Input,
    Outcome,
    Output,
    Paused,
    Positioned,
    Sleep,
    StepFailed,
    Success,
    Unknown,
)
from perdure.schemas.errors import DecodeError
from perdure.schemas.payloads import SEALED, SEALED_TEXT

from .store import Summary

PREVIEW_BYTES_MAX: Final = 80
"""Bytes of a payload in a table's cell: a line of a terminal."""

JSON_PREVIEW_BYTES_MAX: Final = 100_000
"""Bytes of a payload in JSON output: a whole one in all but odd cases."""


class InvocationView(NamedTuple):
    """One invocation. Times are milliseconds since the epoch by Redis's clock; `None` where there is none."""

    id: str
    service: str
    handler: str
    key: str | None
    status: str
    attempts: int
    failures: int
    entries: int
    worker: str | None
    admitted_at_ms: int | None
    completed_at_ms: int | None
    idempotency_key: str | None
    source: str | None
    last_failure: str | None
    outcome: Outcome | None

    @property
    def target(self) -> str:
        """`Service/handler`."""
        return f"{self.service}/{self.handler}"

    def to_json(self) -> dict[str, Any]:
        """As values of JSON; `result` or `failure` only where there is an outcome."""
        fields = self._asdict()
        outcome = fields.pop("outcome")
        return fields | ({} if outcome is None else outcome_json(outcome))


class Row(NamedTuple):
    """One entry of a journal for a table. Empty strings where a column does not apply.

    `attempt` is the attempt that wrote the entry, which is its epoch; 0 before the first one.
    """

    position: int
    attempt: int
    type: str
    name: str
    at_ms: int | None
    duration_ms: int | None
    result: str
    failure: str


def view_of(summary: Summary) -> InvocationView:
    """Read an invocation's hash; what is missing or damaged in it reads as nothing."""
    fields = summary.fields
    return InvocationView(
        id=summary.invocation_id,
        service=fields.get("service", ""),
        handler=fields.get("handler", ""),
        key=fields.get("key"),
        status=fields.get("status", ""),
        attempts=_number(fields, "epoch") or 0,
        failures=_number(fields, "failures") or 0,
        entries=_number(fields, "length") or 0,
        worker=fields.get("worker"),
        admitted_at_ms=_number(fields, "admitted_at"),
        completed_at_ms=_number(fields, "completed_at"),
        idempotency_key=fields.get("idempotency_key"),
        source=_place(fields.get("source")),
        last_failure=fields.get("last_failure"),
        outcome=_recorded(fields.get("output")),
    )


def rows_of(entries: Iterable[Positioned], *, bytes_max: int = PREVIEW_BYTES_MAX) -> list[Row]:
    """Return one row an entry, in the journal's order.

    Args:
        entries: Oldest first. A completion is named after its command where that is among them.
        bytes_max: Longest preview of a payload or a failure.
    """
    return Journal(bytes_max=bytes_max).add(entries)


class Journal:
    """A journal that is read piece by piece: remembers how its commands are called."""

    def __init__(self, *, bytes_max: int = PREVIEW_BYTES_MAX) -> None:
        self.length = 0
        """The position of the last entry that was added."""
        self._names: dict[int, str] = {}
        self._bytes_max = bytes_max

    def add(self, entries: Iterable[Positioned]) -> list[Row]:
        """Return the rows of further entries, oldest first."""
        rows = [_row(positioned, self._names, self._bytes_max) for positioned in entries]
        self.length = rows[-1].position if rows else self.length
        return rows


def entry_json(positioned: Positioned) -> dict[str, Any]:
    """Return one entry as values of JSON, with its payload as it is."""
    position, epoch, entry = positioned
    head: dict[str, Any] = {"position": position, "attempt": epoch, "type": type_of(positioned)}
    match entry:
        case Unknown(_, body):
            return head | {"body": payload_json(body)}
        case Lookup():
            fields = entry._replace(type="")._asdict()
            del fields["type"]
        case _:
            fields = entry._asdict()
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        match name:
            case "outcome":
                shown |= outcome_json(value)
            case "value":
                shown["argument" if isinstance(entry, Input | Call | Send) else "value"] = payload_json(value)
            case "headers":
                shown["headers"] = [
                    [key, None if raw is None else raw.decode("utf-8", "replace")] for key, raw in value
                ]
            case _:
                shown[{"command_index": "index"}.get(name, name)] = value
    return head | shown


def _place(source: str | None) -> str | None:
    """Of a record's place `topic/partition/offset`, without what is kept behind it."""
    return source and "/".join(source.split("/")[:3])


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")


def type_of(positioned: Positioned) -> str:
    """The entry's type as it stands in the stream, such as `run` or `attempt_failed`."""
    return encode(positioned.entry)[0].decode()


def preview(payload: bytes, *, bytes_max: int = PREVIEW_BYTES_MAX) -> str:
    """Return the beginning of a payload as one line of text; where it was cut the line says how long it is.

    What an application's payload codec has sealed is called that, and how long it is.
    """
    if payload.startswith(SEALED):
        return f"(sealed, {len(payload) - len(SEALED):,} bytes)"
    text = payload[:bytes_max].decode("utf-8", "ignore" if len(payload) > bytes_max else "replace")
    line = "".join(character if character.isprintable() else "·" for character in text)
    return line if len(payload) <= bytes_max else f"{line}… ({len(payload):,} bytes)"


def payload_json(payload: bytes) -> Any:
    """Return a payload for JSON output: its own value, `None` where empty, a preview where it is not JSON or huge."""
    if not payload:
        return None
    if len(payload) > JSON_PREVIEW_BYTES_MAX or not is_json(payload):
        return preview(payload, bytes_max=JSON_PREVIEW_BYTES_MAX)
    return orjson.Fragment(payload)


def duration_text(duration_ms: int) -> str:
    """Return a duration for people: `5 ms`, `2.5 s`, `3 min 20 s`, `2 h 5 min`, `40 d 2 h`."""
    if duration_ms < 1_000:
        return f"{duration_ms} ms"
    if duration_ms < 60_000:
        return f"{duration_ms / 1000:.3g} s"
    seconds = duration_ms // 1_000
    for unit_s, unit, smaller_s, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit_s:
            rest = seconds % unit_s // smaller_s
            return f"{seconds // unit_s} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"


def _row(positioned: Positioned, names: dict[int, str], bytes_max: int) -> Row:
    position, epoch, entry = positioned
    # Every entry has some of these and no other that a table shows.
    at_ms, duration_ms = getattr(entry, "at_ms", None), getattr(entry, "duration_ms", None)
    outcome, value = getattr(entry, "outcome", None), getattr(entry, "value", None)
    name, result, failure = _name(entry, names), "", _failure(entry)
    if outcome is not None:
        result, failure = outcome_text(outcome, bytes_max)
    elif value is not None:
        result = preview(value, bytes_max=bytes_max)
    elif isinstance(entry, Unknown):
        result = preview(entry.body, bytes_max=bytes_max)
    if isinstance(entry, Command):
        names[entry.command_index] = name or type_of(positioned)
    if isinstance(entry, Sleep):
        names[entry.command_index] = name or f"sleep {duration_text(entry.duration_ms)}"
    return Row(position, epoch, type_of(positioned), name, at_ms, duration_ms, result, _one_line(failure, bytes_max))


def _name(entry: Entry, names: Mapping[int, str]) -> str:
    match entry:
        case Completion(index):
            return f"of {names.get(index) or f'command {index}'}"
        case AttemptStarted(_, worker):
            return worker
        case AttemptFailed(_, _, _, command, _):
            return command
        case Resolve(_, _, invocation_id, awaited, name, _):
            return f"{name} of {invocation_id}" if name else f"{invocation_id} command {awaited}"
        case Call() | Send():
            called = entry.identity
            return " ".join(part for part in (called.name, called.key) if part)
        case Attach(_, _, invocation_id) | CancelOther(_, _, invocation_id) | CancelChild(_, _, invocation_id):
            return invocation_id
        case _:
            return str(getattr(entry, "name", ""))


def _failure(entry: Entry) -> str:
    match entry:
        case StepFailed(_, _, _, failures, _, retry_ms, error):
            return f"{error} (failure {failures}, {_retry_text(retry_ms)})"
        case AttemptFailed(_, error, _, _, retry_ms):
            return f"{error} ({_retry_text(retry_ms)})"
        case Paused(_, reason):
            return reason
        case _:
            return ""


def _retry_text(retry_ms: int) -> str:
    return "no retry" if retry_ms < 0 else f"retry in {duration_text(retry_ms)}"


def outcome_text(outcome: Outcome, bytes_max: int = PREVIEW_BYTES_MAX) -> tuple[str, str]:
    """Return the previews of a result and of a failure, one of which is empty."""
    match outcome:
        case Success(value):
            return preview(value, bytes_max=bytes_max), ""
        case Failure(code, message, _):
            return "", _one_line(f"{code}: {failure_text(message)}", bytes_max)


def failure_text(message: str) -> str:
    """Return a failure's message; one that an application's payload codec has sealed is called that."""
    return "(sealed)" if message.startswith(SEALED_TEXT) else message


def _one_line(text: str, bytes_max: int) -> str:
    return preview(text.encode("utf-8", "replace"), bytes_max=bytes_max)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return `result` or `failure`, as values of JSON."""
    match outcome:
        case Success(value):
            return {"result": payload_json(value)}
        case Failure(code, message, metadata):
            return {"failure": {"code": code, "message": failure_text(message), "metadata": dict(metadata)}}


def _recorded(output: str | None) -> Outcome | None:
    if output is None:
        return None
    try:
        entry = decode(b"output", output.encode())
    except DecodeError:
        return None
    return entry.outcome if isinstance(entry, Output) else None


def _number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else None
