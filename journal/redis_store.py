"""The store on Redis: one typed wrapper for each Lua script, and the reads.

Nothing is decided here: scripts decide (`scripts/*.lua`), `replies` turns answers into values, `wire` carries them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from perdure.schemas.codec import encode
from perdure.schemas.entries import AttemptStarted, Entry, Output, Positioned, Sleep
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import WAITERS_MAX

from .keys import InvocationKeys, Keys
from .lua import script
from .replies import (
    as_admitted,
    as_appended,
    as_claim,
    as_departure,
    as_status,
    as_summary,
    as_swept,
    positioned,
)
from .store import ALWAYS_MS, Admission, Admitted, Appended, Claim, Lease, Status, Summary, Swept
from .wire import Argument, Wire, same

T = TypeVar("T")

_SCRIPTS = (
    "admit",
    "claim",
    "append",
    "complete",
    "leave",
    "renew",
    "sweep",
    "acknowledge",
    "attach",
    "expire",
)

CLAIM_ENTRIES_MAX = 1_000
"""Entries that come with a claim; the rest is read in pages, so that no script holds Redis for long."""

PAGE_ENTRIES_MAX = 2_000
"""Entries of one page."""

SWEEP_MEMBERS_MAX = 100
"""Deadlines of one sweep: about a millisecond of Redis's time. More of them: the next sweep follows at once."""

REPLY_LEASE_MS = 10_000
"""How long an outcome waits for its acknowledgement by Kafka before another worker produces it again."""

WORKER_LIFE_MS = 6_000
"""A worker without a heartbeat for this long is not counted as alive; only placement hints depend on it."""


def script_texts() -> dict[str, bytes]:
    """The scripts by their SHA-1, for `Wire`."""
    texts = [script(name).encode() for name in _SCRIPTS]
    return {hashlib.sha1(text, usedforsecurity=False).hexdigest(): text for text in texts}


class RedisStore:
    """`Store` on one Redis or Valkey node. The wire is entered and left by the caller."""

    def __init__(self, wire: Wire, keys: Keys) -> None:
        self._wire = wire
        self._keys = keys
        self._shas = {
            name: hashlib.sha1(script(name).encode(), usedforsecurity=False).hexdigest().encode() for name in _SCRIPTS
        }
        self._append = self._shas["append"]

    @property
    def slots(self) -> int:
        """How many slots the namespace has."""
        return self._keys.slots

    def _script(
        self, name: str, keys: InvocationKeys, arguments: tuple[Argument, ...], convert: Callable[[Any], T]
    ) -> asyncio.Future[T]:
        head = (b"EVALSHA", self._shas[name], b"4", keys.invocation, keys.journal, keys.due, keys.status_prefix)
        return self._wire.call((*head, *arguments), convert)

    def admit(self, admission: Admission, *, lease_ms: int) -> Awaitable[Admitted]:
        """See `Store.admit`."""
        fields: list[Argument] = [b"service", admission.service, b"handler", admission.handler]
        optional = (
            (b"key", admission.key or ""),
            (b"idempotency_key", admission.idempotency_key),
            (b"source", admission.source),
        )
        for name, value in optional:
            if value:
                fields += (name, value)
        arguments = (
            admission.invocation_id,
            admission.token,
            admission.worker,
            lease_ms,
            admission.not_before_ms,
            encode(admission.input)[1],
            admission.waiter,
            admission.reply_to,
            WAITERS_MAX,
            *fields,
        )
        lease = Lease(admission.invocation_id, 1, admission.token, admission.worker)
        keys = self._keys.of(admission.invocation_id)
        return self._script("admit", keys, arguments, lambda reply: as_admitted(reply, lease))

    async def claim(
        self, invocation_id: InvocationId, epoch: int, *, token: str, worker: str, lease_ms: int, at_ms: int
    ) -> Claim | None:
        """See `Store.claim`."""
        body = encode(AttemptStarted(at_ms, worker))[1]
        keys = self._keys.of(invocation_id)
        arguments = (invocation_id, epoch, token, worker, lease_ms, body, CLAIM_ENTRIES_MAX)
        lease = Lease(invocation_id, epoch + 1, token, worker)
        answer = await self._script("claim", keys, arguments, lambda reply: as_claim(reply, lease))
        if answer is None:
            return None
        claim, length = answer
        entries = list(claim.entries)
        # Pages are read after the claim: only this attempt appends now, and completions come at the end. Positions are
        # dense, so all pages can be asked for at once.
        pages = [
            self._wire.call((b"XRANGE", keys.journal, start + 1, b"+", b"COUNT", PAGE_ENTRIES_MAX), positioned)
            for start in range(len(entries), length, PAGE_ENTRIES_MAX)
        ]
        for page in await _all(pages):
            entries += page
        return claim._replace(entries=entries)

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Appended]:
        """See `Store.append`."""
        keys = self._keys.of(lease.invocation_id)
        timers, bodies = _written(lease, entries)
        head = (b"EVALSHA", self._append, b"3", keys.invocation, keys.journal, keys.due)
        fence = (lease.epoch, lease.token, after, seq, b"1" if progress else b"0", len(timers) // 2)
        return self._wire.call((*head, *fence, *timers, *bodies), as_appended)

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
        """See `Store.complete`."""
        output = entries[-1]
        assert isinstance(output, Output), "the last entry of an invocation is its output"
        bodies: list[Argument] = []
        for entry in entries:
            bodies += encode(entry)
        arguments = (
            lease.invocation_id,
            lease.epoch,
            lease.token,
            after,
            seq,
            retention_ms,
            journal_retention_ms,
            bodies[-1],
            REPLY_LEASE_MS,
            len(timers),
            *(f"sleep:{lease.invocation_id}:{index}" for index in timers),
            *bodies,
        )
        keys = self._keys.of(lease.invocation_id)
        return self._script("complete", keys, arguments, lambda topics: topics.decode().split())

    def _leave(
        self,
        lease: Lease,
        entries: Sequence[Entry],
        *,
        after: int,
        seq: int,
        status: str,
        deadline: tuple[str, int] = ("", 0),
        failure: str = "",
        unless_new: bool = False,
    ) -> asyncio.Future[Appended | None]:
        timers, bodies = _written(lease, entries)
        arguments = (
            lease.invocation_id,
            lease.epoch,
            lease.token,
            after,
            seq,
            status,
            *deadline,
            1 if failure else 0,
            failure,
            1 if unless_new else 0,
            len(timers) // 2,
            *timers,
            *bodies,
        )
        return self._script("leave", self._keys.of(lease.invocation_id), arguments, as_departure)

    def suspend(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, wake_in_ms: int | None
    ) -> Awaitable[Appended | None]:
        """See `Store.suspend`."""
        deadline = ("", 0) if wake_in_ms is None else ("wake", wake_in_ms)
        return self._leave(lease, entries, after=after, seq=seq, status="suspended", deadline=deadline, unless_new=True)

    async def back_off(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, retry_in_ms: int, failure: str
    ) -> None:
        """See `Store.back_off`."""
        deadline = ("retry", retry_in_ms)
        await self._leave(
            lease, entries, after=after, seq=seq, status="backing-off", deadline=deadline, failure=failure
        )

    async def pause(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, failure: str) -> None:
        """See `Store.pause`."""
        await self._leave(lease, entries, after=after, seq=seq, status="paused", failure=failure)

    async def release(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int) -> None:
        """See `Store.release`."""
        await self._leave(lease, entries, after=after, seq=seq, status="ready")

    def sweep(self, slot: int, *, leases_until_ms: int = ALWAYS_MS) -> Awaitable[Swept]:
        """See `Store.sweep`."""
        head = (b"EVALSHA", self._shas["sweep"], b"1", self._keys.due(slot), self._keys.prefix(slot))
        bounds = (SWEEP_MEMBERS_MAX, REPLY_LEASE_MS, self._keys.hints(""), leases_until_ms)
        return self._wire.call((*head, *bounds), as_swept)

    async def acknowledge(self, invocation_id: InvocationId) -> None:
        """See `Store.acknowledge`."""
        await self._script("acknowledge", self._keys.of(invocation_id), (invocation_id,), same)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Sequence[int | None]:
        """See `Store.renew`."""
        replies = [
            self._script("renew", self._keys.of(lease.invocation_id), (*lease[:3], lease_ms), same) for lease in leases
        ]
        return [None if reply < 0 else reply for reply in await _all(replies)]

    async def expire(self, worker: str) -> int:
        """See `Store.expire`."""
        indexes = [
            self._wire.call((b"ZRANGE", self._keys.status(slot, "running"), 0, -1), same) for slot in range(self.slots)
        ]
        ids = [raw.decode() for running in await _all(indexes) for raw in running]
        replies = []
        for invocation_id in ids:
            keys = self._keys.of(invocation_id)
            head = (b"EVALSHA", self._shas["expire"], b"2", keys.invocation, keys.due)
            replies.append(self._wire.call((*head, invocation_id, worker), same))
        return sum(await _all(replies))

    def attach(self, invocation_id: InvocationId, channel: str) -> Awaitable[Status | None]:
        """See `Store.attach`."""
        keys = self._keys.of(invocation_id)
        head = (b"EVALSHA", self._shas["attach"], b"1", keys.invocation)
        return self._wire.call((*head, channel, WAITERS_MAX), as_status)

    async def read_journal(
        self, invocation_id: InvocationId, *, after: int = 0, entries_max: int | None = None
    ) -> list[Positioned]:
        """See `Store.read_journal`."""
        journal = self._keys.of(invocation_id).journal
        count: tuple[Argument, ...] = () if entries_max is None else (b"COUNT", entries_max)
        return await self._wire.call((b"XRANGE", journal, after + 1, b"+", *count), positioned)

    async def read_invocation(self, invocation_id: InvocationId) -> Summary | None:
        """See `Store.read_invocation`."""
        reply = await self._wire.call((b"HGETALL", self._keys.of(invocation_id).invocation), same)
        return as_summary(invocation_id, reply) if reply else None

    async def list_invocations(self, status: str, *, invocations_max: int) -> list[Summary]:
        """See `Store.list_invocations`."""
        indexes = [
            self._wire.call(
                (b"ZREVRANGE", self._keys.status(slot, status), 0, invocations_max - 1, b"WITHSCORES"), same
            )
            for slot in range(self.slots)
        ]
        scored = [(float(row[i + 1]), row[i].decode()) for row in await _all(indexes) for i in range(0, len(row), 2)]
        newest = [InvocationId(text) for _, text in sorted(scored, reverse=True)[:invocations_max]]
        hashes = await _all([self._wire.call((b"HGETALL", self._keys.of(item).invocation), same) for item in newest])
        return [as_summary(item, fields) for item, fields in zip(newest, hashes, strict=True) if fields]

    async def heartbeat(self, worker: str, facts: dict[str, str]) -> Sequence[str]:
        """See `Store.heartbeat`."""
        seconds, micros = await self._wire.call((b"TIME",), same)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        workers, mine = self._keys.workers, self._keys.worker(worker)
        flat: list[Argument] = [part for pair in facts.items() for part in pair]
        replies = [
            self._wire.call((b"ZADD", workers, now_ms, worker), same),
            self._wire.call((b"HSET", mine, b"seen_at", now_ms, *flat), same),
            self._wire.call((b"PEXPIRE", mine, WORKER_LIFE_MS * 4), same),
            self._wire.call((b"ZREMRANGEBYSCORE", workers, b"-inf", now_ms - WORKER_LIFE_MS * 4), same),
            self._wire.call((b"ZRANGEBYSCORE", workers, now_ms - WORKER_LIFE_MS, b"+inf"), same),
        ]
        return sorted(raw.decode() for raw in (await _all(replies))[-1])

    async def retire(self, worker: str) -> None:
        """See `Store.retire`."""
        await _all(
            [
                self._wire.call((b"ZREM", self._keys.workers, worker), same),
                self._wire.call((b"DEL", self._keys.worker(worker)), same),
            ]
        )


def _written(lease: Lease, entries: Sequence[Entry]) -> tuple[list[Argument], list[Argument]]:
    """The timers that the entries set, member and delay each, and the entries, type and body each."""
    timers: list[Argument] = []
    bodies: list[Argument] = []
    for entry in entries:
        if isinstance(entry, Sleep):
            timers += (f"sleep:{lease.invocation_id}:{entry.command_index}", entry.duration_ms)
        bodies += encode(entry)
    return timers, bodies


async def _all(replies: Sequence[asyncio.Future[T]]) -> list[T]:
    # They are all on their way already; awaiting them in order costs nothing.
    return [await reply for reply in replies]
