"""Durable promises and the state of objects in the in-memory store: `scripts/promise.lua`, `state_edit.lua`.

What belongs to a workflow is kept as long as its run. Time is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.schemas.commands import Lookup
from perdure.schemas.entries import Completion, Entry, Outcome
from perdure.schemas.errors import GapError
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import WAITERS_MAX

from .memory_delivery import wake
from .memory_objects import clear_value, set_value
from .memory_slot import ANSWERED_AT, Promises, Slot
from .promised import promised_by
from .store import Due, Lease, Promise
from .transitions import RETENTION_MS

PROMISE_RETENTION_MS = 24 * RETENTION_MS
"""How long promises are kept that nobody's run belongs to: a run that comes later finds them."""


def peek(slot: Slot, target: str, name: str) -> Promise | None:
    """See `Store.peek_promise`."""
    promises = slot.promises.get(target)
    return None if promises is None else promises.kept.get(name)


def complete(
    slot: Slot, target: str, name: str, made: Promise, *, run: InvocationId, now_ms: int, hints: str
) -> tuple[bool, Sequence[Due]]:
    """See `Store.complete_promise`."""
    promises = slot.promises.setdefault(target, Promises())
    known = promises.kept.get(name)
    if known is not None:
        return known.by == made.by, []
    promises.kept[name] = made
    due: list[Due] = []
    for invocation_id, index in promises.waits.pop(name, []):
        due += _tell(slot, invocation_id, index, made.outcome, now_ms=now_ms, hints=hints)
    _keep_as_run(slot, "promises", target, run, now_ms, without_run_ms=PROMISE_RETENTION_MS)
    return True, due


def wait(
    slot: Slot,
    target: str,
    name: str,
    waiting: tuple[InvocationId, int],
    *,
    position: int,
    run: InvocationId,
    now_ms: int,
    hints: str,
) -> Sequence[Due] | None:
    """See `Store.await_promise`."""
    record = slot.records.get(waiting[0])
    if record is not None and position and record.places.get(waiting[1]) not in (position, ANSWERED_AT):
        raise GapError(f"The store has only {record.length} entries: it lost the wait.")
    known = peek(slot, target, name)
    if known is not None:
        return _tell(slot, *waiting, known.outcome, now_ms=now_ms, hints=hints)
    promises = slot.promises.get(target, Promises())
    waits = promises.waits.get(name, [])
    if waiting in waits or record is None or record.status == "completed":
        return []
    if len(waits) >= WAITERS_MAX:
        return None
    promises.waits[name] = [*waits, waiting]
    slot.promises[target] = promises
    _keep_as_run(slot, "promises", target, run, now_ms, without_run_ms=PROMISE_RETENTION_MS)
    return []


def promises_are(slot: Slot, lease: Lease, entries: Sequence[Entry]) -> bool:
    """Whether promises are as entries say, which a failover may have changed since it was asked for."""
    for entry in entries:
        said = promised_by(lease.invocation_id, entry) if isinstance(entry, Lookup) else None
        if said is not None:
            known = peek(slot, lease.target, said.name)
            if known is None or (known.by == said.by) != said.won:
                return False
    return True


def _tell(
    slot: Slot, invocation_id: InvocationId, index: int, outcome: Outcome, *, now_ms: int, hints: str
) -> list[Due]:
    record = slot.records.get(invocation_id)
    if record is None or record.status == "completed" or record.places.get(index) == ANSWERED_AT:
        return []
    record.places[index] = ANSWERED_AT
    slot.write(invocation_id, record, Completion(index, now_ms, outcome))
    return list(wake(slot, invocation_id, record, now_ms=now_ms, hints=hints).due)


def edit_state(
    slot: Slot,
    target: str,
    changes: Sequence[tuple[str, bytes | None]],
    *,
    clear: bool,
    force: bool,
    run: InvocationId,
    now_ms: int,
) -> InvocationId | None:
    """See `Store.edit_state`."""
    if not force:
        if (holder := slot.holders.get(target)) is not None:
            return InvocationId(holder)
        if (record := slot.records.get(run)) is not None and record.status != "completed":
            return run
    if clear:
        slot.discard("state", target)
    for name, value in changes:
        if value is None:
            clear_value(slot, target, name)
        else:
            set_value(slot, target, name, value)
    _keep_as_run(slot, "state", target, run, now_ms, without_run_ms=None)
    return None


def _keep_as_run(
    slot: Slot, kind: str, target: str, run: InvocationId, now_ms: int, *, without_run_ms: int | None
) -> None:
    until_ms = slot.until.scores.get(f"invocation:{run}")
    if until_ms is not None:
        slot.expire(kind, target, now_ms=now_ms, in_ms=until_ms - now_ms)
    elif run not in slot.records and without_run_ms is not None and f"{kind}:{target}" not in slot.until.scores:
        slot.expire(kind, target, now_ms=now_ms, in_ms=without_run_ms)
