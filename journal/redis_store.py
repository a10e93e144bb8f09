"""The store on Redis: one typed wrapper for each Lua script, and the reads.

Nothing is decided here: scripts decide (`scripts/*.lua`), `replies` turns answers into values, `wire` carries them.
What an attempt does is here, what comes from outside in `redis_outside`, reading in `redis_reads`, acknowledging in
`redis_acknowledging`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence

import orjson

from perdure.schemas.codec import encode, encode_run
from perdure.schemas.commands import Awakeable, ClearAll, ClearState, Lookup, SetState
from perdure.schemas.entries import OUTGOING, AttemptStarted, Entry, Output, Run, Sleep
from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import WAITERS_MAX, shorten

from .keys import Keys
from .link import Argument, pack
from .promised import promised_by
from .redis_acknowledging import RedisAcknowledging
from .redis_outside import RedisOutside
from .redis_reads import RedisReads
from .redis_scripts import (
    PAGE_ENTRIES_MAX,
    REPLY_LEASE_MS,
    SWEEP_BYTES_MAX,
    SWEEP_MEMBERS_MAX,
    Wiring,
    all_of,
    kept_for,
)
from .replies import as_admitted, as_appended, as_claim, as_concluded, as_departure, as_swept, positioned
from .store import ALWAYS_MS, Admission, Admitted, Appended, Claim, Concluded, Follow, Lease, Swept
from .wire import same

logger = logging.getLogger(__name__)

_EFFECTIVE = frozenset((*OUTGOING, Awakeable, SetState, ClearState, ClearAll))
"""Entries that do more than stand in the journal."""


CLAIM_ENTRIES_MAX = 1_000
"""Entries that come with a claim; the rest is read in pages, so that no script holds Redis for long."""

FENCES_MAX = 10_000
"""Leases whose part of an append is remembered: ten times as many as attempts run at once, in some 3 MB."""

_STEP = b"*14\r\n%b$%d\r\n%b\r\n$%d\r\n%b\r\n$1\r\n%d\r\n$1\r\n0\r\n$3\r\nrun\r\n$%d\r\n%b\r\n"
"""The append of one step, from its lease's part on: after, seq, whether failures start anew, no timers, the entry."""


class RedisStore(RedisAcknowledging, RedisOutside, RedisReads):
    """`Store` on Redis or Valkey: one server, or a cluster. The wiring is entered and left by the caller."""

    def __init__(self, wiring: Wiring, keys: Keys) -> None:
        super().__init__(wiring, keys)
        self._append = self._shas["append"]
        self._told_slots = self._keys.slots if wiring.one_node else 0
        self._fences: dict[Lease, tuple[int, bytes]] = {}

    def admit(self, admission: Admission, *, lease_ms: int) -> asyncio.Future[Admitted]:
        """See `Store.admit`."""
        keys = self._keys.of(admission.invocation_id)
        fields: list[Argument] = [b"service", admission.service, b"handler", admission.handler]
        optional = (
            (b"key", admission.key or ""),
            (b"idempotency_key", admission.idempotency_key),
            (b"source", admission.source),
        )
        for name, value in optional:
            if value:
                fields += (name, value)
        fields += kept_for(admission)
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
            admission.caller,
            admission.mode,
            admission.target,
            self._keys.prefix(keys.slot),
            1 if admission.key is not None else 0,
            admission.queue_max,
            admission.behind,
            *fields,
        )
        lease = Lease(admission.invocation_id, 1, admission.token, admission.worker, admission.target)
        return self._script("admit", keys, arguments, lambda reply: as_admitted(reply, lease))

    async def claim(
        self, invocation_id: InvocationId, epoch: int, *, token: str, worker: str, lease_ms: int, at_ms: int
    ) -> Claim | None:
        """See `Store.claim`."""
        lease = Lease(invocation_id, epoch + 1, token, worker)
        try:
            return await self._claim(lease, epoch, lease_ms=lease_ms, at_ms=at_ms)
        except DecodeError as error:
            logger.error("%s is paused, because its journal is damaged: %s", invocation_id, error)
            # After no entry: how many there are is not known, and nothing is appended.
            await self.give_up(lease, [], after=0, seq=1, failure=shorten(str(error)))
            return None

    async def _claim(self, lease: Lease, epoch: int, *, lease_ms: int, at_ms: int) -> Claim | None:
        invocation_id, _, token, worker = lease[:4]
        body = encode(AttemptStarted(at_ms, worker))[1]
        keys = self._keys.of(invocation_id)
        slot = self._keys.prefix(keys.slot)
        arguments = (invocation_id, epoch, token, worker, lease_ms, body, CLAIM_ENTRIES_MAX, slot)
        answer = await self._script("claim", keys, arguments, lambda reply: as_claim(reply, lease))
        if answer is None:
            return None
        claim, length = answer
        entries = list(claim.entries)
        # Pages are read after the claim: only this attempt appends now, and completions come at the end. Positions are
        # dense, so all pages can be asked for at once.
        pages = [
            self._wires[keys.slot].call(
                (b"XRANGE", keys.journal, start + 1, b"+", b"COUNT", PAGE_ENTRIES_MAX), positioned
            )
            for start in range(len(entries), length, PAGE_ENTRIES_MAX)
        ]
        for page in await all_of(pages):
            entries += page
        return claim._replace(entries=entries)

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Appended]:
        """See `Store.append`."""
        if len(entries) == 1 and type(entries[0]) is Run:
            return self._append_step(lease, entries[0], after=after, seq=seq, progress=progress)
        keys = self._keys.of(lease.invocation_id)
        timers, bodies, effective, said = _written(lease, entries)
        count = len(timers) // 2
        if effective:
            head: tuple[Argument, ...] = (
                b"EVALSHA",
                self._append,
                b"5",
                keys.invocation,
                keys.journal,
                keys.due,
                self._keys.state_beside(lease.invocation_id, lease.target),
                keys.status_prefix,
            )
            about = (b"3" if progress else b"2", count, lease.invocation_id, REPLY_LEASE_MS, said)
            call = (*head, lease.epoch, lease.token, after, seq, *about, *timers, *bodies)
            return self._wires[keys.slot].call(call, as_appended)
        head = (b"EVALSHA", self._append, b"3", keys.invocation, keys.journal, keys.due)
        fence = (lease.epoch, lease.token, after, seq, b"1" if progress else b"0", count)
        return self._wires[keys.slot].call((*head, *fence, *timers, *bodies), as_appended)

    def _append_step(
        self, lease: Lease, step: Run, *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Appended]:
        # Formatted by hand: most of what hiredis would pack, at 3 µs, is the same in each append of an attempt.
        fence = self._fences.get(lease)
        if fence is None:
            if len(self._fences) >= FENCES_MAX:
                self._fences.clear()
            keys = self._keys.of(lease.invocation_id)
            head = (b"EVALSHA", self._append, b"3", keys.invocation, keys.journal, keys.due, lease.epoch, lease.token)
            fence = self._fences[lease] = (keys.slot, pack(head).partition(b"\r\n")[2])
        slot, part = fence
        body, known, number = encode_run(step)[1], b"%d" % after, b"%d" % seq
        of_attempt = (part, len(known), known, len(number), number, progress)
        return self._wires[slot].send(_STEP % (*of_attempt, len(body), body), as_appended)

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
        """See `Store.complete`."""
        keys = self._keys.of(lease.invocation_id)
        output = entries[-1]
        assert isinstance(output, Output), "the last entry of an invocation is its output"
        _, bodies, effective, said = _written(lease, entries)
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
            self._keys.prefix(keys.slot),
            self._keys.state_beside(lease.invocation_id, lease.target) if effective else b"",
            *((b"", b"", b"") if follow is None else _follow(lease, follow)),
            said,
            self._told_slots,
            len(timers),
            *(f"sleep:{lease.invocation_id}:{index}" for index in timers),
            *bodies,
        )
        if follow is None:
            return self._script("complete", keys, arguments, as_concluded)
        token = follow.token
        return self._script("complete", keys, arguments, lambda reply: as_concluded(reply, lease.worker, token))

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
        timers, bodies, effective, said = _written(lease, entries)
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
            self._keys.state_beside(lease.invocation_id, lease.target) if effective else b"",
            REPLY_LEASE_MS,
            said,
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

    async def give_up(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, failure: str) -> None:
        """See `Store.give_up`."""
        await self._leave(lease, entries, after=after, seq=seq, status="paused", failure=failure)

    async def release(self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int) -> None:
        """See `Store.release`."""
        await self._leave(lease, entries, after=after, seq=seq, status="ready")

    def sweep(self, slot: int, *, leases_until_ms: int = ALWAYS_MS) -> Awaitable[Swept]:
        """See `Store.sweep`."""
        head = (b"EVALSHA", self._shas["sweep"], b"2", self._keys.due(slot), self._keys.status(slot, ""))
        bounds = (
            self._keys.prefix(slot),
            SWEEP_MEMBERS_MAX,
            REPLY_LEASE_MS,
            self._keys.hints(""),
            leases_until_ms,
            SWEEP_BYTES_MAX,
        )
        return self._wires[slot].call((*head, *bounds), as_swept)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int, alone: bool = False) -> Sequence[int | None]:
        """See `Store.renew`."""
        replies = [
            self._script("renew", self._keys.of(lease.invocation_id), (*lease[:3], lease_ms, int(alone)), same)
            for lease in leases
        ]
        return [None if reply < 0 else reply for reply in await all_of(replies)]


def _follow(lease: Lease, follow: Follow) -> tuple[Argument, Argument, Argument]:
    return follow.token, follow.lease_ms, encode(AttemptStarted(follow.at_ms, lease.worker))[1]


def _written(lease: Lease, entries: Sequence[Entry]) -> tuple[list[Argument], list[Argument], bool, bytes]:
    """What scripts are told of entries.

    Returns:
        Their timers, member and delay each; the entries, type and body each; whether one does more than stand there, or
        rests upon what the store held when it was asked; what they say of promises, as JSON.
    """
    timers: list[Argument] = []
    bodies: list[Argument] = []
    effective = False
    said: list[tuple[str, str, bool]] = []
    for entry in entries:
        kind = type(entry)
        if kind is not Run:
            if isinstance(entry, Sleep):
                timers += (f"sleep:{lease.invocation_id}:{entry.command_index}", entry.duration_ms)
            elif isinstance(entry, Lookup) and (each := promised_by(lease.invocation_id, entry)) is not None:
                said.append((each.name, each.by, each.won))
            effective = effective or kind in _EFFECTIVE
        bodies += encode(entry)
    return timers, bodies, effective or bool(said), orjson.dumps(said) if said else b""
