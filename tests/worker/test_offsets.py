"""Which offsets may be committed: each test is a bug that somebody's offset table had."""

from __future__ import annotations

from perdure.worker.broker import Partition
from perdure.worker.offsets import OffsetTracker

P = Partition("t", 0)
Q = Partition("t", 1)


def tracker_with(*offsets: int) -> OffsetTracker:
    """A tracker that holds P and has fetched `offsets` of it."""
    tracker = OffsetTracker()
    tracker.assigned([P])
    for offset in offsets:
        tracker.fetched(P, offset)
    return tracker


def test_nothing_to_commit_before_anything_is_done() -> None:
    """Neither an empty partition nor fetched records make an offset (parallel-consumer #62: the empty map)."""
    assert OffsetTracker().committable() == {}
    assert tracker_with().committable() == {}
    assert tracker_with(5, 6).committable() == {}


def test_a_record_that_is_not_done_holds_the_offset() -> None:
    """Records finish in any order; the watermark waits for the lowest."""
    tracker = tracker_with(5, 6, 7)
    tracker.done(P, 7)
    tracker.done(P, 6)
    assert tracker.committable() == {}
    tracker.done(P, 5)
    assert tracker.committable() == {P: 8}


def test_gaps_do_not_block() -> None:
    """Offsets compacted away or taken by transaction markers are not waited for (parallel-consumer #329, #409)."""
    tracker = tracker_with(5, 9, 1_000_000)
    tracker.done(P, 5)
    assert tracker.committable() == {P: 9}
    tracker.done(P, 9)
    assert tracker.committable() == {P: 1_000_000}
    tracker.done(P, 1_000_000)
    assert tracker.committable() == {P: 1_000_001}


def test_offsets_beyond_32_bits() -> None:
    """Nothing overflows (parallel-consumer #35, #439)."""
    tracker = tracker_with(2**40, 2**62)
    tracker.done(P, 2**40)
    tracker.done(P, 2**62)
    assert tracker.committable() == {P: 2**62 + 1}


def test_done_twice() -> None:
    """A second `done` blocks nothing (Faust #625)."""
    tracker = tracker_with(5, 6, 7)
    for offset in (6, 5, 5, 6):
        tracker.done(P, offset)
    assert tracker.committable() == {P: 7}
    tracker.done(P, 7)
    tracker.done(P, 7)
    assert tracker.committable() == {P: 8}


def test_done_of_what_was_never_fetched() -> None:
    """A stray `done` does not move the watermark, now or when the record comes."""
    tracker = tracker_with(5)
    tracker.done(P, 6)
    tracker.fetched(P, 6)
    tracker.done(P, 5)
    assert tracker.committable() == {P: 6}


def test_a_partition_that_comes_back_commits_again() -> None:
    """What was open before two rebalances does not block the partition for ever (Faust #318, #681)."""
    tracker = tracker_with(5, 6)
    tracker.revoked([P])
    tracker.assigned([Q])
    tracker.revoked([Q])
    tracker.assigned([P])
    tracker.fetched(P, 5)
    tracker.done(P, 5)
    assert tracker.committable() == {P: 6}


def test_a_retained_partition_starts_anew() -> None:
    """An eager rebalance assigns what was held before: fetching restarts at the commit, and so does the table."""
    tracker = tracker_with(5, 6, 7)
    tracker.done(P, 5)
    tracker.done(P, 6)
    tracker.assigned([P])
    assert tracker.committable() == {}
    tracker.fetched(P, 5)
    assert tracker.committable() == {}


def test_a_late_done_of_an_older_generation_changes_nothing() -> None:
    """Stale work acknowledges nothing after the partition was lost and came back (parallel-consumer #547)."""
    tracker = OffsetTracker()
    tracker.assigned([P])
    old = tracker.fetched(P, 5)
    tracker.revoked([P])
    tracker.done(P, 5, generation=old)
    tracker.assigned([P])
    new = tracker.fetched(P, 5)
    tracker.done(P, 5, generation=old)
    assert tracker.committable() == {}
    tracker.done(P, 5, generation=new)
    assert tracker.committable() == {P: 6}


def test_a_revoked_partition_is_not_committed() -> None:
    """What is done for a partition that went is the next owner's to commit."""
    tracker = tracker_with(5)
    tracker.done(P, 5)
    tracker.revoked([P])
    assert tracker.committable() == {}
    assert tracker.fetched(P, 6) == 0
    assert tracker.backlog == 0


def test_committed_offsets_are_not_offered_again() -> None:
    """A commit is repeated only when there is something new; a failed one is offered again (Faust #458)."""
    tracker = tracker_with(5, 6)
    tracker.done(P, 5)
    assert tracker.committable() == {P: 6}
    assert tracker.committable() == {P: 6}
    tracker.committed({P: 6, Q: 1})
    assert tracker.committable() == {}
    tracker.done(P, 6)
    assert tracker.committable() == {P: 7}


def test_a_commit_that_was_overtaken() -> None:
    """What finished while a commit was under way is offered afterwards."""
    tracker = tracker_with(5, 6)
    tracker.done(P, 5)
    sent = tracker.committable()
    tracker.done(P, 6)
    tracker.committed(sent)
    assert tracker.committable() == {P: 7}


def test_a_rewind_takes_the_watermark_back() -> None:
    """A partition that was truncated or created anew is committed from where it stands now, not from the old height."""
    tracker = OffsetTracker()
    tracker.assigned([P])
    old = tracker.fetched(P, 500)
    tracker.fetched(P, 501)
    tracker.done(P, 501)
    tracker.done(P, 500)
    tracker.committed(tracker.committable())
    tracker.fetched(P, 0)
    assert tracker.committable() == {P: 0}
    for offset in range(1, 501):
        tracker.fetched(P, offset)
    for offset in range(500):
        tracker.done(P, offset)
    tracker.done(P, 500, generation=old)
    assert tracker.committable() == {P: 500}


def test_a_rewind_forgets_nothing_below_it() -> None:
    """What is open below the new position is not fetched again: it still holds the watermark, and its `done` counts."""
    tracker = OffsetTracker()
    tracker.assigned([P])
    old = [tracker.fetched(P, offset) for offset in (5, 6, 7)]
    new = tracker.fetched(P, 6)
    tracker.done(P, 6, generation=new)
    tracker.done(P, 7, generation=old[2])
    assert tracker.committable() == {}
    tracker.done(P, 5, generation=old[0])
    assert tracker.committable() == {P: 7}


def test_backlog_counts_what_is_open() -> None:
    """Records in flight count, over all partitions (parallel-consumer #836)."""
    tracker = tracker_with(5, 6)
    tracker.assigned([Q])
    tracker.fetched(Q, 0)
    assert tracker.backlog == 3
    tracker.done(P, 6)
    tracker.done(P, 6)
    assert tracker.backlog == 2


def test_partitions_of_different_topics_do_not_mix() -> None:
    """The topic is part of a partition's identity (parallel-consumer #184)."""
    tracker = OffsetTracker()
    other = Partition("u", 0)
    tracker.assigned([P, other])
    tracker.fetched(P, 5)
    tracker.fetched(other, 5)
    tracker.done(other, 5)
    assert tracker.committable() == {other: 6}


def test_what_is_open_is_known_by_its_generation() -> None:
    """Until it is done, or its partition goes, or comes anew."""
    tracker = OffsetTracker()
    tracker.assigned([P])
    generation = tracker.fetched(P, 3)
    assert tracker.open(P, 3, generation=generation)
    assert not tracker.open(P, 4, generation=generation)
    assert not tracker.open(P, 3, generation=generation + 1)
    tracker.done(P, 3, generation=generation)
    assert not tracker.open(P, 3, generation=generation)
    again = tracker.fetched(P, 4)
    tracker.assigned([P])
    assert not tracker.open(P, 4, generation=again)
    tracker.revoked([P])
    assert not tracker.open(P, 4, generation=again)
