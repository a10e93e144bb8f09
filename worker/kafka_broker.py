"""Kafka as the engine's `Broker`: a reader and a producer, and a keeper that replaces them and waits out outages.

Law: a caller never sees a client of Kafka's come or go. `poll` returns `[]` and `commit` and `produce` raise
`BrokerError` while there is none; the keeper alone makes and ends them.

```
keeper, every probe_interval_ms:  do the brokers answer? -> are the planned topics there? -> is the producer well?
                                  -> are the reader's partitions right, is it getting anywhere?
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from types import TracebackType
from typing import Self

from perdure.schemas.errors import BrokerError, PerdureError, RecordTooLargeError, SettingsError

from .broker import NONE_HELD, AssignmentListener, Outgoing, Partition, Record
from .clock import Clock
from .kafka import Admin, Producer
from .kafka_config import MANUAL, ClusterView, KafkaConfig, KafkaHealth
from .kafka_offsets import Begin
from .kafka_reader import Reader
from .kafka_tls import tls_context
from .log_filter import without_repeats
from .topics import TopicPlan

logger = logging.getLogger(__name__)

OUTAGE_INTERVAL_MS = 250
"""Between two looks during an outage: work goes on soon after it, and a connection attempt costs little."""

KICK_DELAY_MS = 20
"""Between a reported error and a look at what it is about."""

RESTART_DELAY_MS_MIN = 500
RESTART_DELAY_MS_MAX = 60_000
"""Between two replacements of the reader, doubling: each one is a rebalance for the whole group."""


class KafkaBroker:
    """`Broker` on a Kafka cluster; heals by itself from whatever heals. Enter it once, in the loop that uses it.

    Entering does not wait for Kafka: a worker that starts during an outage starts working after it. `health` tells.

    Args:
        config: Addresses, sizes, timeouts.
        topics: What to consume. One that does not exist is consumed as soon as it does; without any, nothing is.
        plan: Topics to create when they are missing, now or after a broker lost them.
        clock: For watching over the clients.
        begin: Where partitions begin that the group has committed nothing of; at their first record without it.
        produces: Whether `produce` will be called.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        topics: Sequence[str],
        plan: Sequence[TopicPlan] = (),
        clock: Clock,
        begin: Begin | None = None,
        produces: bool = True,
    ) -> None:
        self._config = config
        self._topics = tuple(topics)
        self._plan = tuple(plan)
        self._clock = clock
        self._begin = begin
        self._produces = produces
        self._read: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._listener: AssignmentListener | None = None
        self._resources = contextlib.ExitStack()
        self._keeper: asyncio.Task[None] | None = None
        self._kick = asyncio.Event()
        self._leaving = False
        self._admin: Admin | None = None
        self._reader: Reader | None = None
        self._reader_started = asyncio.Event()
        self._producer: Producer | None = None
        self._producer_started = asyncio.Event()
        self._producing_fails_since_ms: float | None = None
        self._producing_problem: str | None = None
        self._down_since_ms: float | None = None
        self._problem: str | None = "Kafka has not answered yet."
        self._careful = False
        self._topic_ids: dict[str, str] = {}
        self._emptied: set[str] = set()
        self._restart_not_before_ms = 0.0
        self._restart_delay_ms = RESTART_DELAY_MS_MIN
        self._consumer_restarts = 0
        self._producer_restarts = 0

    def listen(self, listener: AssignmentListener) -> None:
        """Name the one listener; before the broker is entered."""
        assert self._keeper is None, "listen() comes before entering the broker"
        self._listener = listener

    async def __aenter__(self) -> Self:
        """Start the keeper.

        Raises:
            SettingsError: The TLS files cannot be used.
        """
        if self._config.security.protocol.endswith("SSL"):
            tls_context(self._config.security)
        self._resources.enter_context(without_repeats("aiokafka", self._clock))
        self._keeper = asyncio.create_task(self._keep(), name="perdure-kafka-keeper")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Revoke everything, so that the listener commits once more; leave the group; send what is buffered."""
        keeper, self._keeper = self._keeper, None
        assert keeper is not None, "the broker was not entered"
        self._leaving = True
        self._kick.set()
        # It may be half-way through making a client: what it cannot finish in time is cancelled.
        await asyncio.wait([keeper], timeout=self._config.stop_timeout_ms / 1000)
        keeper.cancel()
        await asyncio.wait([keeper])
        with self._resources:
            async with asyncio.TaskGroup() as closing:
                for client in (self._reader, self._producer, self._admin):
                    if client is not None:
                        closing.create_task(client.close())
        self._reader = self._producer = self._admin = None

    async def poll(
        self, *, first: Callable[[str], bool], records_max: int, wait_ms: int, held: Set[Partition] = NONE_HELD
    ) -> list[Record]:
        """As `Broker.poll`."""
        reader = await self._reader_within(wait_ms)
        if reader is None:
            return []
        records = await reader.poll(first=first, records_max=records_max, wait_ms=wait_ms, held=held)
        if reader.condemned:
            self._kick.set()
        return records

    async def wait(self, *, wait_ms: int, held: Set[Partition] = NONE_HELD) -> None:
        """As `Broker.wait`."""
        reader = await self._reader_within(wait_ms)
        if reader is not None:
            await reader.wait(wait_ms=wait_ms, held=held)
            if reader.condemned:
                self._kick.set()

    async def _reader_within(self, wait_ms: int) -> Reader | None:
        """The reader; where there is none, `None` as soon as there is one, or after `wait_ms`."""
        if self._reader is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await self._reader_started.wait()
            return None
        return self._reader

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """As `Broker.commit`. Offsets of partitions that are not held any more are left out."""
        if self._reader is None or self._down_since_ms is not None:
            # Nothing is tried blindly during an outage: the broker that comes back may have lost the topics.
            raise BrokerError(self._unavailable("commit offsets"))
        await self._reader.commit(offsets)

    async def produce(self, outgoing: Sequence[Outgoing]) -> None:
        """As `Broker.produce`; `RecordTooLargeError` if one can never be produced."""
        assert self._produces, "this broker was made for reading only"
        try:
            async with asyncio.timeout(self._config.produce_timeout_ms / 1000):
                await self._producer_started.wait()
        except TimeoutError as error:
            raise BrokerError(self._unavailable("produce records")) from error
        producer = self._producer
        assert producer is not None, "produce() was called after leaving the broker"
        try:
            await producer.produce(outgoing)
        except RecordTooLargeError:
            raise
        except BrokerError as error:
            self._producing_fails_since_ms = self._producing_fails_since_ms or self._clock.monotonic_ms()
            self._producing_problem = str(error)
            self._kick.set()
            raise
        self._producing_fails_since_ms = self._producing_problem = None

    def health(self) -> KafkaHealth:
        """What is known now; asks nobody."""
        reader = self._reader
        return KafkaHealth(
            reachable=self._admin is not None and self._down_since_ms is None,
            assigned=self._assigned(),
            fetch_age_ms=reader.fetch_age_ms() if reader is not None else None,
            consumer_restarts=self._consumer_restarts,
            producer_restarts=self._producer_restarts,
            problem=self._problem
            or self._producing_problem
            or (reader.failure if reader is not None else None)
            or (f"There is no topic {' or '.join(self._missing)}." if self._missing else None),
        )

    def _assigned(self) -> int | None:
        if self._reader is not None:
            return len(self._reader.held) if self._reader.settled else None
        return 0 if len(self._missing) == len(self._topics) else None

    def _unavailable(self, what: str) -> str:
        return f"Could not {what}: {self._problem or 'Kafka is being connected to.'} Try again."

    async def _keep(self) -> None:
        while not self._leaving:
            try:
                await self._look_after_all()
            except (BrokerError, SettingsError) as error:
                # A TLS file may be missing while certificates are renewed.
                self._down(error)
                await self._forget_admin()
            except Exception:
                # A mistake of ours must not end the watch; it is repeated at the keeper's pace at worst.
                logger.exception("the Kafka keeper failed and goes on")
            down = self._down_since_ms is not None
            interval_ms = (
                min(OUTAGE_INTERVAL_MS, self._config.probe_interval_ms) if down else self._config.probe_interval_ms
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_ms / 1000):
                    await self._kick.wait()
            self._kick.clear()
            # Errors kick: a storm of them must not become a storm of looks.
            await self._clock.sleep(KICK_DELAY_MS / 1000)

    async def _look_after_all(self) -> None:
        view, created = await self._look_at_topics()
        self._up()
        if self._produces:
            await self._look_after_producer()
        if (anew := self._made_anew(view, created)) and self._reader is not None:
            self._reader.retire(f"the topics {', '.join(anew)} were created anew")
        await self._look_after_reader(view)
        if self._reader is None:
            # There is nothing to read.
            self._problem = None

    async def _look_at_topics(self) -> tuple[ClusterView, list[str]]:
        if self._admin is None:
            admin = Admin(self._config)
            try:
                await admin.start()
            except BaseException:
                await admin.close()
                raise
            self._admin = admin
        names = sorted({*self._topics, *(plan.name for plan in self._plan)})
        view = await self._admin.describe(names)
        missing = [plan for plan in self._plan if plan.name not in view.topics]
        if not missing:
            return view, []
        created = await self._admin.create(missing)
        logger.info("topics were created: %s", ", ".join(sorted(created)))
        return await self._admin.describe(names), sorted(created)

    def _made_anew(self, view: ClusterView, created: Sequence[str]) -> list[str]:
        """Note which topics are not those of before, whoever created them; of those without ids, what we `created`."""
        ids = {topic: topic_id for topic, topic_id in view.topic_ids.items() if topic in self._topics}
        others = {topic for topic, topic_id in ids.items() if self._topic_ids.get(topic, topic_id) != topic_id}
        if self._reader is not None:
            others.update(topic for topic in created if topic in self._topics and topic not in ids)
        self._topic_ids |= ids
        self._emptied |= others
        return sorted(others)

    async def _look_after_producer(self) -> None:
        producer, now_ms = self._producer, self._clock.monotonic_ms()
        if producer is not None:
            since_ms = self._producing_fails_since_ms
            stuck = since_ms is not None and now_ms - since_ms > self._config.stuck_after_ms
            if not (stuck or producer.ended()):
                return
            logger.warning(
                "the Kafka producer is replaced: %s", "it died" if producer.ended() else "it gets nothing done"
            )
            self._producer = None
            self._producer_started.clear()
            self._producer_restarts += 1
            await producer.close()
        fresh = Producer(self._config)
        try:
            await fresh.start()
        except BaseException:
            await fresh.close()
            raise
        self._producing_fails_since_ms = self._producing_problem = None
        self._producer = fresh
        self._producer_started.set()

    async def _look_after_reader(self, view: ClusterView) -> None:
        reader = self._reader
        there = self._topics_in(view)
        if reader is None:
            await self._start_reader(view)
            return
        trouble = reader.trouble()
        if not trouble and self._config.assignment != MANUAL and not set(there).issubset(self._read):
            trouble = "there are topics that were not there before"
        if trouble:
            await self._replace_reader(reader, trouble, view)
        elif self._config.assignment == MANUAL and (wanted := self._all_partitions(view)) != list(reader.held):
            await reader.take_over(wanted)

    async def _replace_reader(self, reader: Reader, reason: str, view: ClusterView) -> None:
        now_ms = self._clock.monotonic_ms()
        self._problem = f"The Kafka consumer must be replaced: {reason}."
        if now_ms < self._restart_not_before_ms:
            return
        if now_ms - self._restart_not_before_ms > RESTART_DELAY_MS_MAX:
            self._restart_delay_ms = RESTART_DELAY_MS_MIN
        self._restart_not_before_ms = now_ms + self._restart_delay_ms
        self._restart_delay_ms = min(2 * self._restart_delay_ms, RESTART_DELAY_MS_MAX)
        logger.warning("the Kafka consumer is replaced: %s", reason)
        self._consumer_restarts += 1
        self._careful = reader.careful
        self._emptied |= reader.emptied
        # It stays known until then: the listener commits through it for the last time.
        await reader.close()
        self._reader = None
        self._reader_started.clear()
        await self._start_reader(view)

    def _topics_in(self, view: ClusterView) -> tuple[str, ...]:
        # What was created just now may not be in what the brokers say of themselves yet.
        planned = {plan.name for plan in self._plan}
        missing = tuple(topic for topic in self._topics if topic not in view.topics and topic not in planned)
        if new := set(missing).difference(self._missing):
            logger.warning("there is no topic %s; it is read as soon as there is", " or ".join(sorted(new)))
        self._missing = missing
        return tuple(topic for topic in self._topics if topic not in missing)

    async def _start_reader(self, view: ClusterView) -> None:
        self._read = self._topics_in(view)
        if not self._read:
            # Subscribing to a topic that is not there may create it.
            return
        reader = Reader(
            self._config,
            self._read,
            listener=self._listener,
            clock=self._clock,
            topic_ids=view.topic_ids,
            emptied=frozenset(self._emptied),
            careful=self._careful,
            begin=self._begin,
        )
        try:
            await reader.start(self._all_partitions(view))
        except BaseException:
            await reader.close()
            raise
        self._reader = reader
        self._emptied.clear()
        self._problem = None
        self._reader_started.set()

    def _all_partitions(self, view: ClusterView) -> list[Partition]:
        return [Partition(t, number) for t in sorted(self._topics) for number in range(view.topics.get(t, 0))]

    def _down(self, error: PerdureError) -> None:
        self._problem = str(error)
        if self._down_since_ms is None:
            self._down_since_ms = self._clock.monotonic_ms()
            if self._reader is not None:
                self._reader.suspect()
            logger.warning("Kafka at %s is not reachable, work waits for it: %s", self._config.bootstrap_servers, error)

    def _up(self) -> None:
        if self._down_since_ms is None:
            return
        lasted_ms = self._clock.monotonic_ms() - self._down_since_ms
        self._down_since_ms = None
        self._problem = None
        logger.info("Kafka is reachable again after %.1f s", lasted_ms / 1000)
        if self._reader is None:
            return
        self._reader.forgive()
        manual = self._config.assignment == MANUAL
        if manual or lasted_ms >= self._config.session_timeout_ms:
            # The group has buried this member by now, or there is no group that would have us read the committed
            # offsets again; a broker without a disk may even have lost them.
            self._reader.retire("an outage is over")

    async def _forget_admin(self) -> None:
        """Connect anew next time: all brokers may have moved."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
