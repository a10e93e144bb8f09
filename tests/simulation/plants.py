"""Bugs on purpose: the engine and its store with one rule broken. The simulator must find each of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from perdure.journal.machine import Machine
from perdure.journal.memory_objects import release
from perdure.journal.memory_store import MemoryStore
from perdure.journal.promised import COMPLETED
from perdure.journal.store import Caller, Delivery, Lease, ResumeDue, Swept
from perdure.journal.transitions import Answered
from perdure.schemas.commands import Lookup
from perdure.schemas.entries import OUTGOING, Completion, Entry, Identity, Output, Sleep, Success
from perdure.schemas.ids import InvocationId
from perdure.worker import attempt
from perdure.worker.broker import Record
from perdure.worker.committer import Committer
from perdure.worker.engine import Engine

from .simulation import SLOTS, Plant
from .virtual_redis import StoreClock
from .virtual_worker import NAMESPACE, VirtualWorker

OF_ATTEMPTS = ("append", "complete", "suspend", "back_off", "give_up", "release")


class StorePlant(Plant):
    """A store with a bug.

    Args:
        kind: The store.
    """

    def __init__(self, kind: type[MemoryStore]) -> None:
        self._kind = kind

    def store(self, clock: StoreClock, publish: Callable[[str, bytes], None], *, one_node: bool) -> MemoryStore:
        """See `Plant.store`."""
        return self._kind(clock, slots=SLOTS, namespace=NAMESPACE, publish=publish, one_node=one_node)


class MachinePlant(Plant):
    """Attempts with a machine that has a bug.

    Args:
        kind: The machine.
    """

    def __init__(self, kind: type[Machine]) -> None:
        self._kind = kind

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """See `Plant.planted`."""
        names = vars(attempt)
        names["Machine"] = self._kind
        try:
            yield
        finally:
            names["Machine"] = Machine


class Trustful(Machine):
    """Takes each command for the one that is recorded at its place."""

    __slots__ = ()

    def _next(self, identity: Identity) -> int:
        return super()._next(self._recorded.get(self._issued, identity))


class Glancing(Machine):
    """Compares what kind of command it is, and not whose, or by what name."""

    __slots__ = ()

    def _next(self, identity: Identity) -> int:
        recorded = self._recorded.get(self._issued, identity)
        return super()._next(recorded if recorded.type == identity.type else identity)


class Unfenced(MemoryStore):
    """Takes writes of whoever held a lease once."""

    def __getattribute__(self, name: str) -> Any:
        """Wrap what an attempt may do."""
        found = super().__getattribute__(name)
        if name not in OF_ATTEMPTS:
            return found

        def unfenced(lease: Lease, *args: Any, **kwargs: Any) -> Any:
            record = self._record(lease.invocation_id)
            if record is not None and (record.epoch, record.token) != (lease.epoch, lease.token):
                lease = lease._replace(epoch=record.epoch, token=record.token or "")
                # The numbers of writes would stand in for the fence.
                kwargs["seq"] = (record.seq or 0) + 1
            return found(lease, *args, **kwargs)

        return unfenced


class Unsent(MemoryStore):
    """Takes what an attempt sends for done as soon as it is written: nobody sends it again."""

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Any]:
        """See `Store.append`."""
        done = super().append(lease, entries, after=after, seq=seq, progress=progress)
        if done.exception() is None:
            length = done.result().length
            sent = [length - at for at, entry in enumerate(reversed(entries)) if isinstance(entry, OUTGOING)]
            if sent:
                self.acknowledge(lease.invocation_id, sent=sent)
        return done


class Popping(MemoryStore):
    """Takes a deadline away when it is due, and not when what it asks for was done."""

    def sweep(self, slot: int, *, leases_until_ms: int = 2**53 - 1) -> asyncio.Future[Swept]:
        """See `Store.sweep`."""
        done = super().sweep(slot, leases_until_ms=leases_until_ms)
        for due in done.result().due:
            if isinstance(due, ResumeDue):
                self._slots[slot].due.drop(f"ready:{due.invocation_id}")
        return done


class LastWins(MemoryStore):
    """Takes every completion of a command."""

    def deliver(self, invocation_id: InvocationId, entry: Any, *, once: str, **where: Any) -> asyncio.Future[Any]:
        """See `Store.deliver`."""
        record = self._record(invocation_id)
        if record is not None:
            record.once.discard(once)
        return super().deliver(invocation_id, entry, once=once, **where)

    def answer(
        self, invocation_id: InvocationId, answers: Sequence[tuple[int, Completion]], *, here: str = ""
    ) -> asyncio.Future[Any]:
        """See `Store.answer`."""
        record = self._record(invocation_id)
        if record is not None:
            record.places.update((entry.command_index, position) for position, entry in answers)
        return super().answer(invocation_id, answers, here=here)

    def complete_awakeable(
        self, invocation_id: InvocationId, entry: Completion, *, here: str = ""
    ) -> asyncio.Future[Any]:
        """See `Store.complete_awakeable`."""
        record = self._record(invocation_id)
        if record is not None:
            record.once.discard(f"r:{entry.command_index}")
        return super().complete_awakeable(invocation_id, entry, here=here)


class Mute(MemoryStore):
    """Takes callers for told by the end of what they called."""

    def _tell(self, caller: Caller, output: Output, here: str) -> Answered:
        return Answered(["delivered"], [])


class TwiceReleasing(MemoryStore):
    """Hands an object on once more than it was held."""

    def complete(self, lease: Lease, entries: Sequence[Entry], **how: Any) -> asyncio.Future[Any]:
        """See `Store.complete`."""
        done = super().complete(lease, entries, **how)
        slot, now_ms = self._at(lease.invocation_id)
        holder = slot.holders.get(lease.target)
        if done.exception() is None and holder is not None and slot.queues.get(lease.target):
            release(slot, lease.target, InvocationId(holder), now_ms)
        return done


class Careless(MemoryStore):
    """Hands the object of what is killed on at once, although what it called may be the next."""

    def kill(self, invocation_id: InvocationId, output: Output) -> asyncio.Future[Delivery]:
        """See `Store.kill`."""
        done = super().kill(invocation_id, output)
        record, (slot, now_ms) = self._record(invocation_id), self._at(invocation_id)
        if record is not None and slot.holders.get(record.object) == invocation_id:
            release(slot, record.object, invocation_id, now_ms)
        return done


class Hasty(MemoryStore):
    """Lets timers fire a little early."""

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Any]:
        """See `Store.append`."""
        done = super().append(lease, entries, after=after, seq=seq, progress=progress)
        due = self._at(lease.invocation_id)[0].due
        for entry in entries:
            if isinstance(entry, Sleep):
                member = f"sleep:{lease.invocation_id}:{entry.command_index}"
                due.put(member, due.scores.get(member, 0) - 10)
        return done


class Forgetful(MemoryStore):
    """Admits an invocation anew that is completed already."""

    def admit(self, admission: Any, *, lease_ms: int) -> asyncio.Future[Any]:
        """See `Store.admit`."""
        slot, _ = self._at(admission.invocation_id)
        record = slot.records.get(admission.invocation_id)
        if record is not None and record.status == "completed":
            slot.discard("invocation", admission.invocation_id)
            slot.discard("journal", admission.invocation_id)
        return super().admit(admission, lease_ms=lease_ms)


class Trusting(MemoryStore):
    """Takes an attempt's word for what became of a promise, instead of looking whether it is still so."""

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Any]:
        """See `Store.append`."""
        # The same to a handler, and none of the outcomes that are looked at.
        taken = [
            entry._replace(outcome=Success(b" null"))
            if isinstance(entry, Lookup) and entry.outcome == COMPLETED
            else entry
            for entry in entries
        ]
        return super().append(lease, taken, after=after, seq=seq, progress=progress)


class Hurried(Plant):
    """Takes a record for admitted when it is fetched: its offset may move before anybody knows the invocation."""

    def worker(self, worker: VirtualWorker) -> VirtualWorker:
        """See `Plant.worker`."""
        worker.prepare = _hurry
        return worker


def _hurry(engine: Engine) -> None:
    for source in engine._sources:
        _admit_at_once(source.committer)


def _admit_at_once(committer: Committer) -> None:
    fetched = committer.fetched

    def at_once(record: Record) -> int:
        generation = fetched(record)
        committer.admitted(record, generation)
        return generation

    vars(committer)["fetched"] = at_once


PLANTS: dict[str, Plant] = {
    "no fencing": StorePlant(Unfenced),
    "offset committed early": Hurried(),
    "outbox removed early": StorePlant(Unsent),
    "timer popped not leased": StorePlant(Popping),
    "completion not first-wins": StorePlant(LastWins),
    "caller not told": StorePlant(Mute),
    "lock released twice": StorePlant(TwiceReleasing),
    "timer early": StorePlant(Hasty),
    "completed twice": StorePlant(Forgetful),
    "promise not looked at": StorePlant(Trusting),
    "object freed at once": StorePlant(Careless),
    "commands not compared": MachinePlant(Trustful),
    "only types compared": MachinePlant(Glancing),
}
