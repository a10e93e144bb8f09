"""The store in memory: the reference model of `Store` for tests and for simulations.

Single-threaded and without I/O. Each call does its work before it returns, and the future that it returns is resolved
already. Same statuses, positions, epochs, deadlines and answers as the Lua scripts; the tests of `Store` run on both.
What an attempt does is here, what comes from outside in `memory_outside`, reading in `memory_reads`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.schemas.entries import Completion, Entry, Output
from perdure.schemas.ids import InvocationId

from . import memory_attempt as attempt
from .memory_delivery import answer, join, joinable, keep
from .memory_ending import acknowledge
from .memory_namespace import settled
from .memory_objects import enter, state_of
from .memory_outside import MemoryOutside
from .memory_reads import MemoryReads
from .memory_slot import Record, Slot
from .memory_sweep import sweep
from .store import (
    ALWAYS_MS,
    Admission,
    Admitted,
    Appended,
    Caller,
    Claim,
    Claimed,
    Concluded,
    Duplicate,
    Follow,
    Full,
    Lease,
    Queued,
    ResumeDue,
    Scheduled,
    Swept,
)
from .transitions import Answered


class MemoryStore(MemoryOutside, MemoryReads):
    """`Store` in this process's memory."""

    def admit(self, admission: Admission, *, lease_ms: int) -> asyncio.Future[Admitted]:
        """See `Store.admit`."""
        return settled(lambda: self._admit(admission, lease_ms))

    def claim(
        self, invocation_id: InvocationId, epoch: int, *, token: str, worker: str, lease_ms: int, at_ms: int
    ) -> asyncio.Future[Claim | None]:
        """See `Store.claim`."""
        slot, now_ms = self._at(invocation_id)
        lease = Lease(invocation_id, epoch + 1, token, worker)
        return settled(lambda: attempt.claim(slot, lease, now_ms=now_ms, lease_ms=lease_ms, at_ms=at_ms))

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Appended]:
        """See `Store.append`."""
        slot, now_ms = self._at(lease.invocation_id)
        return settled(
            lambda: attempt.append(slot, lease, entries, after=after, seq=seq, progress=progress, now_ms=now_ms)
        )

    def complete(
        self,
        lease: Lease,
        entries: Sequence[Entry],
        *,
        after: int,
        seq: int,
        retention_ms: int,
        journal_retention_ms: int,
        timers: Sequence[int] = (),
        follow: Follow | None = None,
    ) -> asyncio.Future[Concluded]:
        """See `Store.complete`."""
        slot, now_ms = self._at(lease.invocation_id)
        return settled(
            lambda: attempt.complete(
                slot,
                lease,
                entries,
                after=after,
                seq=seq,
                retention_ms=retention_ms,
                journal_retention_ms=journal_retention_ms,
                timers=timers,
                follow=follow,
                now_ms=now_ms,
                tell=self._tell if self._one_node else None,
            )
        )

    def _tell(self, caller: Caller, output: Output, here: str) -> Answered:
        slot, now_ms = self._at(caller.invocation_id)
        completion = Completion(caller.command_index, output.at_ms, output.outcome)
        answers = [(caller.position, completion)]
        return answer(slot, caller.invocation_id, answers, now_ms=now_ms, hints=self._hints, here=here)

    def suspend(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, wake_in_ms: int | None
    ) -> asyncio.Future[Appended | None]:
        """See `Store.suspend`."""
        deadline = None if wake_in_ms is None else ("wake", wake_in_ms)
        slot, now_ms = self._at(lease.invocation_id)
        return settled(
            lambda: attempt.leave(
                slot,
                lease,
                entries,
                after=after,
                seq=seq,
                status="suspended",
                now_ms=now_ms,
                deadline=deadline,
                unless_new=True,
            )
        )

    def back_off(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, retry_in_ms: int, failure: str
    ) -> asyncio.Future[None]:
        """See `Store.back_off`."""
        deadline = ("retry", retry_in_ms)
        return self._leave(
            lease, entries, after=after, seq=seq, status="backing-off", deadline=deadline, failure=failure
        )

    def give_up(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, failure: str
    ) -> asyncio.Future[None]:
        """See `Store.give_up`."""
        return self._leave(lease, entries, after=after, seq=seq, status="paused", failure=failure)

    def release(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int) -> asyncio.Future[None]:
        """See `Store.release`."""
        return self._leave(lease, entries, after=after, seq=seq, status="ready")

    def _leave(
        self,
        lease: Lease,
        entries: Sequence[Entry],
        *,
        after: int,
        seq: int,
        status: str,
        deadline: tuple[str, int] | None = None,
        failure: str = "",
    ) -> asyncio.Future[None]:
        slot, now_ms = self._at(lease.invocation_id)

        def act() -> None:
            attempt.leave(
                slot,
                lease,
                entries,
                after=after,
                seq=seq,
                status=status,
                now_ms=now_ms,
                deadline=deadline,
                failure=failure,
            )

        return settled(act)

    def sweep(self, slot: int, *, leases_until_ms: int = ALWAYS_MS) -> asyncio.Future[Swept]:
        """See `Store.sweep`."""
        swept, now_ms = self._now(slot)
        hints = self._keys.hints("")
        return settled(lambda: sweep(swept, now_ms, hints=hints, leases_until_ms=leases_until_ms))

    def acknowledge(
        self,
        invocation_id: InvocationId,
        *,
        reply: bool = False,
        sent: Sequence[int] = (),
        cascade: bool = False,
        as_of: int | None = None,
    ) -> asyncio.Future[ResumeDue | None]:
        """See `Store.acknowledge`."""
        slot, now_ms = self._at(invocation_id)
        return settled(lambda: acknowledge(slot, invocation_id, reply=reply, sent=sent, cascade=cascade, now_ms=now_ms))

    def renew(
        self, leases: Sequence[Lease], *, lease_ms: int, alone: bool = False
    ) -> asyncio.Future[Sequence[int | None]]:
        """See `Store.renew`."""
        lengths = []
        for lease in leases:
            slot, now_ms = self._at(lease.invocation_id)
            lengths.append(attempt.renew(slot, lease, now_ms=now_ms, lease_ms=lease_ms, alone=alone))
        return settled(lambda: lengths)

    def _admit(self, admission: Admission, lease_ms: int) -> Admitted:
        slot, now_ms = self._at(admission.invocation_id)
        known = slot.records.get(admission.invocation_id)
        if known is not None:
            return _admit_again(slot, known, admission)
        exclusive, later = admission.mode == "exclusive", admission.not_before_ms > now_ms
        target = admission.target
        if exclusive and not later:
            # The queue may have moved since the one before was refused: this one would overtake it.
            overtakes = admission.behind and admission.behind not in slot.records
            if overtakes or len(slot.queues.get(target, [])) >= admission.queue_max:
                return Full()
        if admission.mode == "main":
            # What came before the run, such as promises that were completed already, is kept as long as the run.
            slot.persist("state", target)
            slot.persist("promises", target)
        record = _record(admission, now_ms)
        if later:
            record.status = "scheduled"
            slot.due.put(f"start:{admission.invocation_id}", admission.not_before_ms)
        elif exclusive and not enter(slot, target, admission.invocation_id):
            record.status = "pending"
        else:
            record.status, record.epoch = "running", 1
            record.token, record.worker = admission.token, admission.worker
            slot.due.put(f"lease:{admission.invocation_id}", now_ms + lease_ms)
        slot.begin(admission.invocation_id, record, admission.input)
        match record.status:
            case "scheduled":
                return Scheduled()
            case "pending":
                return Queued()
            case _:
                return _claimed(slot, admission)


def _record(admission: Admission, now_ms: int) -> Record:
    optional = {"key": admission.key, "idempotency_key": admission.idempotency_key, "source": admission.source}
    about = {"service": admission.service, "handler": admission.handler}
    about |= {name: value for name, value in optional.items() if value}
    record = Record(about, "", 0, now_ms, mode=admission.mode)
    join(record.waiters, admission.waiter)
    join(record.reply_to, admission.reply_to)
    join(record.callers, admission.caller)
    keep(record, admission)
    return record


def _claimed(slot: Slot, admission: Admission) -> Claimed:
    lease = Lease(admission.invocation_id, 1, admission.token, admission.worker, admission.target)
    return Claimed(lease, None if admission.key is None else state_of(slot, admission.target))


def _admit_again(slot: Slot, known: Record, admission: Admission) -> Admitted:
    if known.epoch == 1 and known.token == admission.token and known.status == "running":
        return _claimed(slot, admission)
    if known.output_body is not None:
        if admission.waiter:
            slot.tell_outcome(admission.waiter, admission.invocation_id, known.output_body)
        return Duplicate(known.status, known.outcome)
    if not (joinable(known.callers, admission.caller) and joinable(known.reply_to, admission.reply_to)):
        return Full()
    join(known.callers, admission.caller)
    join(known.reply_to, admission.reply_to)
    # A waiter that is not told asks again by itself.
    join(known.waiters, admission.waiter)
    return Duplicate(known.status, None)
