"""The store that the engine is handed: every transition of an invocation, each one atomic.

Contract, for every implementation (`redis_store`, `memory_store`; the same tests run on both):

- **Fenced.** Writes of an attempt name its lease. Where the stored epoch or token differs they raise `FencedError`
  and change nothing.
- **Repeatable.** The same call twice changes nothing the second time and answers as the first time did. An attempt
  numbers its writes (`seq` = 1, 2, ...) so that a repeat, of the last one or of an earlier one, is told from a new one.
- **A write follows what it rests upon.** An attempt's append, outcome and suspension raise `GapError` where its write
  before is not there, as a failover lost it; all that write entries, where a promise is not as these say (`promised`).
  A suspension that did not take place gives its number back.
- **A command is written with what it does.** Every call that writes entries sets the timers of its `Sleep`s, changes
  the state that `SetState`, `ClearState`, `ClearAll` name, and has what is `OUTGOING` sent until it was acknowledged.
- **An outage is a delay.** A call waits until the store answers; it raises `StoreError` only for what waiting does
  not mend. Cancelling the awaiting task does not take the write back.
- **Time is the store's.** Deadlines are given as delays; a deadline never falls due early by the store's clock.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from perdure.schemas.entries import Cancelled, Completion, Entry, Outcome, Output, Positioned, Signalled
from perdure.schemas.ids import InvocationId

from .transitions import (
    ALWAYS_MS,
    Admission,
    Admitted,
    Answered,
    Appended,
    Caller,
    CascadeDue,
    Claim,
    Claimed,
    Concluded,
    Delivery,
    Due,
    Duplicate,
    Follow,
    Full,
    HintDue,
    Lease,
    Listed,
    Memory,
    OutgoingDue,
    Place,
    Promise,
    Queued,
    ReplyDue,
    Restart,
    ResumeDue,
    Scheduled,
    Shed,
    ShedPlace,
    State,
    Status,
    Summary,
    Swept,
)

__all__ = [
    "ALWAYS_MS",
    "Admission",
    "Admitted",
    "Appended",
    "Caller",
    "CascadeDue",
    "Claim",
    "Claimed",
    "Concluded",
    "Delivery",
    "Due",
    "Duplicate",
    "Follow",
    "Full",
    "HintDue",
    "Lease",
    "OutgoingDue",
    "Promise",
    "Queued",
    "ReplyDue",
    "Restart",
    "ResumeDue",
    "Scheduled",
    "State",
    "Status",
    "Store",
    "Summary",
    "Swept",
]


class Store(Protocol):
    """Redis as the engine sees it. Hot calls return awaitables that are already on their way when the call returns."""

    @property
    def slots(self) -> int:
        """How many slots the namespace has."""

    @property
    def losses(self) -> int:
        """How often the connection was lost: each time, what was answered before may have been lost with it."""

    def admit(self, admission: Admission, *, lease_ms: int) -> Future[Admitted]:
        """Write an invocation and hold its first lease, unless it is known or starts later; raises in the future only.

        A duplicate that names a reply topic or a waiter is remembered for the outcome; where the outcome exists, the
        waiter is told at once and the caller produces the reply.
        """

    def claim(
        self, invocation_id: InvocationId, epoch: int, *, token: str, worker: str, lease_ms: int, at_ms: int
    ) -> Awaitable[Claim | None]:
        """Start the next attempt (`epoch` + 1) of a ready invocation; `None` where it is not ready with that epoch.

        Likewise where its journal cannot be read: it is paused then, and says why.
        """

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
        follow: Follow | None = None,
    ) -> Awaitable[Concluded]:
        """Record the outcome: `entries` ends with the `Output`. An exclusive one hands its object to the next.

        `timers` are command indices of sleeps that nobody waits for any more. With `follow` the next one is claimed by
        this worker in the same transition, unless its journal is long. Where nobody is to be told and nothing
        that it sent is under way retention begins now, else with the last acknowledgement.

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

        Where a cancellation came that the attempt has not seen (it stands past `after`) it is ready at once.

        Raises:
            FencedError: Another attempt owns the invocation.
            GapError: The store has fewer than `after` entries.
        """

    def give_up(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, failure: str) -> Awaitable[None]:
        """Leave, paused, until an operator resumes it; ready instead where a cancellation stands past `after`.

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

    def acknowledge(
        self,
        invocation_id: InvocationId,
        *,
        reply: bool = False,
        sent: Sequence[int] = (),
        cascade: bool = False,
        as_of: int | None = None,
    ) -> Awaitable[ResumeDue | None]:
        """What a completed one owes, or any one sent, has reached where it had to; who has its object now, ready.

        Args:
            invocation_id: Whose.
            reply: Its outcome was produced to all topics, and told to all callers.
            sent: Positions of `OUTGOING` entries.
            cascade: All its callees are killed, and theirs: an object that it kept until then goes to the next.
            as_of: `losses` before the store was told what this is about, if it was: where that has grown since, or
                grows before this is written, nothing is acknowledged. A failover may have lost what it is about.
        """

    def deliver(
        self,
        invocation_id: InvocationId,
        entry: Completion | Signalled | Cancelled,
        *,
        once: str,
        here: str = "",
    ) -> Awaitable[Delivery]:
        """Bring something from outside into a journal; one that waits for it becomes ready.

        A cancellation ends one that has not begun, and wakes one that backs off or is paused; consecutive failures
        count from 0 again. `full` where there were too many already: `RECEIVED_MAX`, `RECEIVED_BYTES_MAX`,
        `CANCELLATIONS_MAX`.

        Args:
            invocation_id: Whose journal.
            entry: What.
            once: A name with a colon by which a repeat is known: nothing is written a second time.
            here: The worker that asks, which needs no hint: the answer holds it.
        """

    def answer(
        self, invocation_id: InvocationId, answers: Sequence[tuple[int, Completion]], *, here: str = ""
    ) -> Future[Answered]:
        """Bring the results of commands into the journal that they stand in, as `deliver`; each command has one.

        Args:
            invocation_id: Whose journal.
            answers: The position of the command, and what it gets: `gap` is told of one whose command is not there. A
                failover may have lost it, and others may have written as many entries since.
            here: As in `deliver`.
        """

    def complete_awakeable(
        self, invocation_id: InvocationId, entry: Completion, *, here: str = ""
    ) -> Awaitable[Delivery]:
        """Bring the result of an awakeable, as `deliver` with a name of its own, `r:<command index>`.

        It may come before the awakeable stands in the journal, and is kept for it then; should another command take
        that index, this is not its result. `no-awakeable` where one has it already: nothing was written.
        """

    def kill(self, invocation_id: InvocationId, output: Output) -> Awaitable[Delivery]:
        """Record this failure as the outcome, whatever the handler does; its callees are killed next (`CascadeDue`).

        Its object goes to the next; where a call has no answer, when those are killed. One may stand in its queue.
        """

    def pause(self, invocation_id: InvocationId, *, at_ms: int, reason: str) -> Awaitable[Delivery]:
        """Have it wait for an operator: at once, or, where it runs, when its steps have ended."""

    def resume(self, invocation_id: InvocationId, *, at_ms: int) -> Awaitable[Delivery]:
        """Let a paused one go on; consecutive failures count from 0 again."""

    def purge(self, invocation_id: InvocationId) -> Awaitable[Delivery]:
        """Forget a completed one that owes nothing, and its journal; of a workflow's run also state and promises."""

    def restart(self, restart: Restart) -> Awaitable[Delivery]:
        """Admit an invocation with a journal that has begun; ready, or pending behind its object.

        `known` where that id is, `full` where the object's queue is: nothing was written.
        """

    def hasten(self, due: Sequence[Due]) -> Awaitable[None]:
        """Have a worker do at once what a process left to be done that has no part in it, such as a client.

        The worker that was seen last is hinted; the next sweep of any other does it, too. What is done stays done.
        """

    def peek_promise(self, target: str, name: str) -> Awaitable[Promise | None]:
        """A promise of the workflow `Service/key`; `None` while it is open."""

    def complete_promise(
        self, target: str, name: str, outcome: Outcome, *, by: str
    ) -> Awaitable[tuple[bool, Sequence[Due]]]:
        """Complete a promise; all that wait for it are told in the same transition. Whether `by` completed it."""

    def await_promise(
        self, target: str, name: str, waiting: InvocationId, command_index: int, *, position: int = 0
    ) -> Awaitable[Sequence[Due] | None]:
        """Have the command told when the promise is completed, at once where it is; `None`: too many wait, try later.

        Raises:
            GapError: It does not stand at `position` of the journal (0: it certainly does): the store lost the wait.
        """

    def read_state(self, target: str) -> Awaitable[State]:
        """The whole state of an object."""

    def read_names(self, target: str) -> Awaitable[Sequence[str]]:
        """The names in an object's state, sorted."""

    def read_value(self, target: str, name: str) -> Awaitable[bytes | None]:
        """One value of an object's state; `None` where there is none."""

    def edit_state(
        self, target: str, changes: Sequence[tuple[str, bytes | None]], *, clear: bool = False, force: bool = False
    ) -> Awaitable[InvocationId | None]:
        """Change an object's state from outside: each name gets its value, or none.

        `clear` removes everything first. Returns who holds the object, or the workflow's run that has not ended, where
        there is one and it is not `force`d: nothing was changed then.
        """

    def renew(self, leases: Sequence[Lease], *, lease_ms: int, alone: bool = False) -> Awaitable[Sequence[int | None]]:
        """Renew leases; for each the journal's length, or `None` where it is lost.

        Args:
            leases: Any number.
            lease_ms: How long they hold from now on.
            alone: Whether these attempts begin to run, which was put off: an invocation that was lost `SUSPECT_AFTER`
                times in a row is not counted as lost before that.
        """

    def expire(self, worker: str) -> Awaitable[int]:
        """End every lease of a worker that is known to be dead; returns how many it held.

        The next sweep makes their invocations ready, even one that leaves leases alone.
        """

    def attach(self, invocation_id: InvocationId, channel: str, *, caller: str = "") -> Awaitable[Status | None]:
        """Look at an invocation; `None`: not known. `channel` and `caller` will be told an outcome that is to come."""

    def read_journal(
        self, invocation_id: InvocationId, *, after: int = 0, entries_max: int | None = None
    ) -> Awaitable[list[Positioned]]:
        """Entries past position `after`, oldest first; `[]` where there are none."""

    def read_invocation(self, invocation_id: InvocationId) -> Awaitable[Summary | None]:
        """One invocation's fields; `None` where it is not known."""

    def list_invocations(self, status: str, *, invocations_max: int) -> Awaitable[list[Summary]]:
        """Invocations of one status, newest first over all slots."""

    def list_page(self, status: str, *, rows_max: int, after: Place | None = None) -> Awaitable[list[Listed]]:
        """Rows of one status past a place, newest first over all slots; fewer than `rows_max` at the end."""

    def memory(self) -> Awaitable[Sequence[Memory]]:
        """The memory of the server that each slot is on.

        Raises:
            StoreError: It does not tell.
        """

    def shed(self, slot: int, *, journals_max: int, after: ShedPlace | None = None) -> Awaitable[Shed]:
        """Remove journals of completed invocations of a slot, those that expire first before others.

        What they ended with stays for its time, and so do the journals of those that owe something.

        Args:
            slot: Which one.
            journals_max: How many invocations are looked at.
            after: Where the last call came to; `None` begins at the beginning.
        """

    def describe(self, services: Mapping[str, str]) -> Awaitable[None]:
        """Keep a description of each of these services, for those that know no more than its name."""

    def descriptions(self) -> Awaitable[Mapping[str, str]]:
        """What the last workers that described services said, by the service's name."""

    def description(self, service: str) -> Awaitable[str | None]:
        """What the last worker that described the service said."""

    def heartbeat(self, worker: str, facts: dict[str, str]) -> Awaitable[Sequence[str]]:
        """Say that this worker lives; returns every worker that lives, sorted."""

    def retire(self, worker: str) -> Awaitable[None]:
        """Say that this worker has gone."""
