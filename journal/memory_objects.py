"""Objects in the in-memory store: who holds one, who waits for it, its state. `scripts/objects.lua`, `effects.lua`."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.schemas.commands import Attach, Awakeable, Call, ClearAll, ClearState, PromiseWait, SetState
from perdure.schemas.entries import OUTGOING, Entry
from perdure.schemas.ids import InvocationId

from .memory_slot import REPLY_LEASE_MS, Record, Slot
from .store import Lease, ResumeDue, State

STATE_NAMES_MAX, STATE_BYTES_MAX = 200, 65_536
"""What comes with a claim. Redis counts bytes with what it adds to them, so that near the bound the stores differ."""


def enter(slot: Slot, target: str, invocation_id: InvocationId) -> bool:
    """Whether it holds the object now; else it waits in the queue, at its end."""
    holder = slot.holders.get(target)
    if holder is not None and holder != invocation_id and holder in slot.records:
        slot.queues.setdefault(target, []).append(invocation_id)
        return False
    slot.holders[target] = invocation_id
    return True


def release(slot: Slot, target: str, invocation_id: InvocationId, now_ms: int) -> ResumeDue | None:
    """Give the object to the next in its queue, if `invocation_id` holds it; else take that out of the queue."""
    queue = slot.queues.get(target, [])
    if slot.holders.get(target) != invocation_id:
        if invocation_id in queue:
            queue.remove(invocation_id)
            _end_queue(slot, target)
        return None
    while queue:
        following = InvocationId(queue.pop(0))
        _end_queue(slot, target)
        record = slot.records.get(following)
        if record is not None and record.status == "pending":
            slot.holders[target] = following
            return slot.make_ready(following, record, now_ms)
    del slot.holders[target]
    return None


def _end_queue(slot: Slot, target: str) -> None:
    if not slot.queues[target]:
        del slot.queues[target]


def handed(slot: Slot, target: str, invocation_id: InvocationId, token: str) -> ResumeDue | None:
    """Who holds the object after it and is ready to be claimed, or was by `token`: for a repeated `release`."""
    holder = slot.holders.get(target)
    if holder is None or holder == invocation_id:
        return None
    record = slot.records.get(holder)
    if record is not None and token and record.token == token:
        return ResumeDue(InvocationId(holder), record.epoch - 1, record.service)
    if record is None or record.status != "ready":
        return None
    return ResumeDue(InvocationId(holder), record.epoch, record.service)


def state_of(slot: Slot, target: str) -> State | None:
    """An object's whole state where it is small; `None` where it is to be read lazily."""
    state = slot.states.get(target, {})
    size = sum(len(name.encode()) + len(value) for name, value in state.items())
    return None if len(state) > STATE_NAMES_MAX or size > STATE_BYTES_MAX else dict(state)


def set_value(slot: Slot, target: str, name: str, value: bytes) -> None:
    """Write one value."""
    slot.states.setdefault(target, {})[name] = value


def clear_value(slot: Slot, target: str, name: str) -> None:
    """Remove one value."""
    state = slot.states.get(target, {})
    state.pop(name, None)
    if not state:
        slot.discard("state", target)


def take_effect(slot: Slot, record: Record, lease: Lease, entries: Sequence[Entry], *, now_ms: int) -> None:
    """Do what entries do beside standing in the journal, before they are written."""
    for position, entry in enumerate(entries, record.length + 1):
        match entry:
            case SetState(_, name, value):
                set_value(slot, lease.target, name, value)
            case ClearState(_, name):
                clear_value(slot, lease.target, name)
            case Awakeable(index):
                record.once.add(f"a:{index}")
            case ClearAll():
                slot.discard("state", lease.target)
            case _ if isinstance(entry, OUTGOING):
                slot.due.put(f"send:{lease.invocation_id}:{position}", now_ms + REPLY_LEASE_MS)
                record.outgoing = (record.outgoing or 0) + 1
                if isinstance(entry, Call | Attach | PromiseWait):
                    record.places[entry.command_index] = position
            case _:
                pass
