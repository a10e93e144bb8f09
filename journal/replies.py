"""What Redis answers, turned into values. PURE."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from perdure.schemas.codec import decode, encode, is_json
from perdure.schemas.entries import Outcome, Output, Positioned
from perdure.schemas.errors import DecodeError, StoreError
from perdure.schemas.ids import InvocationId

from .store import (
    Admitted,
    Appended,
    Caller,
    CascadeDue,
    Claim,
    Claimed,
    Concluded,
    Delivery,
    Due,
    Duplicate,
    Full,
    HintDue,
    Lease,
    OutgoingDue,
    Promise,
    Queued,
    ReplyDue,
    ResumeDue,
    Scheduled,
    State,
    Status,
    Summary,
    Swept,
)
from .transitions import Answered, Memory, Shed, ShedPlace, caller_of


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
            return Claimed(lease, _state(reply[2]))
        case b"scheduled":
            return Scheduled()
        case b"pending":
            return Queued()
        case b"full":
            return Full()
        case b"duplicate":
            return Duplicate(reply[1].decode(), None if reply[2] is None else outcome_of(reply[2]))
        case other:
            raise StoreError(f"admit.lua answered {other!r}; the scripts and this version do not belong together.")


def as_claim(reply: Sequence[Any] | None, lease: Lease) -> tuple[Claim, int] | None:
    """The answer of `claim`: what it holds, and how long the whole journal is."""
    if reply is None:
        return None
    service, handler, key, failures, admitted_at, idempotency_key, mode, source, lost = (
        None if part is None else part.decode() for part in reply[1]
    )
    claim = Claim(
        lease=lease if key is None else lease._replace(target=f"{service}/{key}"),
        service=service or "",
        handler=handler or "",
        key=key,
        idempotency_key=idempotency_key or "",
        failures=int(failures or 0),
        admitted_at_ms=int(admitted_at or 0),
        entries=positioned(reply[3]),
        mode=mode or "",
        state=_state(reply[4]),
        source=source or "",
        lost=int(lost or 0),
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


def _state(flat: Sequence[bytes] | None) -> State | None:
    if flat is None:
        return None
    return {name.decode(): kept_payload(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


_BASE64 = b"base64:"


def kept_payload(raw: bytes) -> bytes:
    """A payload from how a hash keeps it: JSON as it is, anything else behind `base64:`, which no JSON begins with."""
    return base64.b64decode(raw[len(_BASE64) :]) if raw.startswith(_BASE64) else raw


def payload_kept(payload: bytes) -> bytes:
    """The inverse of `kept_payload`."""
    return payload if payload and is_json(payload) else _BASE64 + base64.b64encode(payload)


def body_of_outcome(outcome: Outcome) -> bytes:
    """An outcome as one JSON object, `{"value" | "base64" | "failure"}`, in the form that scripts put into entries."""
    return b"{" + encode(Output(0, outcome))[1].removeprefix(b'{"at":0,')


def _callers(text: bytes | None) -> list[Caller]:
    return [caller_of(part) for part in (text or b"").decode().split()]


def as_resume(row: Sequence[bytes] | None) -> ResumeDue | None:
    """Who is ready, as scripts tell it: `{id, epoch, service}`, or nobody."""
    if row is None:
        return None
    invocation_id, epoch, service = row
    return ResumeDue(InvocationId(invocation_id.decode()), int(epoch), service.decode())


def as_concluded(reply: Sequence[Any], worker: str = "", token: str = "") -> Concluded:
    """The answer of `complete`; `worker` claimed the next one with `token`, if it was claimed."""
    topics, callers, row, length, taken, actions = reply
    following, claim = as_resume(row), None
    if following is not None and taken is not None:
        lease = Lease(following.invocation_id, taken[0], token, worker)
        try:
            claimed = as_claim(taken, lease)
        except DecodeError:
            # The outcome stands all the same. Its lease ends, and whoever claims the damaged one then sets it aside.
            claimed = None
        claim = None if claimed is None else claimed[0]
    return Concluded(topics.decode().split(), _callers(callers), following, length, claim, as_due(actions))


def as_delivery(invocation_id: InvocationId, reply: Sequence[Any]) -> Delivery:
    """The answer of `deliver` and of `control`."""
    result = reply[0].decode()
    if result in ("unchanged", "no-awakeable"):
        left = (CascadeDue(invocation_id),) if reply[2:] == [1] else ()
        return Delivery(result, left, reply[1].decode())
    if result not in ("delivered", "done"):
        return Delivery(result)
    due: list[Due] = []
    match reply[1]:
        case [b"ended" | b"killed", topics, callers, output]:
            due.append(ReplyDue(invocation_id, topics.decode().split(), outcome_of(output), _callers(callers)))
        case action:
            due += _wakes(invocation_id, action)
    if following := as_resume(reply[2]):
        due.append(following)
    if reply[1] and reply[1][0] == b"killed":
        due.append(CascadeDue(invocation_id))
    return Delivery("delivered", due)


def as_answered(invocation_id: InvocationId, reply: Sequence[Any]) -> Answered:
    """The answer of `answer`."""
    results, action = reply
    return Answered([result.decode() for result in results], _wakes(invocation_id, action))


def _wakes(invocation_id: InvocationId, action: Sequence[bytes] | None) -> list[Due]:
    match action:
        case [b"resume", epoch, service]:
            return [ResumeDue(invocation_id, int(epoch), service.decode())]
        case [b"hint", worker]:
            return [HintDue(worker.decode(), invocation_id)]
        case _:
            return []


def as_due(actions: Any) -> list[Due]:
    """What `promise` and `complete` say is to be done."""
    due: list[Due] = []
    for action in actions:
        match action:
            case [b"resume", *row]:
                due.append(ResumeDue(InvocationId(row[0].decode()), int(row[1]), row[2].decode()))
            case [b"hint", invocation_id, worker]:
                due.append(HintDue(worker.decode(), InvocationId(invocation_id.decode())))
            case other:
                raise StoreError(
                    f"A script said that {other!r} is due; the scripts and this version do not belong together."
                )
    return due


def as_promise(reply: Sequence[Any]) -> Promise | None:
    """The answer of `promise` to a peek."""
    if reply[0] == b"open":
        return None
    return Promise(outcome_of(b'{"at":0,' + reply[1][1:]), reply[2].decode())


def _action(row: Sequence[Any]) -> Due:
    match row:
        case [b"resume", invocation_id, epoch, service]:
            return ResumeDue(InvocationId(invocation_id.decode()), int(epoch), service.decode())
        case [b"reply", invocation_id, topics, output, callers]:
            told = (topics or b"").decode().split()
            return ReplyDue(InvocationId(invocation_id.decode()), told, outcome_of(output), _callers(callers))
        case [b"send", invocation_id, position, [kind, body]]:
            return OutgoingDue(InvocationId(invocation_id.decode()), int(position), decode(kind, body))
        case [b"cascade", invocation_id]:
            return CascadeDue(InvocationId(invocation_id.decode()))
        case [b"hint", worker, invocation_id]:
            return HintDue(worker.decode(), InvocationId(invocation_id.decode()))
        case other:
            raise StoreError(f"sweep.lua answered {other!r}; the scripts and this version do not belong together.")


def as_swept(reply: Sequence[Any]) -> Swept:
    """The answer of `sweep`."""
    next_in_ms, actions, at_ms = reply
    due, unreadable = [], []
    for row in actions:
        try:
            due.append(_action(row))
        except DecodeError as error:
            # One damaged invocation must not hide from others in its slot what is due.
            unreadable.append(f"{row[0].decode()} of {row[1].decode()}: {error}")
    return Swept(due, None if next_in_ms < 0 else next_in_ms, at_ms, unreadable)


def as_status(reply: Sequence[Any] | None) -> Status | None:
    """The answer of `attach`."""
    if reply is None:
        return None
    return Status(reply[0].decode(), None if reply[1] is None else outcome_of(reply[1]), reply[2] == 1)


def as_memory(reply: bytes) -> Memory:
    """The answer of `INFO memory`; what replicas and the append-only file hold back is not what `maxmemory` bounds."""
    lines = (line.partition(b":") for line in reply.splitlines())
    known = {name: int(value) for name, _, value in lines if value.isdigit()}
    used = known.get(b"used_memory", 0) - known.get(b"mem_not_counted_for_evict", 0)
    return Memory(used, known.get(b"maxmemory", 0))


def as_shed(reply: Sequence[Any]) -> Shed:
    """The answer of `shed`."""
    removed, *place = reply
    return Shed(removed, ShedPlace(int(float(place[0])), place[1]) if place else None)


SHOWN = (
    *("service", "handler", "key", "mode", "status", "epoch", "token", "worker", "length", "seq", "failures"),
    *(
        "lost",
        "alone",
        "last_failure",
        "idempotency_key",
        "source",
        "admitted_at",
        "completed_at",
        "redelivery",
        "retention",
    ),
    *("journal_retention", "outgoing", "cancelled", "cancellations", "received", "received_bytes"),
    *("waiters", "reply_to", "callers", "output"),
)
"""Fields of an invocation that are read for people. It has as many others as things came from outside."""


def as_summary(invocation_id: InvocationId, reply: Sequence[bytes | None]) -> Summary | None:
    """The values of the fields `SHOWN`, as text; `None` where there is no invocation."""
    found = {name: raw.decode("utf-8", "replace") for name, raw in zip(SHOWN, reply, strict=True) if raw is not None}
    return Summary(invocation_id, found) if found else None
