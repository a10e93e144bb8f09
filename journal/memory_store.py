"""The store in memory: the reference model of `Store` for tests and for simulations.

Single-threaded and without I/O. Each call does its work before it returns, and the future that it returns is resolved
already. Same statuses, positions, epochs, deadlines and answers as the Lua scripts; the tests of `Store` run on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from perdure.schemas.entries import Entry, Positioned
from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId, slot_of
from perdure.schemas.limits import WAITERS_MAX

from . import memory_attempt as attempt
from .keys import Keys
from .memory_slot import Record, Slot
from .memory_sweep import sweep
from .store import (
    ALWAYS_MS,
    Admission,
    Admitted,
    Appended,
    Claim,
    Claimed,
    Duplicate,
    Lease,
    Scheduled,
    Status,
    Summary,
    Swept,
)

WORKER_LIFE_MS = 6_000
"""A worker without a heartbeat for this long is not counted as alive."""

_T = TypeVar("_T")


class Clock(Protocol):
    """The store's time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""


def _to_nobody(channel: str, message: bytes) -> None:
    pass


class MemoryStore:
    """`Store` in this process's memory.

    Args:
        clock: The store's time; deadlines fall due by it.
        slots: How many slots the namespace has.
        namespace: Begins the names of channels.
        publish: Told each message to a channel: hints and outcomes.
    """

    def __init__(
        self,
        clock: Clock,
        slots: int = 64,
        *,
        namespace: str = "memory",
        publish: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._clock = clock
        self._keys = Keys(namespace, slots=slots)
        self._slots = [Slot(publish or _to_nobody) for _ in range(slots)]
        self._workers: dict[str, int] = {}

    @property
    def slots(self) -> int:
        """How many slots the namespace has."""
        return len(self._slots)

    def admit(self, admission: Admission, *, lease_ms: int) -> asyncio.Future[Admitted]:
        """See `Store.admit`."""
        return _settled(lambda: self._admit(admission, lease_ms))

    def claim(
        self, invocation_id: InvocationId, epoch: int, *, token: str, worker: str, lease_ms: int, at_ms: int
    ) -> asyncio.Future[Claim | None]:
        """See `Store.claim`."""
        slot, now_ms = self._at(invocation_id)
        lease = Lease(invocation_id, epoch + 1, token, worker)
        return _settled(lambda: attempt.claim(slot, lease, now_ms=now_ms, lease_ms=lease_ms, at_ms=at_ms))

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Appended]:
        """See `Store.append`."""
        slot, now_ms = self._at(lease.invocation_id)
        return _settled(
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
    ) -> asyncio.Future[Sequence[str]]:
        """See `Store.complete`."""
        slot, now_ms = self._at(lease.invocation_id)
        return _settled(
            lambda: attempt.complete(
                slot,
                lease,
                entries,
                after=after,
                seq=seq,
                retention_ms=retention_ms,
                journal_retention_ms=journal_retention_ms,
                timers=timers,
                now_ms=now_ms,
            )
        )

    def suspend(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, wake_in_ms: int | None
    ) -> asyncio.Future[Appended | None]:
        """See `Store.suspend`."""
        deadline = None if wake_in_ms is None else ("wake", wake_in_ms)
        slot, now_ms = self._at(lease.invocation_id)
        return _settled(
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

    def pause(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, failure: str
    ) -> asyncio.Future[None]:
        """See `Store.pause`."""
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

        return _settled(act)

    def sweep(self, slot: int, *, leases_until_ms: int = ALWAYS_MS) -> asyncio.Future[Swept]:
        """See `Store.sweep`."""
        now_ms = self._clock.now_ms()
        hints = self._keys.hints("")
        self._slots[slot].forget(now_ms)
        return _settled(lambda: sweep(self._slots[slot], now_ms, hints=hints, leases_until_ms=leases_until_ms))

    def acknowledge(self, invocation_id: InvocationId) -> asyncio.Future[None]:
        """See `Store.acknowledge`."""
        slot, now_ms = self._at(invocation_id)
        return _settled(lambda: attempt.acknowledge(slot, invocation_id, now_ms=now_ms))

    def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> asyncio.Future[Sequence[int | None]]:
        """See `Store.renew`."""
        lengths = []
        for lease in leases:
            slot, now_ms = self._at(lease.invocation_id)
            lengths.append(attempt.renew(slot, lease, now_ms=now_ms, lease_ms=lease_ms))
        return _settled(lambda: lengths)

    def expire(self, worker: str) -> asyncio.Future[int]:
        """See `Store.expire`."""
        held = 0
        for slot in self._slots:
            for invocation_id in slot.index["running"]:
                record = slot.records.get(invocation_id)
                if record is not None and record.worker == worker:
                    slot.due.put(f"lease:{invocation_id}", 0)
                    held += 1
        return _settled(lambda: held)

    def attach(self, invocation_id: InvocationId, channel: str) -> asyncio.Future[Status | None]:
        """See `Store.attach`."""
        record = self._record(invocation_id)
        if record is None:
            return _settled(lambda: None)
        if record.output is None:
            _join(record.waiters, channel)
        outcome = None if record.output is None else record.output.outcome
        return _settled(lambda: Status(record.status, outcome))

    def read_journal(
        self, invocation_id: InvocationId, *, after: int = 0, entries_max: int | None = None
    ) -> asyncio.Future[list[Positioned]]:
        """See `Store.read_journal`."""
        slot, _ = self._at(invocation_id)
        return _settled(lambda: slot.tail(invocation_id, after)[:entries_max])

    def read_invocation(self, invocation_id: InvocationId) -> asyncio.Future[Summary | None]:
        """See `Store.read_invocation`."""
        record = self._record(invocation_id)
        return _settled(lambda: None if record is None else Summary(invocation_id, record.fields()))

    def list_invocations(self, status: str, *, invocations_max: int) -> asyncio.Future[list[Summary]]:
        """See `Store.list_invocations`."""
        scored = [(score, key) for slot in self._slots for key, score in slot.index[status].items()]
        newest = [InvocationId(key) for _, key in sorted(scored, reverse=True)[:invocations_max]]
        known = [(key, record) for key in newest if (record := self._record(key)) is not None]
        return _settled(lambda: [Summary(key, record.fields()) for key, record in known])

    def heartbeat(self, worker: str, facts: dict[str, str]) -> asyncio.Future[Sequence[str]]:
        """See `Store.heartbeat`."""
        now_ms = self._clock.now_ms()
        self._workers[worker] = now_ms
        return _settled(lambda: sorted(name for name, at in self._workers.items() if at >= now_ms - WORKER_LIFE_MS))

    def retire(self, worker: str) -> asyncio.Future[None]:
        """See `Store.retire`."""
        self._workers.pop(worker, None)
        return _settled(lambda: None)

    def _at(self, invocation_id: InvocationId) -> tuple[Slot, int]:
        now_ms = self._clock.now_ms()
        slot = self._slots[slot_of(invocation_id, len(self._slots))]
        slot.forget(now_ms)
        return slot, now_ms

    def _record(self, invocation_id: InvocationId) -> Record | None:
        return self._at(invocation_id)[0].records.get(invocation_id)

    def _admit(self, admission: Admission, lease_ms: int) -> Admitted:
        slot, now_ms = self._at(admission.invocation_id)
        known = slot.records.get(admission.invocation_id)
        if known is not None:
            return _admit_again(slot, known, admission)
        optional = {
            "key": admission.key,
            "idempotency_key": admission.idempotency_key,
            "source": admission.source,
        }
        target = {"service": admission.service, "handler": admission.handler}
        target |= {name: value for name, value in optional.items() if value}
        later = admission.not_before_ms > now_ms
        record = Record(target, "scheduled" if later else "running", 0 if later else 1, now_ms)
        _join(record.waiters, admission.waiter)
        _join(record.reply_to, admission.reply_to)
        slot.begin(admission.invocation_id, record, admission.input)
        if later:
            slot.due.put(f"start:{admission.invocation_id}", admission.not_before_ms)
            return Scheduled()
        record.token, record.worker = admission.token, admission.worker
        slot.due.put(f"lease:{admission.invocation_id}", now_ms + lease_ms)
        return Claimed(Lease(admission.invocation_id, 1, admission.token, admission.worker))


def _admit_again(slot: Slot, known: Record, admission: Admission) -> Admitted:
    if known.epoch == 1 and known.token == admission.token and known.status == "running":
        return Claimed(Lease(admission.invocation_id, 1, admission.token, admission.worker))
    if known.output_body is not None:
        if admission.waiter:
            slot.tell_outcome(admission.waiter, admission.invocation_id, known.output_body)
        assert known.output is not None, "a completed invocation has its output"
        return Duplicate(known.status, known.output.outcome)
    _join(known.waiters, admission.waiter)
    _join(known.reply_to, admission.reply_to)
    return Duplicate(known.status, None)


def _join(names: list[str], name: str) -> None:
    if name and name not in names and len(names) < WAITERS_MAX:
        names.append(name)


def _settled(act: Callable[[], _T]) -> asyncio.Future[_T]:
    future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    try:
        future.set_result(act())
    except PerdureError as error:
        future.set_exception(error)
    return future
