"""What must hold after every step of a simulation: the guarantees G1-G6 and G9, read off the store and its journals.

The auditor keeps its own account of who was given which lease and of what it has seen in each journal, and compares
it with the store after each command. What it finds is a sentence that names the guarantee.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from perdure.journal.memory_slot import Record, Slot
from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission, Claim, Claimed, Concluded, Lease
from perdure.schemas.commands import Call
from perdure.schemas.entries import Completion, Output, Positioned, Run, Sleep
from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId

from .virtual_redis import Executed

BEGUN = frozenset({"ready", "running", "suspended", "backing-off", "paused"})
"""Statuses of an exclusive invocation whose turn it is."""

WAITS = frozenset({"", "scheduled"})
"""Statuses before there is a turn to wait for."""

RESUMING = frozenset({"resume", "deliver"})
"""What lets a paused invocation go on: people, and a cancellation."""

OF_ATTEMPTS = frozenset({"append", "complete", "suspend", "back_off", "give_up", "release"})


@dataclass(slots=True)
class Seen:
    """What the auditor knows of one invocation."""

    status: str = ""
    epoch: int = 0
    token: str | None = None
    journal: list[Positioned] = field(default_factory=list)
    slept: dict[int, int] = field(default_factory=dict)
    granted: Lease | None = None
    not_before_ms: int = 0


class Auditor:
    """Looks at the store after each command.

    Args:
        report: Told what is wrong.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._seen: dict[str, Seen] = {}
        self._lines: defaultdict[str, list[str]] = defaultdict(list)
        self._callers: dict[str, str] = {}
        self._killed: dict[str, str] = {}
        self.admitted: dict[str, int] = {}

    def seen(self, store: MemoryStore, command: Executed, answer: object, *, length: int) -> None:
        """A command was executed, and the log has that many commands now."""
        refused = isinstance(answer, PerdureError)
        writer = command.args[0] if command.name in OF_ATTEMPTS else None
        if not refused:
            self._note(command, answer, length)
        newcomers: defaultdict[str, list[tuple[str, Record]]] = defaultdict(list)
        for slot in store._slots:
            for name, record in slot.records.items():
                known = self._seen.get(name)
                if known is None:
                    known = self._seen[name] = Seen()
                if (
                    record.length != len(known.journal)
                    or record.status != known.status
                    or record.epoch != known.epoch
                    or record.token != known.token
                ):
                    if (
                        record.mode == "exclusive"
                        and known.status in ("", "scheduled")
                        and record.status != "scheduled"
                    ):
                        newcomers[record.object].append((name, record))
                    self._changed(slot, name, record, known, command, writer)
            self._check_objects(slot, newcomers)
            newcomers.clear()

    def rewound(self, store: MemoryStore, length: int) -> None:
        """The store lost its newest writes: what is there now is all that counts."""
        self.admitted = {name: at for name, at in self.admitted.items() if at <= length}
        granted = {name: seen.granted for name, seen in self._seen.items()}
        slept = {name: seen.slept for name, seen in self._seen.items()}
        befores = {name: seen.not_before_ms for name, seen in self._seen.items()}
        self._seen.clear()
        ended = {name for slot in store._slots for name, record in slot.records.items() if record.status == "completed"}
        self._killed = {name: target for name, target in self._killed.items() if name in ended}
        for slot in store._slots:
            for name, record in slot.records.items():
                lease = granted.get(name)
                if lease is not None and (lease.epoch, lease.token) != (record.epoch, record.token):
                    lease = Lease(InvocationId(name), record.epoch, record.token or "", "")
                journal = list(slot.journals[name])
                kept = {row.entry.command_index for row in journal if isinstance(row.entry, Sleep)}
                self._seen[name] = Seen(
                    record.status,
                    record.epoch,
                    record.token,
                    journal,
                    {index: at for index, at in slept.get(name, {}).items() if index in kept},
                    lease,
                    befores.get(name, 0),
                )
        self._lines = self._lines_of(store)

    def _lines_of(self, store: MemoryStore) -> defaultdict[str, list[str]]:
        known = {name for slot in store._slots for name in slot.records}
        queues = {target: queue for slot in store._slots for target, queue in slot.queues.items()}
        lines: defaultdict[str, list[str]] = defaultdict(list)
        for target, line in self._lines.items():
            waiting = queues.get(target, [])
            lines[target] = [name for name in line if name in known and name not in waiting] + list(waiting)
        return lines

    def offset_moved(self, topic: str, offset: int, ids: Iterable[str | None], *, durable: int) -> None:
        """An offset was committed; `ids` are the invocations of all records below it."""
        for at, name in enumerate(ids):
            if name is not None and self.admitted.get(name, durable + 1) > durable:
                self._report(
                    f"G9: offset {offset} of {topic} was committed, and {name} at {at} is not durably admitted"
                )

    def _note(self, command: Executed, answer: object, length: int) -> None:
        if command.name == "admit":
            admission: Admission = command.args[0]
            name = admission.invocation_id
            if not isinstance(answer, (Claimed,)) and type(answer).__name__ == "Full":
                return
            self.admitted.setdefault(name, length)
            if name not in self._seen:
                self._seen[name] = Seen(not_before_ms=admission.not_before_ms)
            if isinstance(answer, Claimed):
                self._grant(answer.lease)
        elif isinstance(answer, Claim):
            self._grant(answer.lease)
        elif isinstance(answer, Concluded) and answer.claim is not None:
            self._grant(answer.claim.lease)

    def _grant(self, lease: Lease) -> None:
        known = self._seen.setdefault(lease.invocation_id, Seen())
        granted = known.granted
        if granted is None or lease.epoch > granted.epoch:
            known.granted = lease
        elif (lease.epoch, lease.token) != (granted.epoch, granted.token):
            self._report(f"G4: {lease.invocation_id} was claimed twice under epoch {lease.epoch}")

    def _changed(self, slot: Slot, name: str, record: Record, known: Seen, command: Executed, writer: Any) -> None:
        now_ms = command.at_ms
        if not known.epoch <= record.epoch <= known.epoch + 1:
            self._report(f"G4: the epoch of {name} went from {known.epoch} to {record.epoch}")
        journal = slot.journals.get(name, [])
        old = known.journal
        if len(journal) != record.length or journal[: len(old)] != old:
            self._report(f"G3: the journal of {name} is not what it was with something appended")
            old = old[: len(journal)]
        new = journal[len(old) :]
        if known.status == "completed" and (record.status != "completed" or new):
            self._report(f"G1: {name} was completed, and {command.name} made it {record.status} with {new}")
        if (
            isinstance(writer, Lease)
            and writer.invocation_id == name
            and new
            and known.granted is not None
            and (writer.epoch, writer.token) != (known.granted.epoch, known.granted.token)
        ):
            self._report(
                f"G4: {command.name} of epoch {writer.epoch} wrote to {name}, which epoch {record.epoch} holds"
            )
        self._check_entries(name, journal, new, known, now_ms)
        completed = any(isinstance(row.entry, Output) for row in journal)
        if completed != (record.status == "completed"):
            self._report(f"G1: {name} is {record.status}, and its journal {'has' if completed else 'lacks'} an outcome")
        if (
            known.status == "paused"
            and record.status in BEGUN - {"paused"}
            and command.name not in ("resume", "deliver")
        ):
            self._report(f"G8: {name} was paused, and {command.name} made it {record.status}")
        begins = known.status in WAITS and record.status in BEGUN
        if begins and now_ms < known.not_before_ms:
            self._report(f"G6: {name} was started {known.not_before_ms - now_ms} ms early")
        if record.status == "completed" and command.name == "kill":
            self._killed[name] = record.object if known.status in BEGUN and record.mode == "exclusive" else ""
        elif record.mode == "exclusive" and known.status not in BEGUN and record.status in BEGUN:
            self._check_turn(name, record.object)
        known.status, known.epoch, known.token = record.status, record.epoch, record.token
        known.journal = list(journal)

    def _check_turn(self, name: str, target: str) -> None:
        # What ended by itself has left what it called behind: only what is killed, or runs, has it killed.
        callee, caller = name, self._callers.get(name)
        while (
            caller is not None
            and (seen := self._seen.get(caller)) is not None
            and (caller in self._killed or seen.status != "completed")
        ):
            if self._killed.get(caller) == target and _awaits(seen.journal, callee):
                self._report(f"G5: {name} gets its turn of {target}, and was called below {caller}, which was killed")
            callee, caller = caller, self._callers.get(caller)

    def _check_entries(
        self, name: str, journal: list[Positioned], new: list[Positioned], known: Seen, now_ms: int
    ) -> None:
        for row in new:
            entry = row.entry
            if isinstance(entry, Sleep):
                known.slept[entry.command_index] = now_ms + entry.duration_ms
            elif isinstance(entry, Completion):
                if known.slept.get(entry.command_index, 0) > now_ms:
                    early_ms = known.slept[entry.command_index] - now_ms
                    self._report(f"G6: timer {entry.command_index} of {name} fired {early_ms} ms early")
                if _count(journal, Completion, entry.command_index) > 1:
                    self._report(f"G3: command {entry.command_index} of {name} was completed twice")
            elif isinstance(entry, Call):
                self._callers[entry.invocation_id] = name
            elif isinstance(entry, Run) and _count(journal, Run, entry.command_index) > 1:
                self._report(f"G2: step {entry.name} of {name} was recorded twice")
            elif isinstance(entry, Output) and sum(isinstance(each.entry, Output) for each in journal) > 1:
                self._report(f"G1: {name} has two outcomes")

    def _check_objects(self, slot: Slot, newcomers: dict[str, list[tuple[str, Record]]]) -> None:
        for target, found in newcomers.items():
            queue = slot.queues.get(target, [])
            found.sort(key=lambda each: queue.index(each[0]) + 1 if each[0] in queue else 0)
            self._lines[target] += [name for name, _ in found]
        for target, line in self._lines.items():
            if not line or (target not in slot.holders and target not in slot.queues):
                continue
            while line and (record := slot.records.get(line[0])) is not None and record.status == "completed":
                del line[0]
            begun = [name for name in line if (each := slot.records.get(name)) and each.status in BEGUN]
            if len(begun) > 1:
                self._report(f"G5: {' and '.join(begun)} have the object {target} at once")
            elif begun and line[0] != begun[0] and not _ended_out_of_turn(slot, line, begun[0]):
                self._report(f"G5: {begun[0]} has the object {target} before {line[0]}, which was admitted first")
            if begun and slot.holders.get(target) != begun[0]:
                self._report(f"G5: {begun[0]} runs, and {target} is held by {slot.holders.get(target)}")


def _awaits(journal: list[Positioned], callee: str) -> bool:
    """Whether a call of it is without an answer."""
    answered = {row.entry.command_index for row in journal if isinstance(row.entry, Completion)}
    calls = (row.entry for row in journal if isinstance(row.entry, Call) and row.entry.invocation_id == callee)
    return any(call.command_index not in answered for call in calls)


def _ended_out_of_turn(slot: Slot, line: list[str], begun: str) -> bool:
    """Whether all before it were ended while they waited: by people."""
    before = line[: line.index(begun)]
    return all((record := slot.records.get(name)) is None or record.status == "completed" for name in before)


def _count(journal: list[Positioned], kind: type[Completion] | type[Run], index: int) -> int:
    return sum(isinstance(row.entry, kind) and row.entry.command_index == index for row in journal)
