"""What falls due in one slot of the in-memory store, and what is done then: `scripts/sweep.lua` in Python.

Nothing is popped: a transition replaces its deadline by the next one, and what must reach Kafka stays in `due`, further
out, until it is claimed or acknowledged. A lease that may not be ended stays as it is.
"""

from __future__ import annotations

from perdure.schemas.codec import encode
from perdure.schemas.entries import AttemptFailed, Completion, Success
from perdure.schemas.ids import InvocationId

from .memory_objects import enter
from .memory_slot import REDELIVERY_MS_MAX, REPLY_LEASE_MS, Record, Slot
from .store import CascadeDue, Due, HintDue, OutgoingDue, ReplyDue, ResumeDue, Swept
from .transitions import SUSPECT_AFTER, lost_delay_ms

SWEEP_MEMBERS_MAX = 100
"""Deadlines of one sweep, as on Redis: what is left is done by the next one."""

SWEEP_BYTES_MAX = 4_000_000
"""Outcomes and sent entries that one sweep tells, as on Redis."""

_KINDS = frozenset({"lease", "ready", "retry", "sleep", "wake", "start", "reply", "send", "cascade"})


def sweep(slot: Slot, now_ms: int, *, hints: str, leases_until_ms: int) -> Swept:
    """Do what is due up to `now_ms`.

    Args:
        slot: Changed in place.
        now_ms: The store's time.
        hints: What a worker's hint channel begins with.
        leases_until_ms: Until when leases may be ended; those with score 0 were ended on purpose and may be always.
    """
    found: list[Due] = []
    ends_leases = now_ms <= leases_until_ms
    # Leases that are held come before what fell due later, and must not hide it: each is one of what runs.
    looked_at = SWEEP_MEMBERS_MAX + (0 if ends_leases else len(slot.index["running"]))
    held = told_bytes = 0
    for done, (score, member) in enumerate(slot.due.lowest(looked_at, until_ms=now_ms)):
        if done - held >= SWEEP_MEMBERS_MAX or told_bytes >= SWEEP_BYTES_MAX:
            break
        kind, _, rest = member.partition(":")
        name, _, index = rest.partition(":")
        invocation_id = InvocationId(name)
        record = slot.records.get(invocation_id)
        if record is None:
            slot.due.drop(member)
            continue
        if kind == "lease" and record.status == "running" and score > 0 and not ends_leases:
            held += 1
            continue
        due, kept = _fall_due(slot, invocation_id, record, kind=kind, index=index, now_ms=now_ms)
        if isinstance(due, HintDue):
            slot.publish(hints + due.worker, invocation_id.encode())
        if due is not None:
            found.append(due)
            told_bytes += _bytes_of(due, record)
        if not kept:
            slot.due.drop(member)
    slot.trim(now_ms)
    # What was done is gone or further out, so that the first ones are those that are held.
    after_held = slot.due.lowest(held + 1)[held:]
    return Swept(found, max(0, after_held[0][0] - now_ms) if after_held else None, now_ms)


def _bytes_of(due: Due, record: Record) -> int:
    match due:
        case OutgoingDue(_, _, entry):
            return len(encode(entry)[1])
        case ReplyDue():
            return len(record.output_body or b"")
        case _:
            return 0


def _fall_due(
    slot: Slot, invocation_id: InvocationId, record: Record, *, kind: str, index: str, now_ms: int
) -> tuple[Due | None, bool]:
    """What there is to tell, and whether the deadline stays (it was moved, then)."""
    match kind, record.status:
        case "lease", "running":
            return _lease_ended(slot, invocation_id, record, now_ms), False
        case "start", "scheduled":
            return _start(slot, invocation_id, record, now_ms), False
        case ("retry", "backing-off") | ("wake", "suspended"):
            return slot.make_ready(invocation_id, record, now_ms), False
        case "sleep", status if status != "completed":
            return _timer_fired(slot, invocation_id, record, index=int(index), now_ms=now_ms), False
        case "ready", "ready":
            assert record.redelivery_ms is not None, "whoever makes an invocation ready says when it is produced again"
            record.redelivery_ms = min(record.redelivery_ms * 2, REDELIVERY_MS_MAX)
            slot.due.put(f"ready:{invocation_id}", now_ms + record.redelivery_ms)
            return ResumeDue(invocation_id, record.epoch, record.service), True
        case "reply", "completed":
            assert record.output is not None, "a completed invocation has its output"
            slot.due.put(f"reply:{invocation_id}", now_ms + REPLY_LEASE_MS)
            return ReplyDue(invocation_id, list(record.reply_to), record.output.outcome, record.told), True
        case "send", _:
            # What it sent is not acknowledged yet: told again, with what is to be sent.
            slot.due.put(f"send:{invocation_id}:{index}", now_ms + REPLY_LEASE_MS)
            entry = slot.journals[invocation_id][int(index) - 1].entry
            return OutgoingDue(invocation_id, int(index), entry), True
        case "cascade", _:
            slot.due.put(f"cascade:{invocation_id}", now_ms + REPLY_LEASE_MS)
            return CascadeDue(invocation_id), True
        case _ if kind not in _KINDS:
            # A newer version put it there: out of this worker's way for a while, and in reach of those that know it.
            slot.due.put(f"{kind}:{invocation_id}{index and ':'}{index}", now_ms + REPLY_LEASE_MS)
            return None, True
        case _:
            return None, False


def _start(slot: Slot, invocation_id: InvocationId, record: Record, now_ms: int) -> ResumeDue | None:
    # A delay ends before the object's queue begins.
    if record.mode == "exclusive" and not enter(slot, record.object, invocation_id):
        slot.move(invocation_id, record, "pending", now_ms)
        return None
    return slot.make_ready(invocation_id, record, now_ms)


def _lease_ended(slot: Slot, invocation_id: InvocationId, record: Record, now_ms: int) -> ResumeDue | None:
    # The worker died or froze: this counts as a failed attempt, so that what kills its workers ends paused.
    lost = record.lost or 0
    if lost >= SUSPECT_AFTER and record.alone != record.epoch:
        # It only waited for its turn to run alone: another one took the worker down.
        return slot.make_ready(invocation_id, record, now_ms)
    text, delay_ms = f"worker {record.worker or '?'} stopped answering and its lease ended", lost_delay_ms(lost + 1)
    slot.write(invocation_id, record, AttemptFailed(now_ms, text, "", "", delay_ms))
    record.failures, record.lost, record.last_failure = (record.failures or 0) + 1, lost + 1, text
    if not delay_ms:
        return slot.make_ready(invocation_id, record, now_ms)
    record.worker = ""
    slot.move(invocation_id, record, "backing-off", now_ms)
    slot.due.put(f"retry:{invocation_id}", now_ms + delay_ms)
    return None


def _timer_fired(slot: Slot, invocation_id: InvocationId, record: Record, *, index: int, now_ms: int) -> Due | None:
    slot.write(invocation_id, record, Completion(index, now_ms, Success(b"null")))
    if record.status == "suspended":
        return slot.make_ready(invocation_id, record, now_ms)
    if record.status == "running":
        return HintDue(record.worker or "", invocation_id)
    return None
