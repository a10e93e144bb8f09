"""One worker's clients of the simulated Kafka: `Broker`, with the manners of `kafka_broker` and `kafka_reader`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from perdure.schemas.errors import BrokerError
from perdure.worker.broker import NONE_HELD, AssignmentListener, Outgoing, Partition, Record

from .virtual_kafka import REBALANCE_S, VirtualKafka
from .virtual_loop import VirtualLoop

LISTENER_S = REBALANCE_S * 2 / 3
"""How long the listener may take over a revocation, as in `kafka_config`."""

ANSWER_S = 1.0
"""Without an answer for so long a request has failed."""


class VirtualBroker:
    """A consumer in the group and a producer.

    Args:
        kafka: The cluster.
        loop: The process.
    """

    def __init__(self, kafka: VirtualKafka, loop: VirtualLoop) -> None:
        self.loop = loop
        self.blocked = False
        self._kafka = kafka
        self._listener: AssignmentListener | None = None
        self._member = 0
        self._generation = 0
        self._positions: dict[Partition, int] = {}
        self._settled = asyncio.Event()
        self._rejoin = asyncio.Event()
        self._arrived = asyncio.Event()
        self._joining: asyncio.Future[tuple[int, Mapping[Partition, int]]] | None = None
        self._leaving = False
        self._last_append_s = 0.0

    def listen(self, listener: AssignmentListener) -> None:
        """See `Broker.listen`."""
        self._listener = listener

    async def keep(self) -> None:
        """Be a member of the group until cancelled."""
        while True:
            self._rejoin.clear()
            generation, offsets = await self._join()
            assert self._listener is not None, "the engine listens"
            self._generation, self._positions = generation, dict(offsets)
            await self._listener.assigned(list(offsets))
            self._settled.set()
            self._arrived.set()
            await self._rejoin.wait()
            await self._revoke()

    async def leave(self) -> None:
        """Let go of everything, and of the group."""
        self._leaving = True
        await self._revoke()
        self._kafka.loop.call_later(self._kafka.delay_s(), self._kafka.leave, self._member)

    async def _revoke(self) -> None:
        assert self._listener is not None, "the engine listens"
        held = list(self._positions)
        self._settled.clear()
        self._arrived.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTENER_S):
                await self._listener.revoked(held)
        self._positions = {}

    async def _join(self) -> tuple[int, Mapping[Partition, int]]:
        while True:
            self._joining = self.loop.create_future()
            self._kafka.loop.call_later(self._kafka.delay_s(), self._ask_to_join, self._joining)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3 * REBALANCE_S):
                    return await self._joining

    def _ask_to_join(self, joining: asyncio.Future[Any]) -> None:
        if self.loop.dead or self._leaving or joining is not self._joining or joining.done():
            return
        if self.blocked or self._kafka.down:
            self._kafka.loop.call_later(0.25, self._ask_to_join, joining)
            return
        self._member = self._kafka.join(self, self._member)

    def joined(self, member: int, generation: int, offsets: Mapping[Partition, int]) -> None:
        """See `Assigned`."""
        if member == self._member and self._joining is not None and not self._joining.done():
            self._joining.set_result((generation, offsets))

    def must_rejoin(self, member: int) -> None:
        """See `Assigned`."""
        if member == self._member:
            self._rejoin.set()

    def arrived(self) -> None:
        """See `Assigned`."""
        self._arrived.set()

    async def poll(
        self, *, first: Callable[[str], bool], records_max: int, wait_ms: int, held: Set[Partition] = NONE_HELD
    ) -> list[Record]:
        """See `Broker.poll`."""
        if not self._settled.is_set() or self.blocked or self._kafka.down:
            if wait_ms:
                await self._within(self._settled, wait_ms)
            return []
        logs, chance = self._kafka.logs, self._kafka.chance
        found: list[Record] = []
        order = sorted(self._positions)
        chance.shuffle(order)
        order.sort(key=lambda partition: not first(partition.topic))
        for partition in order:
            if partition in held or len(found) >= records_max:
                continue
            position = self._positions[partition]
            # A fetch brings what it brings.
            count = min(records_max - len(found), chance.choice((1, 2, 3, 500)))
            records = logs[partition][position : position + count]
            self._positions[partition] = position + len(records)
            self._kafka.read_to[partition] = max(self._kafka.read_to.get(partition, 0), self._positions[partition])
            found += records
        return found

    async def wait(self, *, wait_ms: int, held: Set[Partition] = NONE_HELD) -> None:
        """See `Broker.wait`."""
        if not self._settled.is_set():
            await self._within(self._settled, wait_ms)
            return
        if self.blocked or self._kafka.down or not self._more(held):
            self._arrived.clear()
            await self._within(self._arrived, wait_ms)

    def _more(self, held: Set[Partition]) -> bool:
        logs = self._kafka.logs
        return any(at < len(logs[each]) and each not in held for each, at in self._positions.items())

    async def _within(self, event: asyncio.Event, wait_ms: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1000):
                await event.wait()

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """See `Broker.commit`."""
        held = {partition: offset for partition, offset in offsets.items() if partition in self._positions}
        await self._ask(self._commit, self._member, self._generation, held)

    def _commit(
        self, answer: asyncio.Future[None], member: int, generation: int, offsets: Mapping[Partition, int]
    ) -> None:
        try:
            self._kafka.commit(member, generation, offsets)
        except BrokerError as error:
            self._refuse(answer, error)
        else:
            self._acknowledge(answer)

    async def produce(self, outgoing: Sequence[Outgoing]) -> None:
        """See `Broker.produce`."""
        await self._ask(self._append, list(outgoing))

    def _append(self, answer: asyncio.Future[None], outgoing: Sequence[Outgoing]) -> None:
        for record in outgoing:
            self._kafka.append(record)
        self._acknowledge(answer)

    async def _ask(self, work: Callable[..., None], *args: object) -> None:
        """Send a request, and wait for its answer: it may be lost on the way there, or on the way back."""
        kafka, answer = self._kafka, self.loop.create_future()
        # Requests of one client arrive in order.
        arrival_s = max(self._last_append_s, self.loop.time() + kafka.delay_s())
        self._last_append_s = arrival_s
        kafka.loop.call_at(arrival_s, self._arrive, work, answer, args)
        try:
            async with asyncio.timeout(ANSWER_S):
                await answer
        except TimeoutError as error:
            raise BrokerError("Kafka did not answer in time") from error

    def _arrive(self, work: Callable[..., None], answer: asyncio.Future[None], args: tuple[object, ...]) -> None:
        if not (self.blocked or self._kafka.down):
            work(answer, *args)

    def _acknowledge(self, answer: asyncio.Future[None]) -> None:
        self._kafka.loop.call_later(self._kafka.delay_s(), self._answered, answer, None)

    def _refuse(self, answer: asyncio.Future[None], error: BrokerError) -> None:
        self._kafka.loop.call_later(self._kafka.delay_s(), self._answered, answer, error)

    def _answered(self, answer: asyncio.Future[None], error: BrokerError | None) -> None:
        if not (self.blocked or self._kafka.down or self.loop.dead):
            self.loop.call_soon(_settle, answer, error)


def _settle(answer: asyncio.Future[None], error: BrokerError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
