"""One consumer's life, from joining to leaving: what is polled, who is told of partitions, and whether it is stuck.

Law: a record is handed out only between `assigned` and `revoked` of its partition, resume topics first; whatever was
taken out of aiokafka and not handed out yet is kept in `_carry` until then, so that no cancellation loses it. A reader
in trouble is condemned and replaced by a new one, which starts at the committed offsets: records come again, none is
lost.

```
start -> [revoked] -> settled: poll, commit -> revoked -> (joining) -> assigned -> settled -> ... -> close
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set

from perdure.schemas.errors import BrokerError, PerdureError

from .broker import NONE_HELD, AssignmentListener, Partition, Record
from .clock import Clock
from .kafka import Consumer
from .kafka_config import MANUAL, KafkaConfig
from .kafka_connection import UnreadableRecordsError
from .kafka_offsets import Begin, former

logger = logging.getLogger(__name__)

TROUBLE_WAIT_MS = 100
"""After an error, at most one try in so long, however often the engine polls."""

CAREFUL_WAIT_MS = 20
"""Between two rounds over all partitions, one by one, while one of them is known to hold something unreadable."""

CAREFUL_MS = 600_000
"""Partition by partition is read until nothing was unreadable for so long: the next time costs a rebalance again."""

QUARANTINE_MS = 30_000
"""An unreadable partition is tried again after so long: a codec may have been installed, a record expired."""


class Reader:
    """One consumer with its partitions. Used by one polling task; the listener runs on aiokafka's task.

    Args:
        config: As for `KafkaBroker`.
        topics: What to consume.
        listener: Told of partitions; an error or a timeout of it is logged and does not stop the rebalance.
        clock: For watching over itself.
        topic_ids: Which topics are meant, where Kafka tells: what was committed for a former namesake is not believed.
        emptied: Topics made anew just now: the first assignment, until which it stays set, begins at their beginning.
        careful: Begin by reading partition by partition, because a predecessor met records that cannot be decoded:
            aiokafka forgets what it drained of other partitions when one of them raises.
        begin: Where partitions without a committed offset begin, and who is told of commits.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topics: Sequence[str],
        *,
        listener: AssignmentListener | None,
        clock: Clock,
        topic_ids: Mapping[str, str],
        emptied: frozenset[str],
        careful: bool,
        begin: Begin | None = None,
    ) -> None:
        self.careful = careful
        self.emptied = emptied
        self.condemned: str | None = None
        self.held: tuple[Partition, ...] = ()
        self._config = config
        self._topics = topics
        self._listener = listener
        self._clock = clock
        self._topic_ids = topic_ids
        self._begin = begin
        # Without a group nobody waits meanwhile, and its coordinator may have to be found first.
        self._begin_ms = config.request_timeout_ms if config.assignment == MANUAL else config.listener_timeout_ms
        self._unreadable_at_ms = clock.monotonic_ms()
        self._consumer = Consumer(config, revoked=self._revoked, assigned=self._assigned)
        self._settled = asyncio.Event()
        self._void = self._revoking = self._closed = False
        self._waiting: asyncio.Timeout | None = None
        self._committing: asyncio.Timeout | None = None
        self._carry: list[Record] = []
        self._commit_turn = asyncio.Lock()
        self._quarantine: dict[Partition, float] = {}
        self._fetched: tuple[int | None, float] = (None, clock.monotonic_ms())
        self._starved_at_ms: float | None = None
        self._unsettled_since_ms: float | None = clock.monotonic_ms()
        self._failing: dict[str, tuple[float, str]] = {}

    @property
    def settled(self) -> bool:
        """Whether partitions, maybe none, are assigned and the listener was told."""
        return self._settled.is_set()

    @property
    def failure(self) -> str | None:
        """The error of what fails at the moment, if anything does."""
        return self.condemned or next((error for _, error in self._failing.values()), None)

    async def start(self, partitions: Iterable[Partition]) -> None:
        """Connect, and join the group or, in manual mode, take `partitions`.

        Raises:
            BrokerError: Nothing answered; close the reader.
        """
        await self._consumer.start()
        if self._config.assignment == MANUAL:
            await self.take_over(partitions)
        else:
            self._consumer.subscribe(self._topics)

    async def take_over(self, partitions: Iterable[Partition]) -> None:
        """In manual mode, let go of all partitions and take these, as a rebalance would."""
        taken = sorted(partitions)
        await self._revoked(self.held)
        self._consumer.assign(taken)
        await self._assigned(taken)

    async def poll(
        self, *, first: Callable[[str], bool], records_max: int, wait_ms: int, held: Set[Partition] = NONE_HELD
    ) -> list[Record]:
        """As `Broker.poll`. An error is noted for `trouble` and logged once, and `[]` returned."""
        if not await self._settles_within(wait_ms):
            return []
        try:
            if self.careful:
                return await self._one_by_one(first, records_max, wait_ms, held)
            records = await self._available(first, records_max, held)
            if not records and wait_ms:
                await self._wait_for_records(records_max, wait_ms, held)
                records = await self._available(first, records_max, held) if self.settled else []
        except BrokerError as error:
            await self._cannot_read(error, wait_ms)
            return []
        self._failing.pop("reading", None)
        # Nothing is fetched of what is held: that is no sign of trouble.
        hungry = not records and not self._all_held(held)
        self._starved_at_ms = self._clock.monotonic_ms() if hungry else None
        return records

    async def wait(self, *, wait_ms: int, held: Set[Partition] = NONE_HELD) -> None:
        """As `Broker.wait`."""
        if not await self._settles_within(wait_ms) or self._ready(held):
            return
        if self.careful:
            await self._clock.sleep(min(wait_ms, CAREFUL_WAIT_MS) / 1000)
            return
        try:
            await self._wait_for_records(1, wait_ms, held)
        except BrokerError as error:
            await self._cannot_read(error, wait_ms)

    async def _cannot_read(self, error: BrokerError, wait_ms: int) -> None:
        if isinstance(error, UnreadableRecordsError):
            self.careful = True
            self._condemn(str(error))
        self._failed("reading", error)
        await self._clock.sleep(min(wait_ms, TROUBLE_WAIT_MS) / 1000)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """As `Broker.commit`."""
        async with self._commit_turn:
            # A commit that crosses a JoinGroup makes aiokafka forget its membership (its issues 575, 727).
            if not (self.settled or self._revoking):
                raise BrokerError("Offsets cannot be committed while the group rebalances: commit again afterwards.")
            if self._void:
                return
            try:
                async with asyncio.timeout(None) as self._committing:
                    await self._consumer.commit(offsets, self._topic_ids)
            except TimeoutError as error:
                raise BrokerError("An outage began while offsets were committed: commit again after it.") from error
            except BrokerError as error:
                self._failed("committing", error)
                raise
            finally:
                self._committing = None
            self._failing.pop("committing", None)
            if self._begin is not None:
                await self._begin.reached({at: offsets[at] for at in self.held if at in offsets}, self._topic_ids)

    def suspect(self) -> None:
        """An outage has begun: give up a commit that is under way.

        aiokafka would repeat it after the outage, maybe to a broker that has forgotten the group and its topics.
        """
        if self._committing is not None and not self._committing.expired():
            self._committing.reschedule(asyncio.get_running_loop().time())

    def retire(self, reason: str) -> None:
        """Have it replaced, and commit nothing more: its offsets may not be those of the topics that are there now.

        An offset of a topic that is no more, committed for its namesake, would skip records.
        """
        self._void = True
        self._condemn(reason)

    def trouble(self) -> str | None:
        """Return why this reader should be replaced while the brokers answer others, or `None`."""
        now_ms, patience_ms = self._clock.monotonic_ms(), self._config.stuck_after_ms
        if self.condemned:
            return self.condemned
        if ended := self._consumer.ended(joining=not self.settled):
            return ended
        if self._unsettled_since_ms is not None and now_ms - self._unsettled_since_ms > patience_ms:
            return "the group assigned no partitions in time"
        for since_ms, error in self._failing.values():
            if now_ms - since_ms > patience_ms:
                return error
        age_ms = self.fetch_age_ms()
        hungry = self._starved_at_ms is not None and now_ms - self._starved_at_ms < patience_ms / 2
        if self.held and hungry and age_ms is not None and age_ms > patience_ms:
            return "no fetch was answered in time"
        return None

    def fetch_age_ms(self) -> float | None:
        """Milliseconds since the last answered fetch, or since the assignment; `None` without partitions."""
        if not (self.held and self.settled):
            return None
        latest, now_ms = self._consumer.last_fetch_ms(), self._clock.monotonic_ms()
        if latest != self._fetched[0]:
            self._fetched = (latest, now_ms)
        return now_ms - self._fetched[1]

    def forgive(self) -> None:
        """Count all patience from now: what went before was an outage and not this reader's fault."""
        now_ms = self._clock.monotonic_ms()
        self._failing.clear()
        self._fetched = (self._fetched[0], now_ms)
        self._starved_at_ms = None
        if not self.settled:
            self._unsettled_since_ms = now_ms

    async def close(self) -> None:
        """Tell the listener that all partitions go, and leave. Never hangs."""
        try:
            if not self._revoking:
                await self._revoked(self.held)
        finally:
            self._closed = True
            await self._consumer.close()

    async def _available(self, first: Callable[[str], bool], records_max: int, held: Set[Partition]) -> list[Record]:
        """Drain what is buffered. Nothing is in a local variable alone while something may raise."""
        urgent = [partition for partition in self.held if first(partition.topic) and partition not in held]
        if urgent:
            self._carry.extend(await self._consumer.take(records_max=records_max, partitions=urgent))
        if (ready := self._ready(held)) < records_max:
            some = self._all_but(held)
            self._carry.extend(await self._consumer.take(records_max=records_max - ready, partitions=some))
        if urgent:
            # Stable: the records of one partition keep their order.
            self._carry.sort(key=lambda record: not first(record.partition.topic))
        return self._from_carry(records_max, held)

    async def _wait_for_records(self, records_max: int, wait_ms: int, held: Set[Partition]) -> None:
        """Move what comes first into the carry. A revocation ends the wait: aiokafka would wait out the rebalance."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as self._waiting:
                    if self.held and self._all_held(held):
                        await self._clock.sleep(wait_ms / 1000)
                    else:
                        some = self._all_but(held)
                        taken = await self._consumer.take(records_max=records_max, wait_ms=wait_ms, partitions=some)
                        self._carry.extend(taken)
        finally:
            # Also when the poll itself is cancelled: a finished wait cannot be ended again.
            self._waiting = None

    async def _one_by_one(
        self, first: Callable[[str], bool], records_max: int, wait_ms: int, held: Set[Partition]
    ) -> list[Record]:
        """Read each partition by itself; one that cannot be decoded is left alone for a while."""
        assigned = self.held
        for partition in sorted(assigned, key=lambda each: not first(each.topic)):
            room = records_max - self._ready(held)
            if room < 1 or partition in held or self._quarantine.get(partition, 0) > self._clock.monotonic_ms():
                continue
            try:
                self._carry.extend(await self._consumer.take(records_max=room, partitions=[partition]))
            except UnreadableRecordsError:
                self._unreadable_at_ms = self._clock.monotonic_ms()
                records = await self._salvaged(partition, room)
                if self.held is not assigned:
                    # They were assigned anew meanwhile, from their commits on.
                    return []
                self._carry.extend(records)
        if self._clock.monotonic_ms() - self._unreadable_at_ms > CAREFUL_MS:
            self.careful = False
        if not self._ready(held):
            await self._clock.sleep(min(wait_ms, CAREFUL_WAIT_MS) / 1000)
        return self._from_carry(records_max, held)

    async def _salvaged(self, partition: Partition, records_max: int) -> list[Record]:
        try:
            return await self._consumer.salvage(partition, records_max=records_max)
        except BrokerError as error:
            self._quarantine[partition] = self._clock.monotonic_ms() + QUARANTINE_MS
            logger.error("partition %s of %s is left alone: %s", partition.number, partition.topic, error)
            return []

    def _all_held(self, held: Set[Partition]) -> bool:
        return all(partition in held for partition in self.held)

    def _all_but(self, held: Set[Partition]) -> list[Partition] | None:
        return [partition for partition in self.held if partition not in held] if held else None

    def _ready(self, held: Set[Partition]) -> int:
        """How many records of the carry may be handed out."""
        return sum(record.partition not in held for record in self._carry) if held else len(self._carry)

    def _from_carry(self, records_max: int, held: Set[Partition]) -> list[Record]:
        if not held:
            records, self._carry = self._carry[:records_max], self._carry[records_max:]
            return records
        ready = [record.partition not in held for record in self._carry]
        chosen = [record for record, may in zip(self._carry, ready, strict=True) if may]
        later = {id(record) for record in chosen[records_max:]}
        self._carry = [r for r, may in zip(self._carry, ready, strict=True) if not may or id(r) in later]
        return chosen[:records_max]

    async def _settles_within(self, wait_ms: int) -> bool:
        if not self._settled.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await self._settled.wait()
        return self._settled.is_set()

    async def _revoked(self, partitions: Sequence[Partition]) -> None:
        if self._closed:
            return
        if self._settled.is_set():
            self._settled.clear()
            self._unsettled_since_ms = self._clock.monotonic_ms()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())
        self._carry.clear()
        if partitions and self._listener is not None:
            self._revoking = True
            try:
                await self._told(self._listener.revoked(partitions), "revoked")
            finally:
                self._revoking = False
        self.held = ()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.commit_timeout_ms / 1000), self._commit_turn:
                logger.debug("no commit is under way, joining goes on")

    async def _assigned(self, partitions: Sequence[Partition]) -> None:
        if self._closed:
            return
        if partitions:
            try:
                async with asyncio.timeout(self._begin_ms / 1000):
                    self._consumer.seek(await self._beginnings(partitions))
            except (PerdureError, TimeoutError) as error:
                # Nothing may be handed out: it might be from before the beginning.
                self._condemn(f"where to begin could not be found out: {error!r}")
                return
            self.emptied = frozenset()
        if partitions and self._listener is not None:
            await self._told(self._listener.assigned(partitions), "assigned")
        self.held = tuple(partitions)
        self._unsettled_since_ms = None
        self._fetched = (self._fetched[0], self._clock.monotonic_ms())
        self._settled.set()
        logger.info("%s partitions are assigned to group %s", len(partitions), self._config.group_id)

    async def _beginnings(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        ask, ids = self._consumer.ask, self._topic_ids
        begin = dict(await self._begin(ask, partitions, ids)) if self._begin is not None else {}
        begin |= await ask(former(ids), partitions) if ids else {}
        return begin | {partition: 0 for partition in partitions if partition.topic in self.emptied}

    async def _told(self, call: Awaitable[None], event: str) -> None:
        """Bound the listener in time: while it runs, nobody in the group gets anything."""
        try:
            async with asyncio.timeout(self._config.listener_timeout_ms / 1000):
                await call
        except TimeoutError:
            logger.error("the listener took too long over partitions %s; the rebalance goes on", event)
        except Exception:
            logger.exception("the listener failed over partitions %s; the rebalance goes on", event)

    def _failed(self, what: str, error: BrokerError) -> None:
        if what not in self._failing:
            self._failing[what] = (self._clock.monotonic_ms(), str(error))
            logger.warning("%s fails: %s", what, error)

    def _condemn(self, reason: str) -> None:
        self.condemned = self.condemned or reason
        self._settled.clear()
