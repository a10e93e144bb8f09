"""What comes from outside an attempt, in the in-memory store: `deliver.lua`, `answer.lua`, `control.lua` and so on.

Nothing here is fenced; each function looks at everything before it changes anything. Time is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.schemas.codec import encode
from perdure.schemas.entries import (
    Cancelled,
    Completion,
    Failure,
    Output,
    PauseAsked,
    Paused,
    Resumed,
    Signalled,
)
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import CANCELLATIONS_MAX, RECEIVED_BYTES_MAX, RECEIVED_MAX, WAITERS_MAX

from .memory_ending import finish, may_have_called, purge
from .memory_objects import enter
from .memory_slot import ANSWERED_AT, Record, Slot
from .positions import command_at
from .store import Admission, CascadeDue, Concluded, Delivery, Due, HintDue, ReplyDue, Restart, Status
from .transitions import RETENTION_MS, Answered, hastened


def joinable(names: list[str], name: str) -> bool:
    """Whether a name could be added, or is there."""
    return not name or name in names or len(names) < WAITERS_MAX


def join(names: list[str], name: str) -> bool:
    """Add a name; whether it is there now: there may be too many already."""
    possible = joinable(names, name)
    if possible and name and name not in names:
        names.append(name)
    return possible


def attach(slot: Slot, invocation_id: InvocationId, channel: str, caller: str) -> Status | None:
    """See `Store.attach`."""
    record = slot.records.get(invocation_id)
    if record is None:
        return None
    if record.status == "completed":
        return Status(record.status, record.outcome)
    told = join(record.waiters, channel)
    return Status(record.status, None, join(record.callers, caller) and told)


def deliver(
    slot: Slot,
    invocation_id: InvocationId,
    entry: Completion | Signalled | Cancelled,
    *,
    once: str,
    now_ms: int,
    hints: str,
    here: str,
    awakeable: bool = False,
) -> Delivery:
    """See `Store.deliver`; with `awakeable`, `Store.complete_awakeable`."""
    assert ":" in once, "such names stand beside the fields of an invocation"
    record = slot.records.get(invocation_id)
    if record is None:
        return Delivery("unknown")
    if record.status == "completed":
        return Delivery("completed")
    if awakeable and isinstance(entry, Completion) and f"a:{entry.command_index}" not in record.once:
        other = command_at(slot.tail(invocation_id, 0), entry.command_index)
        if other not in ("", "awakeable"):
            return Delivery("no-awakeable", status=other)
    if once in record.once:
        return Delivery("known")
    if not _received(record, entry, awakeable=awakeable):
        return Delivery("full")
    # What was made ready and never claimed has not begun, unless it is a restart that has kept something.
    unclaimed = record.status == "ready" and record.epoch == 0 and record.length == 1
    waits = unclaimed or record.status in ("scheduled", "pending")
    record.once.add(once)
    slot.write(invocation_id, record, entry)
    if isinstance(entry, Cancelled):
        if waits:
            output = Output(now_ms, Failure(409, "cancelled", {}))
            return _ended(invocation_id, output, end(slot, invocation_id, record, output, now_ms))
        # What failed too often may try to compensate.
        record.cancelled, record.failures, record.lost = record.length, 0, 0
    stopped = isinstance(entry, Cancelled)
    return wake(slot, invocation_id, record, now_ms=now_ms, hints=hints, also_stopped=stopped, here=here)


def answer(
    slot: Slot,
    invocation_id: InvocationId,
    answers: Sequence[tuple[int, Completion]],
    *,
    now_ms: int,
    hints: str,
    here: str,
) -> Answered:
    """See `Store.answer`."""
    record = slot.records.get(invocation_id)
    if record is None or record.status == "completed":
        return Answered(["unknown" if record is None else "completed"] * len(answers), [])
    results, length = [], record.length
    for position, entry in answers:
        place = record.places.get(entry.command_index)
        if place == ANSWERED_AT:
            results.append("known")
        elif place != position:
            results.append("gap")
        else:
            record.places[entry.command_index] = ANSWERED_AT
            slot.write(invocation_id, record, entry)
            results.append("delivered")
    if record.length == length:
        return Answered(results, [])
    return Answered(results, wake(slot, invocation_id, record, now_ms=now_ms, hints=hints, here=here).due)


def _received(record: Record, entry: Completion | Signalled | Cancelled, *, awakeable: bool) -> bool:
    """Count what is brought, and return whether there is room for it."""
    if isinstance(entry, Cancelled):
        if (record.cancellations or 0) >= CANCELLATIONS_MAX:
            return False
        record.cancellations = (record.cancellations or 0) + 1
    elif isinstance(entry, Signalled) or awakeable:
        size = (record.received_bytes or 0) + len(encode(entry)[1])
        if (record.received or 0) >= RECEIVED_MAX or size > RECEIVED_BYTES_MAX:
            return False
        record.received, record.received_bytes = (record.received or 0) + 1, size
    return True


def wake(
    slot: Slot,
    invocation_id: InvocationId,
    record: Record,
    *,
    now_ms: int,
    hints: str,
    also_stopped: bool = False,
    here: str = "",
) -> Delivery:
    """Have an invocation see what was appended: `also_stopped` wakes one that backs off or is paused, too."""
    match record.status:
        case "suspended":
            return Delivery("delivered", [slot.make_ready(invocation_id, record, now_ms)])
        case "backing-off" | "paused" if also_stopped:
            return Delivery("delivered", [slot.make_ready(invocation_id, record, now_ms)])
        case "running":
            if record.worker == here:
                return Delivery("delivered", [HintDue(here, invocation_id)])
            slot.publish(hints + (record.worker or ""), invocation_id.encode())
            return Delivery("delivered", [HintDue(record.worker or "", invocation_id)])
        case _:
            return Delivery("delivered", [])


def end(
    slot: Slot, invocation_id: InvocationId, record: Record, output: Output, now_ms: int, *, holds: bool = False
) -> Concluded:
    """Write an outcome that no handler returned; see `finish`."""
    slot.write(invocation_id, record, output)
    record.seq = record.seq or 0
    return finish(
        slot,
        invocation_id,
        record,
        output,
        now_ms=now_ms,
        retention_ms=RETENTION_MS if record.retention_ms is None else record.retention_ms,
        journal_retention_ms=RETENTION_MS if record.journal_retention_ms is None else record.journal_retention_ms,
        holds=holds,
    )


def keep(record: Record, asked: Admission | Restart) -> None:
    """Remember how long an outcome is kept that no attempt records."""
    if asked.retention_ms != RETENTION_MS:
        record.retention_ms = asked.retention_ms
    if asked.journal_retention_ms != RETENTION_MS:
        record.journal_retention_ms = asked.journal_retention_ms


def _ended(invocation_id: InvocationId, output: Output, concluded: Concluded) -> Delivery:
    topics, callers, following, *_ = concluded
    due: list[Due] = [ReplyDue(invocation_id, topics, output.outcome, callers)]
    return Delivery("delivered", due if following is None else [*due, following])


def kill(slot: Slot, invocation_id: InvocationId, output: Output, *, now_ms: int, hints: str) -> Delivery:
    """See `Store.kill`."""
    record = slot.records.get(invocation_id)
    if record is None:
        return Delivery("unknown")
    cascade = CascadeDue(invocation_id)
    if record.status == "completed":
        left = (cascade,) if hastened(cascade) in slot.due.scores else ()
        return Delivery("unchanged", left, record.status)
    holds = record.mode == "exclusive" and may_have_called(slot, invocation_id)
    worker = record.worker if record.status == "running" else ""
    # A new token keeps out an attempt that still runs.
    record.token = record.worker = ""
    # Its callees are killed by who sweeps this, and until then it is kept.
    record.outgoing = (record.outgoing or 0) + 1
    slot.due.put(hastened(cascade), 0)
    concluded = end(slot, invocation_id, record, output, now_ms, holds=holds)
    if worker:
        slot.publish(hints + worker, invocation_id.encode())
    ended = _ended(invocation_id, output, concluded)
    return ended._replace(due=[*ended.due, cascade])


def pause(
    slot: Slot, invocation_id: InvocationId, asked: PauseAsked, paused: Paused, *, now_ms: int, hints: str
) -> Delivery:
    """See `Store.pause`."""
    record = slot.records.get(invocation_id)
    if record is None:
        return Delivery("unknown")
    match record.status:
        case "completed" | "paused" | "pending" | "scheduled":
            return Delivery("unchanged", status=record.status)
        case "running":
            if f"p:{record.epoch}" not in record.once:
                record.once.add(f"p:{record.epoch}")
                slot.write(invocation_id, record, asked)
            return wake(slot, invocation_id, record, now_ms=now_ms, hints=hints)
        case _:
            slot.write(invocation_id, record, paused)
            slot.due.drop(*(f"{kind}:{invocation_id}" for kind in ("ready", "retry", "wake")))
            slot.move(invocation_id, record, "paused", now_ms)
            return Delivery("delivered", [])


def resume(slot: Slot, invocation_id: InvocationId, resumed: Resumed, *, now_ms: int) -> Delivery:
    """See `Store.resume`."""
    record = slot.records.get(invocation_id)
    if record is None:
        return Delivery("unknown")
    if record.status != "paused":
        return Delivery("unchanged", status=record.status)
    slot.write(invocation_id, record, resumed)
    record.failures = record.lost = 0
    return Delivery("delivered", [slot.make_ready(invocation_id, record, now_ms)])


def forget(slot: Slot, invocation_id: InvocationId) -> Delivery:
    """See `Store.purge`."""
    record = slot.records.get(invocation_id)
    if record is None:
        return Delivery("unknown")
    status = record.status
    return Delivery("delivered", []) if purge(slot, invocation_id, record) else Delivery("unchanged", status=status)


def restart(slot: Slot, asked: Restart, *, now_ms: int) -> Delivery:
    """See `Store.restart`."""
    invocation_id, target = asked.invocation_id, asked.target
    if invocation_id in slot.records:
        return Delivery("known")
    exclusive = asked.mode == "exclusive"
    if exclusive and len(slot.queues.get(target, [])) >= asked.queue_max:
        return Delivery("full")
    about = {"service": asked.service, "handler": asked.handler, "key": asked.key, "source": asked.source}
    record = Record({name: value for name, value in about.items() if value}, "pending", 0, now_ms, mode=asked.mode)
    keep(record, asked)
    slot.begin(invocation_id, record, asked.input)
    for entry in asked.kept:
        slot.write(invocation_id, record, entry)
    if exclusive and not enter(slot, target, invocation_id):
        return Delivery("delivered")
    return Delivery("delivered", [slot.make_ready(invocation_id, record, now_ms)])
