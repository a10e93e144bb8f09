"""The one end of every invocation in the in-memory store, and what it owes: `scripts/finish.lua`, `acknowledge.lua`."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.schemas.codec import encode
from perdure.schemas.commands import Call
from perdure.schemas.entries import Completion, Output
from perdure.schemas.ids import InvocationId

from .memory_objects import release
from .memory_slot import KEPT_WITHOUT_END_MS, REPLY_LEASE_MS, Record, Slot
from .store import Caller, Concluded, ResumeDue


def finish(
    slot: Slot,
    invocation_id: InvocationId,
    record: Record,
    output: Output,
    *,
    now_ms: int,
    retention_ms: int,
    journal_retention_ms: int,
    holds: bool = False,
    callers: Sequence[Caller] | None = None,
) -> Concluded:
    """Record the outcome, whose entry is written already; tell those who wait, hand the object on.

    Args:
        slot: Changed in place.
        invocation_id: Which.
        record: Its record.
        output: The outcome.
        now_ms: The store's time.
        retention_ms: How long the outcome is kept after the last acknowledgement.
        journal_retention_ms: How long the journal is.
        holds: It keeps its object, until its callees are killed.
        callers: Who has yet to be told; `None`: all that called it.
    """
    callers = record.told if callers is None else callers
    body = encode(output)[1]
    record.output, record.output_body, record.completed_at_ms = output, body, now_ms
    slot.due.drop(*(f"{kind}:{invocation_id}" for kind in ("lease", "ready", "retry", "wake", "start")))
    if record.reply_to or callers or (record.outgoing or 0) > 0:
        # Kept without an end until all that it owes is acknowledged: an outage of Kafka must not outlast it.
        record.retention_ms, record.journal_retention_ms = retention_ms, journal_retention_ms
        if record.reply_to or callers:
            slot.due.put(f"reply:{invocation_id}", now_ms + REPLY_LEASE_MS)
        slot.move(invocation_id, record, "completed", KEPT_WITHOUT_END_MS)
    else:
        _retain(
            slot,
            invocation_id,
            record,
            now_ms=now_ms,
            retention_ms=retention_ms,
            journal_retention_ms=journal_retention_ms,
        )
    for channel in record.waiters:
        slot.tell_outcome(channel, invocation_id, body)
    releases = record.mode == "exclusive" and not holds
    following = release(slot, record.object, invocation_id, now_ms) if releases else None
    return Concluded(list(record.reply_to), callers, following, record.length)


def acknowledge(
    slot: Slot, invocation_id: InvocationId, *, reply: bool, sent: Sequence[int], cascade: bool, now_ms: int
) -> ResumeDue | None:
    """See `Store.acknowledge`."""
    killed = cascade and slot.due.drop(f"cascade:{invocation_id}")
    done = sum(slot.due.drop(f"send:{invocation_id}:{position}") for position in sent) + killed
    told = slot.due.drop(f"reply:{invocation_id}") if reply else 0
    record = slot.records.get(invocation_id)
    if record is None or done + told == 0:
        return None
    if done:
        record.outgoing = (record.outgoing or 0) - done
    releases = killed and record.mode == "exclusive"
    following = release(slot, record.object, invocation_id, now_ms) if releases else None
    if record.status != "completed" or record.retention_ms is None or owes(slot, invocation_id, record):
        return following
    assert record.journal_retention_ms is not None, "the two are written together"
    _retain(
        slot,
        invocation_id,
        record,
        now_ms=now_ms,
        retention_ms=record.retention_ms,
        journal_retention_ms=record.journal_retention_ms,
    )
    return following


LOOKED_AT_MAX = 1_000
"""Entries at the end of the journal of what is killed: whether a call has no answer is not looked for further back."""


def may_have_called(slot: Slot, invocation_id: InvocationId) -> bool:
    """Whether a call may be without an answer."""
    answered: set[int] = set()
    last = slot.journals[invocation_id][-LOOKED_AT_MAX:]
    for row in reversed(last):
        match row.entry:
            case Completion(index):
                answered.add(index)
            case Call(index) if index not in answered:
                return True
            case _:
                pass
    return len(last) == LOOKED_AT_MAX


def owes(slot: Slot, invocation_id: InvocationId, record: Record) -> bool:
    """Whether anything that it is to tell or to send is not acknowledged."""
    return (record.outgoing or 0) > 0 or f"reply:{invocation_id}" in slot.due.scores


def purge(slot: Slot, invocation_id: InvocationId, record: Record) -> bool:
    """Forget a completed invocation that owes nothing; whether it was one."""
    if record.status != "completed" or owes(slot, invocation_id, record):
        return False
    slot.index["completed"].pop(invocation_id, None)
    slot.discard("invocation", invocation_id)
    slot.discard("journal", invocation_id)
    if record.mode == "main":
        slot.discard("state", record.object)
        slot.discard("promises", record.object)
    return True


def _retain(
    slot: Slot,
    invocation_id: InvocationId,
    record: Record,
    *,
    now_ms: int,
    retention_ms: int,
    journal_retention_ms: int,
) -> None:
    slot.move(invocation_id, record, "completed", now_ms + retention_ms)
    slot.expire("invocation", invocation_id, now_ms=now_ms, in_ms=retention_ms)
    slot.expire("journal", invocation_id, now_ms=now_ms, in_ms=journal_retention_ms)
    if record.mode == "main":
        slot.expire("state", record.object, now_ms=now_ms, in_ms=retention_ms)
        slot.expire("promises", record.object, now_ms=now_ms, in_ms=retention_ms)
