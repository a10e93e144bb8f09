"""The engine: one worker's records in, attempts run, outcomes out. Handed its clock, randomness, store and broker.

```
broker --> intake --> store.admit / claim --> attempts --> store.complete --> outbox --> broker
timers --> store.sweep ---------------------------------------------------------^
leases: a thread renews what runs          committer: offsets behind the durable point
```

Law: nothing that matters lives here. Kill the process at any instant, and Redis and Kafka hold all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from perdure.journal.store import CascadeDue, Due, Follow, HintDue, Lease, OutgoingDue, ReplyDue, ResumeDue, Store
from perdure.journal.transitions import caller_of
from perdure.schemas.entries import Entry, Outcome
from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId, is_invocation_id
from perdure.schemas.records import Resume

from .application import Application
from .attempt import Attempt
from .attempts import Attempts, AttemptSettings
from .broker import Broker, Outgoing
from .ceiling import Ceiling
from .clock import Clock
from .committer import Committer, DurableBarrier
from .dead_letters import failure_letter
from .departures import AttemptEnd, Completed, Left, Lost, Released
from .dispatch import Dispatcher
from .intake import Intake, IntakeLimits, Progress
from .leases import Renewal
from .outbox import Outbox
from .readings import EnvelopeReading, Reading, SubscriptionReading
from .replying import Replies
from .resuming import Resuming
from .sources import Feed, Source, Turns
from .timers import Timers
from .topics import dead_letter_topic, resume_topic, service_topic

logger = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
"""How often a worker says that it lives: a newcomer's share of the slots is noticed that late, which costs nothing but
sweeps that two of them do."""

LAST_WORDS_S = 5.0
"""For the last records, the last commit and the farewell of a worker that stops."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is told.

    Attributes:
        namespace: Of topics and keys.
        worker: This worker's id; nobody else has it.
        concurrency: Attempts at once.
        lease_ms: How long an attempt may append without a renewal.
        grace_ms: How long a stop waits for what runs.
        record_bytes_max: A larger record is a dead letter.
        reply_durable: Whether replies wait until their outcomes are durable.
        attempts: What holds for attempts.
    """

    namespace: str
    worker: str
    concurrency: int
    lease_ms: int
    grace_ms: int
    record_bytes_max: int
    reply_durable: bool
    attempts: AttemptSettings


class Engine:
    """One worker. `run` works until `stop` was called and everything was handed over.

    Args:
        application: What to run.
        settings: How.
        store: The invocations.
        broker: The records; entered by the caller, after the engine was made.
        barrier: The durable point.
        renewal: Keeps leases alive.
        clock: Time.
        new_token: Makes a fencing token that nobody made before.
        threads: Where sync steps run.
        facts: What this worker says of itself in Redis.
        feeds: The consumer groups of the application's subscriptions; their brokers are entered by the caller, too.
    """

    def __init__(
        self,
        application: Application,
        settings: EngineSettings,
        *,
        store: Store,
        broker: Broker,
        barrier: DurableBarrier,
        renewal: Renewal,
        clock: Clock,
        new_token: Callable[[], str],
        threads: Executor,
        facts: dict[str, str],
        feeds: Sequence[Feed[Broker]] = (),
    ) -> None:
        self._settings = settings
        self._store = store
        self._broker = broker
        self._clock = clock
        self._facts = facts
        self._outbox = Outbox(broker, clock=clock)
        self._timers = Timers(store, clock=clock, worker=settings.worker, lease_ms=settings.lease_ms, on_due=self._due)
        self._ceiling = Ceiling(store, clock=clock, worker=settings.worker)
        self._attempts = Attempts(
            application,
            settings.attempts,
            store=store,
            clock=clock,
            threads=threads,
            timers=self._timers,
            concurrency=settings.concurrency,
            on_end=self._ended,
            outward=self,
        )
        self._renewal = renewal
        self._application = application
        self._barrier = barrier
        self._new_token = new_token
        self._stopping = asyncio.Event()
        self._dispatcher = self._make_dispatcher()
        self._resuming = self._make_resuming()
        self._turns = Turns(self._attempts.room)
        own = self._own_source()
        self._committer = own.committer
        self._sources = [own, *map(self._subscribed_source, feeds)]
        self._replies = Replies(
            store,
            self._outbox,
            tell=self._dispatcher.tell,
            letter=partial(
                failure_letter,
                store,
                topic=dead_letter_topic(settings.namespace),
                codec=application.payload_codec,
            ),
            durable=self._committer.durable if settings.reply_durable else None,
            spawn=self._attempts.spawn,
        )
        self._turn = 0

    def _make_dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self._application,
            namespace=self._settings.namespace,
            store=self._store,
            outbox=self._outbox,
            clock=self._clock,
            worker=self._settings.worker,
            new_token=self._new_token,
            lease_ms=self._settings.lease_ms,
            record_bytes_max=self._settings.record_bytes_max,
            room=lambda: self._attempts.free > self._dispatcher.claiming and not self._stopping.is_set(),
            start=self._attempts.start,
            on_due=self.act,
            spawn=self._attempts.spawn,
        )

    def _make_resuming(self) -> Resuming:
        return Resuming(
            resume=self._dispatcher.resume,
            runs=self._application.services.__contains__,
            produce=self._produce,
            clock=self._clock,
            spawn=self._attempts.spawn,
        )

    def _own_source(self) -> Source:
        namespace, services = self._settings.namespace, self._application.services
        read = EnvelopeReading(
            self._application,
            {service_topic(namespace, name): name for name in services},
            record_bytes_max=self._settings.record_bytes_max,
            now_ms=self._clock.now_ms,
        )
        resumes = frozenset(resume_topic(namespace, name) for name in services)
        return self._source(self._broker, read, resumes=resumes)

    def _subscribed_source(self, feed: Feed[Broker]) -> Source:
        read = SubscriptionReading(
            self._application,
            feed.subscriptions,
            group=feed.group,
            record_bytes_max=self._settings.record_bytes_max,
            now_ms=self._clock.now_ms,
        )
        return self._source(feed.broker, read, resumes=frozenset())

    def _source(self, broker: Broker, read: Reading, *, resumes: frozenset[str]) -> Source:
        committer = Committer(
            broker, self._barrier, clock=self._clock, admit_again=lambda records: intake.take_again(records)
        )
        intake = Intake(
            self._application,
            self._store,
            self._outbox,
            clock=self._clock,
            worker=self._settings.worker,
            new_token=self._new_token,
            read=read,
            resumes=resumes,
            limits=IntakeLimits(self._settings.lease_ms, dead_letter_topic(self._settings.namespace)),
            start=self._attempts.start,
            progress=Progress(committer.admitted, committer.current),
            tell=self._tell,
        )
        return Source(
            broker,
            committer,
            intake,
            turns=self._turns,
            clock=self._clock,
            first=resumes.__contains__,
            admits=lambda: self._ceiling.admits,
        )

    def stop(self) -> None:
        """Take nothing more, finish or hand over what runs, and return from `run`. For signal handlers too."""
        self._stopping.set()

    def hint(self, message: bytes) -> None:
        """Something was appended to an invocation that this worker runs; or it runs nowhere, and something is due."""
        # Anybody may publish: a record can name this channel as the one that waits for its outcome.
        invocation_id = InvocationId(message.decode("utf-8", "replace"))
        if is_invocation_id(invocation_id) and not self._attempts.poke(invocation_id):
            self._timers.expect(invocation_id, in_ms=0)

    def send(self, origin: InvocationId, position: int, entry: Entry, *, target: str) -> None:
        """See `Outward`."""
        self._dispatcher.send(origin, position, entry, target=target)

    def act(self, due: Sequence[Due]) -> None:
        """See `Outward`."""
        self._due(due)

    async def cancel_callees(self, origin: InvocationId, told: Collection[tuple[int, InvocationId]]) -> None:
        """See `Outward`."""
        await self._dispatcher.cancel_callees(origin, told)

    def follow(self) -> Follow | None:
        """See `Outward`: who completes leaves room for one; but a worker that stops begins nothing."""
        if self._stopping.is_set():
            return None
        return Follow(self._new_token(), self._settings.lease_ms, self._clock.now_ms())

    def held(self) -> Sequence[Lease]:
        """See `HeldLeases`."""
        return self._attempts.leases()

    def expected(self) -> Sequence[Lease]:
        """See `HeldLeases`."""
        asked = [lease for source in self._sources for lease in source.intake.expected()]
        return [*asked, *self._dispatcher.expected()]

    def renewed(self, lease: Lease, length: int | None) -> None:
        """See `HeldLeases`."""
        self._attempts.renewed(lease, length)

    def check_all(self) -> None:
        """Hints may have been lost: look at every invocation that runs here."""
        for lease in self._attempts.leases():
            self._attempts.poke(lease.invocation_id)

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            PerdureError: What is needed at the start cannot be had.
            ExceptionGroup: A part failed in a way that it does not mend by itself; the worker must be started anew.
        """
        self._attempts.learn(await self._store.descriptions())
        for source in self._sources:
            await source.committer.start()
        async with asyncio.TaskGroup() as parts:
            services = [
                parts.create_task(work, name=name)
                for name, work in (
                    ("outbox", self._outbox.run()),
                    ("timers", self._timers.run()),
                    ("leases", self._renewal.run(self)),
                    ("heartbeat", self._heartbeat()),
                    ("ceiling", self._ceiling.run()),
                    *(("committer", source.committer.run()) for source in self._sources),
                )
            ]
            intakes = [parts.create_task(source.run(), name="intake") for source in self._sources]
            self._attempts.open(parts)
            await self._stopping.wait()
            self._resuming.leave()
            await self._turns.end(intakes, patience_s=LAST_WORDS_S)
            await self._attempts.drain(grace_ms=self._settings.grace_ms, more=self.expected)
            await self._last_words()
            for service in services:
                service.cancel()

    async def _last_words(self) -> None:
        try:
            # Bounded: with Kafka away, `due` produces again what is left here.
            async with asyncio.timeout(LAST_WORDS_S):
                await self._outbox.emptied()
                for source in self._sources:
                    await source.committer.commit()
                await self._store.retire(self._settings.worker)
        except (TimeoutError, PerdureError) as error:
            logger.warning("not all was said while stopping, and other workers will do what is left: %r", error)

    async def _heartbeat(self) -> None:
        while True:
            try:
                facts = self._facts | {"waits": self._ceiling.waits}
                workers = await self._store.heartbeat(self._settings.worker, facts)
                self._attempts.learn(await self._store.descriptions())
                self._timers.share_with(workers)
                self._ceiling.share_with(workers)
            except PerdureError as error:
                logger.warning("this worker could not say that it lives, which others only use as a hint: %s", error)
            await self._clock.sleep(HEARTBEAT_S)

    def _due(self, due: Sequence[Due]) -> None:
        for item in due:
            match item:
                case ResumeDue():
                    self._resuming.put(item)
                case ReplyDue(invocation_id, topics, outcome, callers):
                    self._replies.put(invocation_id, topics, callers, outcome)
                case OutgoingDue(invocation_id, position, entry):
                    self._dispatcher.send(invocation_id, position, entry)
                case CascadeDue(invocation_id):
                    self._attempts.spawn(self._dispatcher.kill_callees(invocation_id))
                case HintDue(_, invocation_id):
                    # Others hear of theirs by the channel.
                    self._attempts.poke(invocation_id)

    def _produce(self, due: ResumeDue) -> None:
        topic = resume_topic(self._settings.namespace, due.service)
        value = Resume(due.invocation_id, due.epoch).encode()
        self._outbox.put(Outgoing(topic, due.invocation_id.encode(), value, partition=self._near(topic)))

    def _near(self, topic: str) -> int | None:
        """One of this worker's own partitions: that of a dead one is read by nobody until Kafka has noticed."""
        own = self._committer.held(topic)
        if not own or self._stopping.is_set() or self._attempts.full:
            return None
        self._turn += 1
        return own[self._turn % len(own)]

    def _tell(self, caller: str, outcome: Outcome, then: Callable[[], None]) -> None:
        async def tell() -> None:
            while True:
                as_of = self._store.losses
                if not await self._dispatcher.tell(caller_of(caller), outcome):
                    return
                if as_of == self._store.losses:
                    break
            then()

        self._attempts.spawn(tell())

    def _ended(self, attempt: Attempt, end: AttemptEnd) -> None:
        claim = attempt.claim
        match end:
            case Completed(outcome, topics, callers, following, following_claim, due):
                if topics or callers:
                    self._replies.put(claim.lease.invocation_id, topics, callers, outcome)
                self._due(due)
                if following_claim is not None:
                    self._attempts.start(following_claim)
                elif following is not None:
                    self._resuming.put(following)
            case Released():
                self._produce(ResumeDue(claim.lease.invocation_id, claim.lease.epoch, claim.service))
            case Left(_, _, due_in_ms):
                if due_in_ms is not None:
                    self._timers.expect(claim.lease.invocation_id, in_ms=due_in_ms)
            case Lost():
                pass
        self._resuming.freed()
