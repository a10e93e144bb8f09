"""What one slot of the in-memory store holds, and the moves that several of its transitions share.

Mirrors the keys of `keys` and the functions of `scripts/prelude.lua`. Time is handed in; nothing here reads a clock.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perdure.schemas.entries import Entry, Outcome, Output, Positioned
from perdure.schemas.ids import InvocationId

from .store import Caller, Promise, ResumeDue
from .transitions import caller_of

REDELIVERY_MS = 10_000
"""How long a ready invocation waits to be claimed before its resume record is produced again; doubled each time. What
a worker made ready stands still for so long when it is killed before it has produced the record. Behind a backlog it
costs a few records more, which are stale when they are read."""

BEHIND_MS = 100
"""Added for each that was ready before it in the slot. Where very many are due at once their records wait in Kafka, and
with ten seconds for all of them most would be produced three or four times. With 64 slots it is the time of a fleet
that resumes 640 invocations a second."""

REPLY_LEASE_MS = 10_000
"""How long what is owed waits for its acknowledgement before it is handed out again."""

REDELIVERY_MS_MAX = 3_600_000
"""Where the doubling ends: an hour is rare enough to cost nothing and soon enough to heal a lost record."""

ANSWERED_AT = 1
"""In `Record.places`: where the input stands, and no command ever."""

KEPT_WITHOUT_END_MS = 2**53 - 1
"""The index score of a completed invocation whose reply is not acknowledged yet."""


@dataclass(slots=True)
class Record:
    """The hash of one invocation. `None` where Redis has no such field yet; `seq` is the last write's number.

    `places` has where each command of another's doing stands; the position of one that has its result is 1.
    """

    target: dict[str, str]
    status: str
    epoch: int
    admitted_at_ms: int
    length: int = 1
    token: str | None = None
    worker: str | None = None
    seq: int | None = None
    failures: int | None = None
    lost: int | None = None
    alone: int | None = None
    last_failure: str | None = None
    redelivery_ms: int | None = None
    mode: str = ""
    waiters: list[str] = field(default_factory=list)
    reply_to: list[str] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    outgoing: int | None = None
    cancelled: int | None = None
    cancellations: int | None = None
    received: int | None = None
    received_bytes: int | None = None
    once: set[str] = field(default_factory=set)
    places: dict[int, int] = field(default_factory=dict)
    output: Output | None = None
    output_body: bytes | None = None
    completed_at_ms: int | None = None
    retention_ms: int | None = None
    journal_retention_ms: int | None = None

    @property
    def service(self) -> str:
        """Whose handler it is."""
        return self.target["service"]

    @property
    def object(self) -> str:
        """`Service/key` of its object or workflow; empty where it has none."""
        key = self.target.get("key")
        return "" if key is None else f"{self.service}/{key}"

    @property
    def told(self) -> list[Caller]:
        """Who is told the outcome in its own journal."""
        return [caller_of(text) for text in self.callers]

    @property
    def outcome(self) -> Outcome | None:
        """What came of it."""
        return None if self.output is None else self.output.outcome

    def hash(self) -> dict[str, str]:
        """All fields as `HGETALL` shows them."""
        places = {f"c:{index}": str(position) for index, position in self.places.items()}
        return self.fields() | dict.fromkeys(self.once, "1") | places

    def fields(self) -> dict[str, str]:
        """The fields that are shown to people."""
        known: dict[str, object] = {
            "status": self.status,
            "epoch": self.epoch,
            "length": self.length,
            "admitted_at": self.admitted_at_ms,
            "token": self.token,
            "worker": self.worker,
            "seq": self.seq,
            "failures": self.failures,
            "lost": self.lost,
            "alone": self.alone,
            "last_failure": self.last_failure,
            "redelivery": self.redelivery_ms,
            "mode": self.mode or None,
            "waiters": " ".join(self.waiters) or None,
            "reply_to": " ".join(self.reply_to) or None,
            "callers": " ".join(self.callers) or None,
            "outgoing": self.outgoing,
            "cancelled": self.cancelled,
            "cancellations": self.cancellations,
            "received": self.received,
            "received_bytes": self.received_bytes,
            "output": None if self.output_body is None else self.output_body.decode(),
            "completed_at": self.completed_at_ms,
            "retention": self.retention_ms,
            "journal_retention": self.journal_retention_ms,
        }
        return self.target | {name: str(value) for name, value in known.items() if value is not None}


class Deadlines:
    """A sorted set of members by score, ordered as Redis orders it: by score, then by the member's bytes."""

    def __init__(self) -> None:
        self.scores: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def put(self, member: str, at_ms: int) -> None:
        """Add a member, or move it."""
        self.scores[member] = at_ms
        heapq.heappush(self._heap, (at_ms, member))

    def drop(self, *members: str) -> int:
        """Remove members; returns how many there were."""
        return sum(self.scores.pop(member, None) is not None for member in members)

    def first(self) -> tuple[int, str] | None:
        """The lowest, or `None` where there is nothing."""
        heap = self._heap
        # A heap entry whose score is not the member's present one was moved or dropped since.
        while heap and self.scores.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def lowest(self, members_max: int, *, until_ms: float = math.inf) -> list[tuple[int, str]]:
        """The lowest scores up to `until_ms` and their members, lowest first. They stay."""
        found: list[tuple[int, str]] = []
        while len(found) < members_max and (head := self.first()) is not None and head[0] <= until_ms:
            heapq.heappop(self._heap)
            # The same score put twice stands in the heap twice.
            if not found or found[-1] != head:
                found.append(head)
        for head in found:
            heapq.heappush(self._heap, head)
        return found


@dataclass(slots=True)
class Promises:
    """The promises of one workflow: those that are completed, and who waits for which other."""

    kept: dict[str, Promise] = field(default_factory=dict)
    waits: dict[str, list[tuple[InvocationId, int]]] = field(default_factory=dict)


class Slot:
    """Everything of one slot. Names of objects and workflows are `Service/key`.

    Args:
        publish: Told each message to a channel.
    """

    def __init__(self, publish: Callable[[str, bytes], None]) -> None:
        self.publish = publish
        self.records: dict[str, Record] = {}
        self.journals: dict[str, list[Positioned]] = {}
        self.due = Deadlines()
        self.index: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.holders: dict[str, str] = {}
        self.queues: dict[str, list[str]] = {}
        self.states: dict[str, dict[str, bytes]] = {}
        self.promises: dict[str, Promises] = {}
        self.until = Deadlines()

    def forget(self, now_ms: int) -> None:
        """Let go of what Redis would have expired: a key lives through the millisecond at which its time ends."""
        while (head := self.until.first()) is not None and head[0] < now_ms:
            kind, _, name = head[1].partition(":")
            self.discard(kind, name)

    def discard(self, kind: str, name: str) -> None:
        """Let go of a key: an `invocation`, a `journal`, a `state` or `promises`."""
        self.until.drop(f"{kind}:{name}")
        self._held(kind).pop(name, None)

    def persist(self, kind: str, name: str) -> None:
        """Keep a key without an end."""
        self.until.drop(f"{kind}:{name}")

    def expire(self, kind: str, name: str, *, now_ms: int, in_ms: int) -> None:
        """Keep a key, where there is one, for that long from now on; 0 or less: no longer at all."""
        if name in self._held(kind):
            self.until.put(f"{kind}:{name}", now_ms + in_ms if in_ms > 0 else now_ms - 1)
            self.forget(now_ms)

    def _held(self, kind: str) -> dict[str, Any]:
        kinds: dict[str, dict[str, Any]] = {
            "invocation": self.records,
            "journal": self.journals,
            "state": self.states,
            "promises": self.promises,
        }
        return kinds[kind]

    def trim(self, now_ms: int) -> None:
        """Drop from the index of completed invocations what is kept no longer."""
        completed = self.index["completed"]
        for invocation_id in [key for key, until_ms in completed.items() if until_ms <= now_ms]:
            del completed[invocation_id]

    def begin(self, invocation_id: str, record: Record, entry: Entry) -> None:
        """Hold a new invocation with its first entry, in place of a journal that outlived its invocation."""
        self.until.drop(f"journal:{invocation_id}")
        self.records[invocation_id] = record
        self.journals[invocation_id] = [Positioned(1, record.epoch, entry)]
        self.index[record.status][invocation_id] = record.admitted_at_ms

    def write(self, invocation_id: str, record: Record, entry: Entry) -> None:
        """Add one entry at the journal's end."""
        record.length += 1
        self.journals[invocation_id].append(Positioned(record.length, record.epoch, entry))

    def move(self, invocation_id: str, record: Record, status: str, score: int) -> None:
        """Change the status, and the index with it."""
        if record.status != status:
            self.index[record.status].pop(invocation_id, None)
        record.status = status
        self.index[status][invocation_id] = score

    def make_ready(self, invocation_id: InvocationId, record: Record, now_ms: int) -> ResumeDue:
        """Let any worker claim it with the epoch that it has now."""
        record.redelivery_ms = min(REDELIVERY_MS + BEHIND_MS * len(self.index["ready"]), REDELIVERY_MS_MAX)
        self.move(invocation_id, record, "ready", now_ms)
        self.due.drop(*(f"{kind}:{invocation_id}" for kind in ("lease", "retry", "wake", "start")))
        self.due.put(f"ready:{invocation_id}", now_ms + record.redelivery_ms)
        return ResumeDue(invocation_id, record.epoch, record.service)

    def tell_outcome(self, channel: str, invocation_id: str, output_body: bytes) -> None:
        """Publish a recorded outcome."""
        self.publish(channel, b'{"id":"%b","output":%b}' % (invocation_id.encode(), output_body))

    def tail(self, invocation_id: str, after: int) -> list[Positioned]:
        """Entries past position `after`."""
        return self.journals.get(invocation_id, [])[after:]
