"""A Kafka cluster in memory: logs, one consumer group with eager rebalances, commits fenced by its generation.

What it may do to its clients is what Kafka may: deliver late, forget newest commits, lose the end of a log that nobody
has read, hold a rebalance up for a member that does not answer.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from perdure.schemas.errors import BrokerError
from perdure.worker.broker import Outgoing, Partition, Record

from .virtual_loop import VirtualLoop

SESSION_S = 1.5
"""After so long without a sign of it a member is out of the group."""

REBALANCE_S = 2.0
"""How long a rebalance waits for members that do not join."""

HEARTBEAT_S = 0.3
"""A member learns of a rebalance with a heartbeat."""

FETCH_S = 0.01
"""How late a record is seen at most, where nothing is slow."""


class Assigned(Protocol):
    """A member, as the cluster sees it: `virtual_broker.VirtualBroker`."""

    loop: VirtualLoop
    blocked: bool

    def must_rejoin(self, member: int) -> None:
        """A heartbeat said so."""

    def joined(self, member: int, generation: int, offsets: Mapping[Partition, int]) -> None:
        """The group is formed, and these are this member's partitions, with what is committed of them."""

    def arrived(self) -> None:
        """There is something to fetch."""


class VirtualKafka:
    """The cluster.

    Args:
        loop: What it runs on.
        topics: Their partitions.
        chance: For delays and assignments.
        on_commit: Told each commit.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        topics: Mapping[str, int],
        *,
        chance: random.Random,
        on_commit: Callable[[Partition, int], None],
    ) -> None:
        self.loop = loop
        self.chance = chance
        self.down = False
        self.generation = 0
        self.logs: dict[Partition, list[Record]] = {
            Partition(topic, number): [] for topic, count in topics.items() for number in range(count)
        }
        self.committed: dict[Partition, int] = {}
        self.read_to: dict[Partition, int] = {}
        self._topics = dict(topics)
        self._on_commit = on_commit
        self._members: dict[int, Assigned] = {}
        self._joined: set[int] = set()
        self._numbers = 0
        self._preparing = 0

    def delay_s(self) -> float:
        """How long a request or an answer is on its way."""
        return 0.0005 + (0.05 if self.chance.random() < 0.05 else 0.002) * self.chance.random()

    def append(self, outgoing: Outgoing) -> Record:
        """Put a record at the end of its partition; consumers see it soon."""
        count = self._topics[outgoing.topic]
        number = outgoing.partition
        if number is None:
            number = zlib.crc32(outgoing.key) % count if outgoing.key else self.chance.randrange(count)
        partition = Partition(outgoing.topic, number)
        log = self.logs[partition]
        record = Record(
            partition, len(log), int(self.loop.time() * 1000), outgoing.key, outgoing.value, outgoing.headers
        )
        log.append(record)
        self.loop.call_later(FETCH_S * self.chance.random(), self._tell_members)
        return record

    def _tell_members(self) -> None:
        for member in list(self._members.values()):
            if not member.loop.dead and not member.blocked:
                member.loop.call_soon(member.arrived)

    def commit(self, member: int, generation: int, offsets: Mapping[Partition, int]) -> None:
        """Commit, for a member of this generation.

        Raises:
            BrokerError: It is none any more.
        """
        if member not in self._members or generation != self.generation or member in self._joined:
            raise BrokerError("the group has rebalanced")
        for partition, offset in offsets.items():
            self.committed[partition] = offset
            self._on_commit(partition, offset)

    def join(self, member: Assigned, number: int) -> int:
        """A member joins, or joins again under its number; returns that."""
        if number not in self._members:
            self._numbers += 1
            number = self._numbers
            self._members[number] = member
        self._prepare()
        self._joined.add(number)
        self._complete_if_all()
        return number

    def leave(self, number: int) -> None:
        """A member says goodbye, or is missed."""
        if self._members.pop(number, None) is not None:
            self._joined.discard(number)
            if self._members:
                self._prepare()
                self._complete_if_all()

    def missed(self, broker: Assigned, since_steps: int) -> None:
        """Look, a session later, whether a member has given a sign of life."""
        if self.down:
            self.loop.call_later(SESSION_S, self.missed, broker, since_steps)
        elif broker.loop.dead or broker.blocked or (broker.loop.frozen and broker.loop.steps == since_steps):
            for number in [number for number, member in self._members.items() if member is broker]:
                self.leave(number)
                if not broker.loop.dead:
                    broker.loop.call_soon(broker.must_rejoin, number)

    def watch(self, broker: Assigned) -> None:
        """A member may be silent from now on."""
        self.loop.call_later(SESSION_S, self.missed, broker, broker.loop.steps)

    def rebalance(self) -> None:
        """Have everybody join again: soon, or after an outage."""
        if self.down:
            self.loop.call_later(HEARTBEAT_S, self.rebalance)
        elif self._members:
            self._prepare()

    def step_back(self, records_max: int) -> None:
        """Forget newest commits, as an unclean election of the coordinator's partition does."""
        for partition, offset in self.committed.items():
            self.committed[partition] = max(0, offset - self.chance.randrange(records_max + 1))
        self.rebalance()

    def lose_ends(self, topics: Iterable[str]) -> list[Record]:
        """Lose what nobody has read of the ends of these topics' logs."""
        lost: list[Record] = []
        for partition, log in self.logs.items():
            if partition.topic in topics:
                end = max(self.read_to.get(partition, 0), self.committed.get(partition, 0))
                lost += log[end:]
                del log[end:]
        return lost

    def _prepare(self) -> None:
        if self._preparing:
            return
        self._preparing = self.generation + 1
        self._joined.clear()
        for number, member in self._members.items():
            if not member.loop.dead and not member.blocked:
                self.loop.call_later(HEARTBEAT_S * self.chance.random(), self._tell_to_rejoin, number)
        self.loop.call_later(REBALANCE_S, self._give_up_waiting, self._preparing)

    def _tell_to_rejoin(self, number: int) -> None:
        member = self._members.get(number)
        if member is not None and not member.loop.dead:
            if member.blocked or self.down:
                self.loop.call_later(HEARTBEAT_S, self._tell_to_rejoin, number)
            elif self._preparing and number not in self._joined:
                member.loop.call_soon(member.must_rejoin, number)

    def _give_up_waiting(self, preparing: int) -> None:
        if self._preparing == preparing:
            for number in [number for number in self._members if number not in self._joined]:
                member = self._members.pop(number)
                if not member.loop.dead:
                    member.loop.call_soon(member.must_rejoin, number)
            self._complete_if_all()

    def _complete_if_all(self) -> None:
        if not self._preparing or len(self._joined) < len(self._members):
            return
        self._preparing = 0
        self.generation += 1
        self._joined.clear()
        numbers = sorted(self._members)
        if not numbers:
            return
        self.chance.shuffle(numbers)
        shares: dict[int, list[Partition]] = {number: [] for number in numbers}
        for at, partition in enumerate(sorted(self.consumed())):
            shares[numbers[at % len(numbers)]].append(partition)
        for number, share in shares.items():
            self.loop.call_later(self.delay_s(), self._answer, number, self.generation, share)

    def lag(self) -> dict[Partition, int]:
        """How many records of each partition are not committed, where there are any."""
        behind = {each: len(self.logs[each]) - self.committed.get(each, 0) for each in self.consumed()}
        return {partition: count for partition, count in behind.items() if count > 0}

    def consumed(self) -> Sequence[Partition]:
        """What the group reads."""
        return [partition for partition in self.logs if not partition.topic.endswith((".dead", "replies"))]

    def _answer(self, number: int, generation: int, share: Sequence[Partition]) -> None:
        member = self._members.get(number)
        if member is None or generation != self.generation or member.loop.dead:
            return
        if member.blocked or self.down:
            self.loop.call_later(HEARTBEAT_S, self._answer, number, generation, share)
            return
        offsets = {partition: self.committed.get(partition, 0) for partition in share}
        member.loop.call_soon(member.joined, number, generation, offsets)
