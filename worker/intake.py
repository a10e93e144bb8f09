"""From fetched records to admitted invocations, claimed resumes and dead letters.

Law: what a full queue refuses holds its partition back, in memory and in order, until there is room. Nothing of that
partition is fetched meanwhile, and others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence, Set
from typing import NamedTuple

from perdure.journal.store import (
    Admission,
    Admitted,
    Claim,
    Claimed,
    Duplicate,
    Full,
    Lease,
    Queued,
    Scheduled,
    Store,
)
from perdure.schemas.entries import Outcome
from perdure.schemas.errors import DecodeError, PerdureError, StoreError
from perdure.schemas.ids import InvocationId
from perdure.schemas.records import Resume, decode_resume

from .admissions import admission_of, first_claim
from .application import Application
from .arrivals import Arrivals, Fetched
from .broker import Partition, Record
from .clock import Clock
from .dead_letters import pointing_letter, unreadable_letter
from .outbox import Outbox
from .readings import DEAD_LETTER_REPLY, Reading, check_names
from .replying import reply_to

logger = logging.getLogger(__name__)


class IntakeLimits(NamedTuple):
    """What holds for every record.

    Attributes:
        lease_ms: Of the first lease.
        dead_letter_topic: Where what cannot be understood goes.
    """

    lease_ms: int
    dead_letter_topic: str


class Progress(NamedTuple):
    """Who is told what became of records: `committer.Committer`.

    Attributes:
        settled: The offset of this record may move.
        current: Whether this record is this worker's, and its offset has not moved.
    """

    settled: Callable[[Record, int], None]
    current: Callable[[Record, int], bool]


class Intake:
    """Takes the batches of one consumer group.

    Args:
        application: Whose handlers are invoked.
        store: Where invocations are admitted and claimed.
        outbox: For dead letters and for replies to duplicates.
        clock: For display times.
        worker: This worker's id.
        new_token: Makes a fencing token that nobody made before.
        read: How records are read.
        resumes: The topics of resume notices.
        limits: Bounds.
        start: Called with every claim; the attempt begins.
        progress: Told of records.
        tell: Called with a caller, an outcome, and what to call once the caller knows it.
    """

    def __init__(
        self,
        application: Application,
        store: Store,
        outbox: Outbox,
        *,
        clock: Clock,
        worker: str,
        new_token: Callable[[], str],
        read: Reading,
        resumes: Collection[str],
        limits: IntakeLimits,
        start: Callable[[Claim], None],
        progress: Progress,
        tell: Callable[[str, Outcome, Callable[[], None]], None],
    ) -> None:
        self._application = application
        self._tell = tell
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._worker = worker
        self._new_token = new_token
        self._read = read
        self._resumes = resumes
        self._expected: dict[str, Lease] = {}
        self._limits = limits
        self._start_attempt = start
        self._begun = 0
        self._progress = progress
        self._waiting: dict[Partition, deque[Fetched]] = {}
        self._arrivals = Arrivals(progress.current)

    async def take(self, records: Iterable[Fetched]) -> int:
        """Admit or claim a batch: one round trip, then everything runs.

        A record that cannot be understood becomes a dead letter and holds up nothing but its own offset. Those that a
        full queue refuses are kept for `take_held`.

        Returns:
            How many attempts began. Others wait, for a time or for their object, or were known already.
        """
        begun = self._begun
        for fetched, admission in await self._offer(records):
            partition = fetched.record.partition
            if partition not in self._waiting:
                self._waiting[partition] = deque()
                logger.warning(
                    "the queue of %s is full, or lacks what comes before: %s/%d waits at offset %d until there is room",
                    admission.target,
                    *partition,
                    fetched.record.offset,
                )
            self._waiting[partition].append(fetched)
        return self._begun - begun

    def held(self) -> Set[Partition]:
        """The partitions of which nothing more is to be fetched now."""
        for partition, waiting in list(self._waiting.items()):
            if not self._progress.current(*waiting[0]):
                # Revoked, or assigned anew: whoever has it now begins at the commit, which is not past these.
                self._goes_on(partition)
        return self._waiting.keys()

    async def take_held(self, records_max: int) -> None:
        """Try again what was refused: the first of each partition and, where there was room, those behind it.

        Args:
            records_max: At least 1.
        """
        firsts = [self._waiting[partition][0] for partition in self.held()][:records_max]
        refused = {fetched.record.partition for fetched, _ in await self._offer(firsts)}
        rest: list[Fetched] = []
        for first in firsts:
            partition = first.record.partition
            if partition not in refused:
                self._waiting[partition].popleft()
                rest += list(self._waiting[partition])[: records_max - len(rest)]
        again: dict[Partition, list[Fetched]] = {}
        for fetched, _ in await self._offer(rest):
            again.setdefault(fetched.record.partition, []).append(fetched)
        for fetched in rest:
            self._waiting[fetched.record.partition].popleft()
        for partition, fetched_again in again.items():
            self._waiting[partition].extendleft(reversed(fetched_again))
        for first in firsts:
            if not self._waiting[first.record.partition]:
                self._goes_on(first.record.partition)

    def _goes_on(self, partition: Partition) -> None:
        del self._waiting[partition]
        self._arrivals.forget(partition)
        logger.info("%s/%d goes on", *partition)

    async def _offer(self, records: Iterable[Fetched]) -> list[tuple[Fetched, Admission]]:
        """Admit and claim; returns what a full queue refused, in order."""
        admissions: list[tuple[Fetched, Admission, Awaitable[Admitted]]] = []
        claims: list[tuple[Fetched, Lease, Awaitable[Claim | None]]] = []
        for fetched in records:
            try:
                if fetched.record.partition.topic in self._resumes:
                    claims.append((fetched, *self._claim(self._resume(fetched.record))))
                else:
                    admission = self._arrivals.placed(fetched, self._admission(fetched.record))
                    admissions.append((fetched, admission, self._admit(admission)))
            except DecodeError as error:
                self._bury(fetched, str(error))
        answers = asyncio.gather(*(claim for *_, claim in claims), return_exceptions=True)
        refused, left_behind = [], []
        for fetched, admission, reply in admissions:
            try:
                admitted = await reply
                if isinstance(admitted, Full):
                    refused.append((fetched, admission))
                else:
                    self._arrivals.answered(fetched)
                    self._admitted(fetched, admission, admitted)
            except PerdureError as error:
                self._arrivals.answered(fetched)
                self._left_behind(fetched.record, error)
                left_behind.append(admission.invocation_id)
            finally:
                self._expected.pop(admission.token, None)
        if left_behind:
            self._arrivals.left_behind(left_behind)
        for (fetched, lease, _), claim in zip(claims, await answers, strict=True):
            match claim:
                case PerdureError():
                    self._left_behind(fetched.record, claim)
                case BaseException():
                    raise claim
                case _:
                    self._progress.settled(*fetched)
                    if claim is not None:
                        self._start(claim)
            self._expected.pop(lease.token, None)
        return refused

    def _start(self, claim: Claim) -> None:
        self._begun += 1
        self._start_attempt(claim)

    def _left_behind(self, record: Record, error: PerdureError) -> None:
        topic, number = record.partition
        logger.error(
            "the record of %s/%d at offset %d was refused by Redis; its offset waits and Kafka delivers it again when "
            "a worker starts: %s",
            topic,
            number,
            record.offset,
            error,
        )

    async def take_again(self, records: Sequence[Record]) -> None:
        """Admit and claim again what Redis may have lost since; what it still knows changes nothing.

        Raises:
            StoreError: Redis refused one, or a queue is full: it is to be repeated, for all.
        """
        admissions: list[tuple[Admission, Awaitable[Admitted]]] = []
        claims: list[tuple[Lease, Awaitable[Claim | None]]] = []
        ahead: dict[str, InvocationId] = {}
        for record in records:
            try:
                if record.partition.topic in self._resumes:
                    # A lost claim leaves its invocation ready, and its attempt may have ended here in good faith.
                    claims.append(self._claim(self._resume(record)))
                else:
                    admission = self._admission(record)
                    if admission.mode:
                        admission = admission._replace(behind=ahead.get(admission.target, ""))
                        ahead[admission.target] = admission.invocation_id
                    admissions.append((admission, self._admit(admission)))
            except DecodeError:
                # It is a dead letter, which does not depend on Redis.
                continue
        full = ""
        try:
            for admission, reply in admissions:
                if not self._admitted_again(admission, await reply):
                    full = admission.target
            for _, waiting in claims:
                claim = await waiting
                if claim is not None:
                    self._start(claim)
        finally:
            for admission, _ in admissions:
                self._expected.pop(admission.token, None)
            for lease, _ in claims:
                self._expected.pop(lease.token, None)
        if full:
            raise StoreError(f"The queue of {full} is full, and what Redis lost of it waits for room.")

    def _admitted_again(self, admission: Admission, admitted: Admitted) -> bool:
        """Whether there was room for it."""
        match admitted:
            case Claimed():
                self._start(first_claim(admission, admitted))
            case Duplicate(_, outcome) if outcome is not None and admission.caller:
                # What it was told before may be lost, too.
                self._tell(admission.caller, outcome, lambda: None)
            case Full():
                return False
            case _:
                pass
        return True

    def _resume(self, record: Record) -> Resume:
        check_names(record.headers)
        if record.value is None:
            raise DecodeError("The value is null; a resume notice is a JSON object.")
        return decode_resume(record.value)

    def expected(self) -> list[Lease]:
        """Every lease that was asked for and is not answered yet. May be called in any thread."""
        # One call into C makes the list: nothing can change the dict meanwhile.
        return list(self._expected.values())

    def _admit(self, admission: Admission) -> Awaitable[Admitted]:
        self._expected[admission.token] = Lease(
            admission.invocation_id, 1, admission.token, admission.worker, admission.target
        )
        return self._store.admit(admission, lease_ms=self._limits.lease_ms)

    def _claim(self, resume: Resume) -> tuple[Lease, Awaitable[Claim | None]]:
        lease = Lease(resume.id, resume.epoch + 1, self._new_token(), self._worker)
        self._expected[lease.token] = lease
        claim = self._store.claim(
            resume.id,
            resume.epoch,
            token=lease.token,
            worker=self._worker,
            lease_ms=self._limits.lease_ms,
            at_ms=self._clock.now_ms(),
        )
        return lease, claim

    def _admission(self, record: Record) -> Admission:
        return admission_of(self._application, self._read(record), token=self._new_token(), worker=self._worker)

    def _admitted(self, fetched: Fetched, admission: Admission, admitted: Admitted) -> None:
        match admitted:
            case Claimed():
                self._progress.settled(*fetched)
                self._start(first_claim(admission, admitted))
            case Duplicate(_, outcome) if outcome is not None and admission.caller:
                # The offset waits for it: the record is all that knows of this caller.
                self._tell(admission.caller, outcome, lambda: self._progress.settled(*fetched))
            case Duplicate(_, outcome) if outcome is not None and admission.reply_to not in ("", DEAD_LETTER_REPLY):
                # Likewise: nothing in Redis remembers that this record wants a reply.
                reply, instead = reply_to(admission.reply_to, admission.invocation_id, outcome)
                self._outbox.put(reply, lambda: self._progress.settled(*fetched), instead=instead)
            case Scheduled() | Queued() | Duplicate():
                self._progress.settled(*fetched)
            case Full():
                raise AssertionError("what is refused is kept, not settled")

    def _bury(self, fetched: Fetched, reason: str) -> None:
        topic, number = fetched.record.partition
        logger.warning(
            "a record of %s/%d at offset %d goes to the dead letters: %s", topic, number, fetched.record.offset, reason
        )
        letter = unreadable_letter(fetched.record, reason, topic=self._limits.dead_letter_topic)
        self._outbox.put(letter, lambda: self._progress.settled(*fetched), instead=pointing_letter(letter))
