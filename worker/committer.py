"""Committing offsets behind the durable point.

An offset moves once everything below it is admitted *and* a barrier that began after those admissions has passed.
Records stay in memory until then: where the barrier shows that Redis was restarted or replaced meanwhile, what it
answered may be lost, and they are admitted again (known ids change nothing).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import NamedTuple, Protocol

from perdure.schemas.errors import BrokerError, PerdureError, StoreError

from .broker import Broker, Partition, Record
from .clock import Clock
from .offsets import OffsetTracker

logger = logging.getLogger(__name__)

COMMIT_INTERVAL_S = 0.2
"""Between two commits: what a crash makes Kafka deliver again is at most this much, plus the barrier's own time."""

UNVOUCHED_MAX = 20_000
"""Records that are admitted but not behind a barrier yet; intake waits beyond it. Some seconds of a full load."""


class DurableBarrier(Protocol):
    """`perdure.journal.barrier.Barrier`."""

    @property
    def lag_ms(self) -> int:
        """How much older than the barrier a write must be to be covered."""

    async def pass_(self) -> int:
        """Return once earlier writes are durable, with the number of the connection that was asked."""


class _Admitted(NamedTuple):
    record: Record
    generation: int
    at_ms: float


class Committer:
    """Tracks fetched records, and commits what is admitted and durable. Listens to the broker's assignments.

    Args:
        broker: Where offsets are committed.
        barrier: The durable point.
        clock: Time.
        admit_again: Admits records that Redis may have lost.
    """

    def __init__(
        self,
        broker: Broker,
        barrier: DurableBarrier,
        *,
        clock: Clock,
        admit_again: Callable[[Sequence[Record]], Awaitable[None]],
    ) -> None:
        self._broker = broker
        self._barrier = barrier
        self._clock = clock
        self._admit_again = admit_again
        self._offsets = OffsetTracker()
        self._held: set[Partition] = set()
        self._unvouched: deque[_Admitted] = deque()
        self._connection: int | None = None
        self._durable_connection: int | None = None
        self._failing = False
        self._one_at_a_time = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()

    def fetched(self, record: Record) -> int:
        """A record arrived; returns its generation, for `admitted`. To be called before the next await."""
        return self._offsets.fetched(record.partition, record.offset)

    def admitted(self, record: Record, generation: int) -> None:
        """The record is in Redis, or elsewhere for good: its offset may move behind the next barrier."""
        self._unvouched.append(_Admitted(record, generation, self._clock.monotonic_ms()))
        if len(self._unvouched) >= UNVOUCHED_MAX:
            self._room.clear()

    def current(self, record: Record, generation: int) -> bool:
        """Whether a record that was fetched and not admitted is this worker's: its partition was not revoked since."""
        return self._offsets.open(record.partition, record.offset, generation=generation)

    async def room(self) -> None:
        """Return when more records may be taken."""
        await self._room.wait()

    async def durable(self) -> None:
        """Return once everything that was written before the call is durable.

        Raises:
            PerdureError: It is not known to be, because the barrier could not be passed or Redis was restarted.
        """
        began_ms = self._clock.monotonic_ms()
        connection = await self._barrier.pass_()
        lag_ms = self._barrier.lag_ms - (self._clock.monotonic_ms() - began_ms)
        if lag_ms > 0:
            await self._clock.sleep(lag_ms / 1000)
            connection = await self._barrier.pass_()
        if connection != self._durable_connection:
            # From here on this connection vouches: whoever asks again has read again what it is about.
            self._durable_connection = connection
            raise StoreError("Redis was restarted or replaced meanwhile and may have lost what was to be durable.")

    async def start(self) -> None:
        """Pass the barrier once, before the first admission, to learn which connection vouches from here on.

        Waits while Redis is away.

        Raises:
            SettingsError: The login is wrong.
        """
        while True:
            try:
                self._connection = self._durable_connection = await self._barrier.pass_()
            except StoreError as error:
                if not self._failing:
                    logger.warning("work begins when the durable point can be reached: %s", error)
                self._failing = True
                await self._clock.sleep(COMMIT_INTERVAL_S)
            else:
                self._failing = False
                return

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            await self._clock.sleep(COMMIT_INTERVAL_S)
            await self.commit()

    async def commit(self) -> None:
        """Commit what can be committed now. Failures are logged once and repeated by the next call."""
        async with self._one_at_a_time:
            try:
                await self._vouch()
                offsets = self._offsets.committable()
                if offsets:
                    await self._broker.commit(offsets)
                    self._offsets.committed(offsets)
            except BrokerError as error:
                logger.debug("offsets were not committed, trying again", extra={"error": str(error)})
            except PerdureError as error:
                if not self._failing:
                    logger.warning("offsets wait for the durable point: %s", error)
                self._failing = True

    async def _vouch(self) -> None:
        if not self._unvouched:
            return
        covered = len(self._unvouched)
        began_ms = self._clock.monotonic_ms()
        connection = await self._barrier.pass_()
        if self._failing:
            logger.info("the durable point is reached again")
        self._failing = False
        if connection != self._connection:
            # The pass vouches for nothing that was admitted before this connection was made.
            again = [self._unvouched.popleft() for _ in range(covered)]
            try:
                await self._admit_again([item.record for item in again])
            except BaseException:
                self._unvouched.extendleft(reversed(again))
                raise
            # Written anew just now: where the barrier lags, it covers them that much later.
            now_ms = self._clock.monotonic_ms()
            self._unvouched.extendleft(item._replace(at_ms=now_ms) for item in reversed(again))
            self._connection = connection
            return
        horizon_ms = began_ms - self._barrier.lag_ms
        while covered and self._unvouched[0].at_ms <= horizon_ms:
            record, generation, _ = self._unvouched.popleft()
            covered -= 1
            self._offsets.done(record.partition, record.offset, generation=generation)
        if len(self._unvouched) < UNVOUCHED_MAX:
            self._room.set()

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """See `AssignmentListener`: commit what is durable, then forget."""
        await self.commit()
        self._offsets.revoked(partitions)
        self._held.difference_update(partitions)

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """See `AssignmentListener`."""
        self._offsets.assigned(partitions)
        self._held.update(partitions)

    @property
    def partitions(self) -> Set[Partition]:
        """The partitions that are read now."""
        return self._held

    def held(self, topic: str) -> list[int]:
        """The partitions of a topic that this worker reads now, sorted."""
        return sorted(number for held, number in self._held if held == topic)
