"""What an attempt may do to its invocation in the in-memory store: claim, append, complete, leave, renew.

Each function is one Lua script (`scripts/claim.lua`, `append.lua`, ...): it looks at everything before it changes
anything. Time is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perdure.schemas.codec import encode
from perdure.schemas.entries import AttemptStarted, Entry, Output, Sleep
from perdure.schemas.errors import FencedError, GapError
from perdure.schemas.limits import ENTRIES_PER_APPEND_MAX

from .memory_ending import finish
from .memory_objects import handed, state_of, take_effect
from .memory_promises import promises_are
from .memory_slot import Record, Slot
from .store import Appended, Caller, Claim, Concluded, Due, Follow, Lease
from .transitions import Answered

FOLLOW_ENTRIES_MAX = 100
"""A longer journal is not handed over with the object, but claimed by itself; as in `scripts/complete.lua`."""

TOLD_MAX = 100
"""Callers that are told by the transition that completes what they called; as in `scripts/tell.lua`."""

TOLD_BYTES_MAX = 4_000_000
"""Bytes of outcomes that they are told, about; likewise."""


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
    target = record.object
    return Claim(
        lease=lease._replace(target=target),
        service=record.service,
        handler=record.target["handler"],
        key=record.target.get("key"),
        idempotency_key=record.target.get("idempotency_key", ""),
        failures=record.failures or 0,
        admitted_at_ms=record.admitted_at_ms,
        entries=slot.tail(invocation_id, 0),
        mode=record.mode,
        state=state_of(slot, target) if target else None,
        source=record.target.get("source", ""),
        lost=record.lost or 0,
    )


def append(
    slot: Slot, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool, now_ms: int
) -> Appended:
    """See `Store.append`."""
    assert len(entries) <= ENTRIES_PER_APPEND_MAX, "the caller splits what it appends"
    record = fenced(slot, lease)
    if not _is_new(record, after=after, seq=seq, gapless=True):
        return Appended(record.length, slot.tail(lease.invocation_id, after))
    alone = record.length == after
    _write(slot, record, lease, entries, seq=seq, now_ms=now_ms, timers=True)
    if progress:
        record.failures = record.lost = 0
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
    follow: Follow | None,
    now_ms: int,
    tell: Callable[[Caller, Output, str], Answered] | None,
) -> Concluded:
    """See `Store.complete`; `tell` brings the outcome to a caller, for the worker of that id."""
    output = entries[-1]
    assert isinstance(output, Output), "the last entry of an invocation is its output"
    invocation_id = lease.invocation_id
    record = fenced(slot, lease)
    if not _is_new(record, after=after, seq=seq, gapless=True):
        token = "" if follow is None else follow.token
        following = handed(slot, record.object, invocation_id, token) if record.mode == "exclusive" else None
        told = Concluded(list(record.reply_to), record.told, following, record.length, due=[])
        return _followed(slot, lease, told, follow, now_ms)
    _write(slot, record, lease, entries, seq=seq, now_ms=now_ms)
    slot.due.drop(*(f"sleep:{invocation_id}:{index}" for index in timers))
    callers = record.told
    due: list[Due] = []
    if tell is not None:
        callers, due = _tell_all(callers, output, lambda caller: tell(caller, output, lease.worker))
    told = finish(
        slot,
        invocation_id,
        record,
        output,
        now_ms=now_ms,
        retention_ms=retention_ms,
        journal_retention_ms=journal_retention_ms,
        callers=callers,
    )
    return _followed(slot, lease, told._replace(due=due), follow, now_ms)


def _tell_all(
    callers: Sequence[Caller], output: Output, tell: Callable[[Caller], Answered]
) -> tuple[list[Caller], list[Due]]:
    """Those that have to be told in another way, and what is to be done now."""
    size = len(encode(output)[1])
    left: list[Caller] = []
    due: list[Due] = []
    for count, caller in enumerate(callers):
        if count >= TOLD_MAX or count * size > TOLD_BYTES_MAX:
            left.append(caller)
            continue
        results, actions = tell(caller)
        due += actions
        if results == ["gap"]:
            left.append(caller)
    return left, due


def _followed(slot: Slot, lease: Lease, told: Concluded, follow: Follow | None, now_ms: int) -> Concluded:
    following = told.following
    if follow is None or following is None or slot.records[following.invocation_id].length >= FOLLOW_ENTRIES_MAX:
        return told
    taken = Lease(following.invocation_id, following.epoch + 1, follow.token, lease.worker)
    return told._replace(claim=claim(slot, taken, now_ms=now_ms, lease_ms=follow.lease_ms, at_ms=follow.at_ms))


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
    if not _is_new(record, after=after, seq=seq, gapless=unless_new):
        return None
    if unless_new and record.length > after:
        return Appended(record.length, slot.tail(invocation_id, after))
    _write(slot, record, lease, entries, seq=seq, now_ms=now_ms, timers=True)
    record.worker = ""
    if failure:
        record.failures = (record.failures or 0) + 1
        record.last_failure = failure
        # It failed, and its worker lived.
        record.lost = 0
    # A cancellation that the attempt has not seen waits neither for a retry nor for a person.
    cancelled = status in ("backing-off", "paused") and (record.cancelled or 0) > after
    if cancelled or status == "ready":
        slot.make_ready(invocation_id, record, now_ms)
        if cancelled:
            record.failures = record.lost = 0
            # Nobody was told to go on with it: the next sweep does.
            slot.due.put(f"ready:{invocation_id}", now_ms)
        return None
    slot.due.drop(f"lease:{invocation_id}", f"ready:{invocation_id}")
    slot.move(invocation_id, record, status, now_ms)
    if deadline is not None:
        kind, delay_ms = deadline
        slot.due.put(f"{kind}:{invocation_id}", now_ms + delay_ms)
    return None


def renew(slot: Slot, lease: Lease, *, now_ms: int, lease_ms: int, alone: bool) -> int | None:
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
    if alone:
        record.alone = record.epoch
    slot.due.put(f"lease:{invocation_id}", now_ms + lease_ms)
    return record.length


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


def _is_new(record: Record, *, after: int, seq: int, gapless: bool) -> bool:
    """Whether this write was not done yet.

    Raises:
        GapError: The caller knows more entries than there are, or (`gapless`) its write before is not there.
    """
    last = record.seq or 0
    # An earlier number than the last is a repeat, too: one that stayed on a connection which was given up.
    if seq <= last:
        return False
    # Where as many entries came from others as were lost, the length does not tell.
    if after > record.length or (gapless and seq > last + 1):
        raise GapError(f"The journal holds {record.length} entries, and the attempt has seen {after}.")
    return True


def _write(
    slot: Slot, record: Record, lease: Lease, entries: Sequence[Entry], *, seq: int, now_ms: int, timers: bool = False
) -> None:
    if not promises_are(slot, lease, entries):
        raise GapError(f"A promise is not as the next entry after {record.length} says; its completion was lost.")
    take_effect(slot, record, lease, entries, now_ms=now_ms)
    for entry in entries:
        slot.write(lease.invocation_id, record, entry)
        if timers and isinstance(entry, Sleep):
            slot.due.put(f"sleep:{lease.invocation_id}:{entry.command_index}", now_ms + entry.duration_ms)
    record.seq = seq
