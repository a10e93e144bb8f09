"""What must hold when all is quiet: each request has the outcome that it should have, and nothing is owed or left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import orjson

from perdure.journal.memory_slot import Record, Slot
from perdure.schemas.commands import SetState
from perdure.schemas.entries import Failure, Input, Outcome, Success
from perdure.schemas.ids import InvocationId
from perdure.worker.broker import Partition

from .programs import BOX, FAILED, WORK, agrees, expected, may_fail
from .schedules import Request, Schedule
from .versions import Change


def at_rest(slots: Sequence[Slot], ids: Sequence[InvocationId], lag: Mapping[Partition, int]) -> bool:
    """Whether nothing is left to do."""
    records = records_of(slots)
    everything = all(record.status == "completed" for record in records.values()) and records.keys() >= set(ids)
    return everything and not lag and not any(slot.due.scores for slot in slots)


def records_of(slots: Sequence[Slot]) -> dict[str, Record]:
    """All invocations."""
    return {name: record for slot in slots for name, record in slot.records.items()}


def wrong_at_rest(
    slots: Sequence[Slot], schedule: Schedule, ids: Sequence[InvocationId], lag: Mapping[Partition, int]
) -> Iterator[str]:
    """Yield what is wrong after all had time to come to rest."""
    records = records_of(slots)
    for name, record in records.items():
        if record.status != "completed":
            yield f"G1: {name} of {record.service} is stuck: {record.status}, {record.last_failure}"
    for target, holder in ((target, holder) for slot in slots for target, holder in slot.holders.items()):
        yield f"G5: {target} is held by {holder}, which has ended"
    yield from (f"G1: Kafka acknowledged {name}, and nobody knows it" for name in ids if name not in records)
    if owed := [member for slot in slots for member in slot.due.scores]:
        yield f"G1: this is still due: {owed}"
    if lag:
        yield f"G1: these offsets are not committed: {lag}"
    stopped = any(event.kind in ("cancel", "kill") for event in schedule.events)
    for request, name in zip(schedule.requests, ids, strict=True):
        if request.service == WORK and name in records:
            outcome = records[name].outcome
            if schedule.versions:
                yield from _wrong_of_versions(name, request, outcome, schedule.change, stopped=stopped)
            else:
                yield from _wrong_outcome(name, request, outcome, stopped=stopped)
    for slot in slots:
        yield from _wrong_totals(slot)


def left_behind(slots: Sequence[Slot]) -> Iterator[str]:
    """Yield what outlived its retention. The state of objects is kept for ever."""
    for number, slot in enumerate(slots):
        left = [*slot.records, *slot.journals, *slot.holders, *slot.queues, *slot.promises, *slot.due.scores]
        left += [name for names in slot.index.values() for name in names]
        if left:
            yield f"slot {number} still has {left} after retention"


def _wrong_outcome(name: str, request: Request, outcome: Outcome | None, *, stopped: bool) -> Iterator[str]:
    wanted = expected(request.argument)
    match outcome:
        case Failure(code):
            if not ((wanted is None and code == FAILED) or (stopped and code == 409)):
                yield f"G1: {name} should end with {wanted}, and ended with {outcome}"
        case Success(value):
            found = orjson.loads(value)
            if wanted is None or not agrees(wanted, found):
                yield f"G1: {name} should end with {wanted}, and ended with {found}"
        case None:
            # It is stuck, which was said.
            pass


def _wrong_of_versions(
    name: str, request: Request, outcome: Outcome | None, change: Change, *, stopped: bool
) -> Iterator[str]:
    match outcome:
        case Failure(code):
            if not ((may_fail(request.argument) and code == FAILED) or (stopped and code == 409)):
                yield f"G8: {name} ended with {outcome}"
        case Success(value):
            found = orjson.loads(value)
            wanted = [expected(request.argument, each, versions=True) for each in (None, change)]
            if not any(each is not None and agrees(each, found) for each in wanted):
                yield f"G8: {name} should end with one of {wanted}, and ended with {found}"
        case None:
            # It is stuck, which was said.
            pass


def _wrong_totals(slot: Slot) -> Iterator[str]:
    sums: Counter[str] = Counter()
    for name, record in slot.records.items():
        journal = slot.journals.get(name, [])
        adds = (record.service, record.target["handler"]) == (BOX, "add")
        if adds and journal and isinstance(journal[0].entry, Input):
            written = sum(isinstance(row.entry, SetState) for row in journal)
            sums[record.object] += written * orjson.loads(journal[0].entry.value)
    for target, total in sums.items():
        found = orjson.loads(slot.states.get(target, {}).get("total", b"0"))
        if found != total:
            yield f"G3: the total of {target} is {found}, and its journals say {total}"
