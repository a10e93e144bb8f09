"""The store that the engine is handed: every transition of an invocation, each one atomic.

Contract, for every implementation (`redis_store`, `memory_store`; the same tests run on both):

- **Fenced.** Writes of an attempt name its lease. Where the stored epoch or token differs they raise `FencedError`
  and change nothing.
- **Repeatable.** The same call twice changes nothing the second time and answers as the first time did. An attempt
  numbers its writes (`seq` = 1, 2, ...) so that a repeat, of the last one or of an earlier one that comes late, is told
  from a new one.
- **A command is written with its timer.** `append`, `suspend`, `back_off`, `pause` and `release` set the timers of the
  `Sleep`s among their entries.
- **An outage is a delay.** A call waits until the store answers; it raises `StoreError` only for what waiting does
  not mend. Cancelling the awaiting task does not take the write back.
- **Time is the store's.** Deadlines are given as delays; a deadline never falls due early by the store's clock.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

from perdure.schemas.entries import Entry, Input, Outcome, Positioned
from perdure.schemas.ids import InvocationId


class Lease(NamedTuple):
    """One attempt's right to append: the fence is `epoch` and `token` together.

    The token is random, so that two attempts stay apart even when a failover lost an epoch.
    """

    invocation_id: InvocationId
    epoch: int
    token: str
    worker: str


class Admission(NamedTuple):
    """What admission writes. Empty strings and 0 mean "none"."""

    invocation_id: InvocationId
    service: str
    handler: str
    key: str | None
    input: Input
    token: str
    worker: str
    not_before_ms: int = 0
    reply_to: str = ""
    waiter: str = ""
    idempotency_key: str = ""
    source: str = ""


class Claimed(NamedTuple):
    """Admitted, and this worker holds its first lease."""

    lease: Lease


class Scheduled(NamedTuple):
    """Admitted, and starts later by itself."""


class Duplicate(NamedTuple):
    """Known before. `outcome` is the recorded one where it is completed."""

    status: str
    outcome: Outcome | None


Admitted = Claimed | Scheduled | Duplicate


class Claim(NamedTuple):
    """Everything that an attempt starts from. `entries` are complete, oldest first."""

    lease: Lease
    service: str
    handler: str
    key: str | None
    idempotency_key: str
    failures: int
    admitted_at_ms: int
    entries: Sequence[Positioned]


class Appended(NamedTuple):
    """The journal's length, and its entries past `after` unless they are exactly the caller's own."""

    length: int
    tail: Sequence[Positioned] | None


class ResumeDue(NamedTuple):
    """Produce a resume record for this epoch."""

    invocation_id: InvocationId
    epoch: int
    service: str


class ReplyDue(NamedTuple):
    """Produce the outcome to these topics, then acknowledge it."""

    invocation_id: InvocationId
    topics: Sequence[str]
    outcome: Outcome


class HintDue(NamedTuple):
    """Something was appended to an invocation that this worker runs."""

    worker: str
    invocation_id: InvocationId


Due = ResumeDue | ReplyDue | HintDue


ALWAYS_MS = 2**53 - 1
"""For `Store.sweep`: leases are ended whenever it is executed. The largest whole number of Lua."""


class Swept(NamedTuple):
    """What a sweep found, how long until the slot's next deadline (`None`: there is none), the store's time.

    A lease that ended and is held is no deadline.
    """

    due: Sequence[Due]
    next_in_ms: int | None
    at_ms: int


class Status(NamedTuple):
    """An invocation's status, and its outcome once it has one."""

    status: str
    outcome: Outcome | None


class Summary(NamedTuple):
    """One invocation for listings: the fields of its hash, as text."""

    invocation_id: InvocationId
    fields: dict[str, str]


class Store(Protocol):
    """Redis as the engine sees it. Hot calls return awaitables that are already on their way when the call returns."""

    @property
    def slots(self) -> int:
        """How many slots the namespace has."""

    def admit(self, admission: Admission, *, lease_ms: int) -> Awaitable[Admitted]:
        """Write an invocation and hold its first lease, unless it is known or starts later.

        A duplicate that names a reply topic or a waiter is remembered for the outcome; where the outcome exists, the
        waiter is told at once and the caller produces the reply.
        """

    def claim(
        self, invocation_id: InvocationId, epoch: int, *, token: str, worker: str, lease_ms: int, at_ms: int
    ) -> Awaitable[Claim | None]:
        """Start the next attempt (`epoch` + 1) of a ready invocation; `None` where it is not ready with that epoch."""

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> Future[Appended]:
        """Append `entries` at most ENTRIES_PER_APPEND_MAX, all or none, and set the timers of `Sleep`s among them.

        Args:
            lease: The attempt's.
            entries: Oldest first; may be empty, to learn what others appended.
            after: How many entries the caller knows.
            seq: The attempt's n-th write; a repeat of the last one is answered again.
            progress: Whether consecutive failures start from 0 again.

        Raises:
            FencedError: Another attempt owns the invocation.
            GapError: The store has fewer than `after` entries.
        """

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
    ) -> Awaitable[Sequence[str]]:
        """Record the outcome: `entries` ends with the `Output`. Returns the topics that want a reply.

        `timers` are command indices of sleeps that nobody waits for any more. Without reply topics retention begins
        now, else with the acknowledgement.

        Raises:
            FencedError: Another attempt owns the invocation.
            GapError: The store has fewer than `after` entries.
        """

    def suspend(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, wake_in_ms: int | None
    ) -> Awaitable[Appended | None]:
        """Leave until something arrives or `wake_in_ms` passed; `None` where it left.

        Where there is anything past `after` already, nothing is written and it comes back.

        Raises:
            FencedError: Another attempt owns the invocation.
            GapError: The store has fewer than `after` entries.
        """

    def back_off(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, retry_in_ms: int, failure: str
    ) -> Awaitable[None]:
        """Leave with one more consecutive failure, to be retried after `retry_in_ms`.

        Raises:
            FencedError: Another attempt owns the invocation.
            GapError: The store has fewer than `after` entries.
        """

    def pause(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, failure: str) -> Awaitable[None]:
        """Leave until an operator resumes it.

        Raises:
            FencedError: Another attempt owns the invocation.
            GapError: The store has fewer than `after` entries.
        """

    def release(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int) -> Awaitable[None]:
        """Leave for any worker to go on at once: ready, with the same epoch. The caller produces the resume record.

        Raises:
            FencedError: Another attempt owns the invocation.
            GapError: The store has fewer than `after` entries.
        """

    def sweep(self, slot: int, *, leases_until_ms: int = ALWAYS_MS) -> Awaitable[Swept]:
        """Do what is due in a slot, a bounded number of deadlines at a time. Safe from any worker at any time.

        Args:
            slot: Which one.
            leases_until_ms: Leases that ended are left as they are, to be renewed or ended later, where the store's
                clock is past that when the sweep is executed; 0 leaves all. What `expire` ended is ended always.
        """

    def acknowledge(self, invocation_id: InvocationId) -> Awaitable[None]:
        """The reply reached Kafka; retention begins."""

    def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Awaitable[Sequence[int | None]]:
        """Renew leases; for each the journal's length, or `None` where it is lost."""

    def expire(self, worker: str) -> Awaitable[int]:
        """End every lease of a worker that is known to be dead; returns how many it held.

        The next sweep makes their invocations ready, even one that leaves leases alone.
        """

    def attach(self, invocation_id: InvocationId, channel: str) -> Awaitable[Status | None]:
        """Look at an invocation, and be told its outcome on `channel` where it has none yet; `None`: not known."""

    def read_journal(
        self, invocation_id: InvocationId, *, after: int = 0, entries_max: int | None = None
    ) -> Awaitable[list[Positioned]]:
        """Entries past position `after`, oldest first; `[]` where there are none."""

    def read_invocation(self, invocation_id: InvocationId) -> Awaitable[Summary | None]:
        """One invocation's fields; `None` where it is not known."""

    def list_invocations(self, status: str, *, invocations_max: int) -> Awaitable[list[Summary]]:
        """Invocations of one status, newest first over all slots."""

    def heartbeat(self, worker: str, facts: dict[str, str]) -> Awaitable[Sequence[str]]:
        """Say that this worker lives; returns every worker that lives, sorted."""

    def retire(self, worker: str) -> Awaitable[None]:
        """Say that this worker has gone."""
