"""The offset tracker against a partition that has gaps, is rewound, lost, regained and created anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from perdure.worker.broker import Partition
from perdure.worker.offsets import OffsetTracker

P = Partition("t", 0)
SETTINGS = settings(max_examples=100, stateful_step_count=30, deadline=None)
HUNT = settings(SETTINGS, max_examples=2000, phases=[Phase.generate], report_multiple_bugs=False, database=None)
"""For planted bugs: the first failure will do, the smallest is not needed."""


class InFlight(NamedTuple):
    """A record that a worker holds: of which log, at which offset, fetched in which generation."""

    incarnation: int
    offset: int
    generation: int


class PartitionModel(RuleBasedStateMachine):
    """One partition, its committed offset and a consumer, driven in any order.

    Safety: no record below the committed offset is left unadmitted. Progress: when all is done, all is committable.
    """

    make_tracker: Callable[[], OffsetTracker] = OffsetTracker

    def __init__(self) -> None:
        super().__init__()
        self.tracker = type(self).make_tracker()
        self.incarnation = 0
        self.log: list[int] = []
        self.admitted: set[int] = set()
        self.committed = 0
        self.position = 0
        self.held: list[InFlight] = []
        self.owned = False

    @rule(gaps=st.lists(st.integers(0, 3), min_size=1, max_size=5))
    def produce(self, gaps: list[int]) -> None:
        """Records arrive, some of them behind a gap."""
        for gap in gaps:
            self.log.append((self.log[-1] + 1 if self.log else 0) + gap)

    @precondition(lambda self: self.owned)
    @rule(count=st.integers(1, 6))
    def fetch(self, count: int) -> None:
        """The consumer hands out the next records."""
        for offset in [o for o in self.log if o >= self.position][:count]:
            generation = self.tracker.fetched(P, offset)
            self.held.append(InFlight(self.incarnation, offset, generation))
            self.position = offset + 1

    @precondition(lambda self: self.held)
    @rule(picks=st.lists(st.integers(0, 20), min_size=1, max_size=8), twice=st.booleans())
    def finish(self, picks: list[int], twice: bool) -> None:
        """Any held records are admitted, also those of an earlier generation; sometimes they are reported twice."""
        for record in {self.held[pick % len(self.held)] for pick in picks}:
            self.admit(record)
            if not twice:
                self.held.remove(record)

    def admit(self, record: InFlight) -> None:
        """Make it durable, and say so."""
        if record.incarnation == self.incarnation:
            self.admitted.add(record.offset)
        self.tracker.done(P, record.offset, generation=record.generation)

    @precondition(lambda self: self.tracker.committable())
    @rule(fate=st.sampled_from(["acknowledged", "refused", "reply lost"]))
    def commit(self, fate: str) -> None:
        """What is committable is committed, or not, or it is and nobody learns of it."""
        offsets = self.tracker.committable()
        if fate != "refused":
            self.committed = offsets.get(P, self.committed)
        if fate == "acknowledged":
            self.tracker.committed(offsets)
            offsets = {}
        assert self.tracker.committable() == offsets, "what may be committed is what was not acknowledged"

    @precondition(lambda self: not self.owned or self.log)
    @rule()
    def assign(self) -> None:
        """The partition arrives, also if it was held: fetching restarts at the committed offset."""
        self.tracker.revoked([P])
        self.tracker.assigned([P])
        self.owned, self.position = True, self.committed

    @precondition(lambda self: self.held)
    @rule()
    def revoke(self) -> None:
        """The partition goes to somebody else."""
        self.tracker.revoked([P])
        self.owned = False

    @precondition(lambda self: self.owned)
    @rule(by=st.integers(1, 5))
    def rewind(self, by: int) -> None:
        """The consumer seeks back without a rebalance."""
        self.position = max(self.committed, self.position - by)

    @precondition(lambda self: self.held)
    @rule()
    def recreate(self) -> None:
        """The topic is deleted, with its offsets, and created anew: other records carry the same offsets.

        The broker notices and revokes; until it does, it lets no commit through.
        """
        self.revoke()
        self.incarnation += 1
        self.log, self.admitted, self.committed, self.position = [], set(), 0, 0

    @precondition(lambda self: self.owned and self.log)
    @rule()
    def finish_all(self) -> None:
        """Once everything is fetched and admitted, everything is committable."""
        self.fetch(len(self.log))
        for record in self.held:
            self.admit(record)
        self.held.clear()
        self.commit("acknowledged")
        assert self.committed >= self.log[-1] + 1, "records are done but cannot be committed"
        assert self.tracker.backlog == 0

    @invariant()
    def nothing_unadmitted_is_committed(self) -> None:
        """A restart now would lose nothing."""
        lost = [offset for offset in self.log if offset < self.committed and offset not in self.admitted]
        assert not lost, f"committed {self.committed} past {lost}"


PartitionModel.TestCase.settings = SETTINGS
TestPartition = PartitionModel.TestCase


class CommitsTheHighestDone(OffsetTracker):
    """Planted: the offset behind the highest done record, as a queue that acknowledges each message would."""

    def __init__(self) -> None:
        super().__init__()
        self.highest: dict[Partition, int] = {}

    def done(self, partition: Partition, offset: int, *, generation: int | None = None) -> None:
        """Remember the highest."""
        self.highest[partition] = max(offset + 1, self.highest.get(partition, 0))

    def committable(self) -> dict[Partition, int]:
        """The highest."""
        return dict(self.highest)


class WaitsForGaps(OffsetTracker):
    """Planted: contiguous over integers, so that a compacted offset blocks for ever."""

    def fetched(self, partition: Partition, offset: int) -> int:
        """Expect every integer in between, too."""
        progress = self._partitions.get(partition)
        expected = progress.next_offset if progress else None
        for missing in range(offset if expected is None else expected, offset):
            super().fetched(partition, missing)
        return super().fetched(partition, offset)


class KeepsOldGenerations(OffsetTracker):
    """Planted: what an earlier assignment left open stays open, as in Faust #318."""

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Forget nothing."""

    def assigned(self, partitions: Iterable[Partition]) -> int:
        """Keep the table of a partition that comes back."""
        return super().assigned([p for p in partitions if p not in self._partitions])

    def fetched(self, partition: Partition, offset: int) -> int:
        """Count from the old table on."""
        progress = self._partitions[partition]
        progress.order.append(offset)
        progress.open[offset] = progress.generation
        progress.next_offset = max(offset + 1, progress.next_offset or 0)
        return progress.generation


@pytest.mark.parametrize(
    "planted",
    [CommitsTheHighestDone, WaitsForGaps, KeepsOldGenerations],
)
def test_planted_bugs_are_caught(planted: type[OffsetTracker]) -> None:
    """The model tells each of these broken trackers from a right one."""

    class Broken(PartitionModel):
        make_tracker = planted

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=HUNT)
