"""What Redis answers, turned into values. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.schemas.codec import decode
from perdure.schemas.entries import Outcome, Output, Positioned
from perdure.schemas.errors import DecodeError, StoreError
from perdure.schemas.ids import InvocationId

from .store import (
    Admitted,
    Appended,
    Claim,
    Claimed,
    Due,
    Duplicate,
    HintDue,
    Lease,
    ReplyDue,
    ResumeDue,
    Scheduled,
    Status,
    Summary,
    Swept,
)


def positioned(rows: Sequence[Sequence[Any]]) -> list[Positioned]:
    """Rows of XRANGE as entries where they stand.

    Raises:
        DecodeError: A row is not what a journal holds.
    """
    entries = []
    for entry_id, fields in rows:
        position, _, epoch = entry_id.partition(b"-")
        entries.append(Positioned(int(position), int(epoch), decode(fields[0], fields[1])))
    return entries


def outcome_of(body: bytes) -> Outcome:
    """The outcome that the body of an output holds.

    Raises:
        DecodeError: It holds none.
    """
    entry = decode(b"output", body)
    if not isinstance(entry, Output):
        raise DecodeError(f"This is not the body of an output: {body[:200]!r}")
    return entry.outcome


def as_admitted(reply: Sequence[Any], lease: Lease) -> Admitted:
    """The answer of `admit`."""
    match reply[0]:
        case b"running":
            return Claimed(lease)
        case b"scheduled":
            return Scheduled()
        case b"duplicate":
            return Duplicate(reply[1].decode(), None if reply[2] is None else outcome_of(reply[2]))
        case other:
            raise StoreError(f"admit.lua answered {other!r}; the scripts and this version do not belong together.")


def as_claim(reply: Sequence[Any] | None, lease: Lease) -> tuple[Claim, int] | None:
    """The answer of `claim`: what it holds, and how long the whole journal is."""
    if reply is None:
        return None
    service, handler, key, failures, admitted_at, idempotency_key = (
        None if part is None else part.decode() for part in reply[1]
    )
    claim = Claim(
        lease=lease,
        service=service or "",
        handler=handler or "",
        key=key,
        idempotency_key=idempotency_key or "",
        failures=int(failures or 0),
        admitted_at_ms=int(admitted_at or 0),
        entries=positioned(reply[3]),
    )
    return claim, reply[2]


def as_appended(reply: Any) -> Appended:
    """The answer of `append`."""
    if type(reply) is int:
        return Appended(reply, None)
    return Appended(reply[0], positioned(reply[1]))


def as_departure(reply: Any) -> Appended | None:
    """The answer of `leave`: `None` where it left."""
    return None if reply == 0 else as_appended(reply)


def _action(row: Sequence[Any]) -> Due:
    match row:
        case [b"resume", invocation_id, epoch, service]:
            return ResumeDue(InvocationId(invocation_id.decode()), int(epoch), service.decode())
        case [b"reply", invocation_id, topics, output]:
            return ReplyDue(InvocationId(invocation_id.decode()), topics.decode().split(), outcome_of(output))
        case [b"hint", worker, invocation_id]:
            return HintDue(worker.decode(), InvocationId(invocation_id.decode()))
        case other:
            raise StoreError(f"sweep.lua answered {other!r}; the scripts and this version do not belong together.")


def as_swept(reply: Sequence[Any]) -> Swept:
    """The answer of `sweep`."""
    next_in_ms, actions, at_ms = reply
    return Swept([_action(row) for row in actions], None if next_in_ms < 0 else next_in_ms, at_ms)


def as_status(reply: Sequence[Any] | None) -> Status | None:
    """The answer of `attach`."""
    if reply is None:
        return None
    return Status(reply[0].decode(), None if reply[1] is None else outcome_of(reply[1]))


def as_summary(invocation_id: InvocationId, reply: Sequence[bytes] | Mapping[bytes, bytes]) -> Summary:
    """A flat list of fields and values, or a map, as text."""
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return Summary(invocation_id, {name.decode(): value.decode("utf-8", "replace") for name, value in pairs})
