"""What an attempt may do to its invocation in the in-memory store: claim, append, complete, leave, renew.

Each function is one Lua script (`scripts/claim.lua`, `append.lua`, ...): it looks at everything before it changes
anything. Time is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.schemas.codec import encode
from perdure.schemas.entries import AttemptStarted, Entry, Output, Sleep
from perdure.schemas.errors import FencedError, GapError
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import ENTRIES_PER_APPEND_MAX

from .memory_slot import KEPT_WITHOUT_END_MS, Record, Slot
from .memory_sweep import REPLY_LEASE_MS
from .store import Appended, Claim, Lease


def claim(slot: Slot, lease: Lease, *, now_ms: int, lease_ms: int, at_ms: int) -> Claim | None:
    """Start the attempt that `lease` names; `None` where the invocation is not ready with the epoch before it."""
    invocation_id = lease.invocation_id
    record = slot.records.get(invocation_id)
    if record is None:
        return None
    if (record.epoch, record.token) != (lease.epoch, lease.token):
        if record.status != "ready" or record.epoch != lease.epoch - 1:
            return None
        record.epoch, record.token, record.worker, record.seq = lease.epoch, lease.token, lease.worker, 0
        slot.write(invocation_id, record, AttemptStarted(at_ms, lease.worker))
        slot.move(invocation_id, record, "running", now_ms)
        slot.due.drop(f"ready:{invocation_id}")
        slot.due.put(f"lease:{invocation_id}", now_ms + lease_ms)
    return Claim(
        lease=lease,
        service=record.target["service"],
        handler=record.target["handler"],
        key=record.target.get("key"),
        idempotency_key=record.target.get("idempotency_key", ""),
        failures=record.failures or 0,
        admitted_at_ms=record.admitted_at_ms,
        entries=slot.tail(invocation_id, 0),
    )


def append(
    slot: Slot, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool, now_ms: int
) -> Appended:
    """See `Store.append`."""
    assert len(entries) <= ENTRIES_PER_APPEND_MAX, "the caller splits what it appends"
    record = fenced(slot, lease)
    if not _is_new(record, after=after, seq=seq):
        return Appended(record.length, slot.tail(lease.invocation_id, after))
    alone = record.length == after
    _write(slot, record, lease, entries, seq=seq)
    _set_timers(slot, lease, entries, now_ms)
    if progress:
        record.failures = 0
    return Appended(record.length, None if alone else slot.tail(lease.invocation_id, after))


def complete(
    slot: Slot,
    lease: Lease,
    entries: Sequence[Entry],
    *,
    after: int,
    seq: int,
    retention_ms: int,
    journal_retention_ms: int,
    timers: Sequence[int],
    now_ms: int,
) -> Sequence[str]:
    """See `Store.complete`."""
    output = entries[-1]
    assert isinstance(output, Output), "the last entry of an invocation is its output"
    invocation_id = lease.invocation_id
    record = fenced(slot, lease)
    if not _is_new(record, after=after, seq=seq):
        return list(record.reply_to)
    body = encode(output)[1]
    _write(slot, record, lease, entries, seq=seq)
    record.output, record.output_body, record.completed_at_ms = output, body, now_ms
    slot.due.drop(f"lease:{invocation_id}", f"ready:{invocation_id}")
    slot.due.drop(*(f"sleep:{invocation_id}:{index}" for index in timers))
    slot.trim(now_ms)
    if record.reply_to:
        # Kept without an end until the reply is acknowledged: an outage of Kafka must not outlast it.
        record.retention_ms, record.journal_retention_ms = retention_ms, journal_retention_ms
        slot.due.put(f"reply:{invocation_id}", now_ms + REPLY_LEASE_MS)
        slot.move(invocation_id, record, "completed", KEPT_WITHOUT_END_MS)
    else:
        slot.move(invocation_id, record, "completed", now_ms + retention_ms)
        slot.retain(invocation_id, now_ms, retention_ms=retention_ms, journal_retention_ms=journal_retention_ms)
    for channel in record.waiters:
        slot.tell_outcome(channel, invocation_id, body)
    return list(record.reply_to)


def leave(
    slot: Slot,
    lease: Lease,
    entries: Sequence[Entry],
    *,
    after: int,
    seq: int,
    status: str,
    now_ms: int,
    deadline: tuple[str, int] | None = None,
    failure: str = "",
    unless_new: bool = False,
) -> Appended | None:
    """End an attempt without an outcome; `None` where it left.

    Args:
        slot: Changed in place.
        lease: The attempt's.
        entries: Written first, unless it stays.
        after: How many entries the caller knows.
        seq: The attempt's n-th write.
        status: suspended, backing-off, paused or ready.
        now_ms: The store's time.
        deadline: What falls due next (retry or wake), and in how many ms.
        failure: Counted as one more consecutive failure, unless empty.
        unless_new: Whether it stays where there is anything past `after`, which comes back then.
    """
    invocation_id = lease.invocation_id
    record = fenced(slot, lease)
    if not _is_new(record, after=after, seq=seq):
        return None
    if unless_new and record.length > after:
        return Appended(record.length, slot.tail(invocation_id, after))
    _write(slot, record, lease, entries, seq=seq)
    _set_timers(slot, lease, entries, now_ms)
    record.worker = ""
    if failure:
        record.failures = (record.failures or 0) + 1
        record.last_failure = failure
    if status == "ready":
        slot.make_ready(invocation_id, record, now_ms)
        return None
    slot.due.drop(f"lease:{invocation_id}", f"ready:{invocation_id}")
    slot.move(invocation_id, record, status, now_ms)
    if deadline is not None:
        kind, delay_ms = deadline
        slot.due.put(f"{kind}:{invocation_id}", now_ms + delay_ms)
    return None


def renew(slot: Slot, lease: Lease, *, now_ms: int, lease_ms: int) -> int | None:
    """See `Store.renew`."""
    invocation_id = lease.invocation_id
    record = slot.records.get(invocation_id)
    if record is None or (record.epoch, record.token) != (lease.epoch, lease.token):
        return None
    # An attempt that left has no worker any more, whatever became of the invocation since.
    if record.status not in ("running", "ready") or not record.worker:
        return None
    if record.status == "ready":
        slot.due.drop(f"ready:{invocation_id}")
        slot.move(invocation_id, record, "running", now_ms)
    slot.due.put(f"lease:{invocation_id}", now_ms + lease_ms)
    return record.length


def acknowledge(slot: Slot, invocation_id: InvocationId, *, now_ms: int) -> None:
    """See `Store.acknowledge`."""
    record = slot.records.get(invocation_id)
    if slot.due.drop(f"reply:{invocation_id}") == 0 or record is None:
        return
    assert record.retention_ms is not None, "who waits for an acknowledgement knows for how long it is kept after it"
    assert record.journal_retention_ms is not None, "likewise"
    slot.move(invocation_id, record, "completed", now_ms + record.retention_ms)
    slot.retain(
        invocation_id, now_ms, retention_ms=record.retention_ms, journal_retention_ms=record.journal_retention_ms
    )


def fenced(slot: Slot, lease: Lease) -> Record:
    """The invocation's record, for the one attempt that may write.

    Raises:
        FencedError: `lease` is not that attempt's.
    """
    record = slot.records.get(lease.invocation_id)
    if record is None or (record.epoch, record.token) != (lease.epoch, lease.token):
        now = "is not known" if record is None else f"is at epoch {record.epoch}"
        raise FencedError(f"{lease.invocation_id} {now}, and attempt {lease.epoch} of it may write no more.")
    return record


def _is_new(record: Record, *, after: int, seq: int) -> bool:
    """Whether this write was not done yet.

    Raises:
        GapError: The caller knows more entries than there are.
    """
    # An earlier number than the last is a repeat, too: one that stayed on a connection which was given up.
    if record.seq is not None and seq <= record.seq:
        return False
    if after > record.length:
        raise GapError(f"The journal holds {record.length} entries, and the attempt has seen {after}.")
    return True


def _set_timers(slot: Slot, lease: Lease, entries: Sequence[Entry], now_ms: int) -> None:
    for entry in entries:
        if isinstance(entry, Sleep):
            slot.due.put(f"sleep:{lease.invocation_id}:{entry.command_index}", now_ms + entry.duration_ms)


def _write(slot: Slot, record: Record, lease: Lease, entries: Sequence[Entry], *, seq: int) -> None:
    for entry in entries:
        slot.write(lease.invocation_id, record, entry)
    record.seq = seq
