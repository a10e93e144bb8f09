"""Who looks at which slot: `perdure.worker.placement`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perdure.worker.placement import slots_of

# Each slot is decided by itself, so that many show no more than some.
slots = st.integers(1, 32)
names = st.lists(st.text("abcdef0123456789-", min_size=1, max_size=12), min_size=1, max_size=8, unique=True)


@given(names, slots)
def test_every_slot_has_one_worker_of_each_rank(workers: list[str], slots: int) -> None:
    """The shares of all workers are all slots, and no two share one; the same for those that stand in."""
    for rank in range(min(2, len(workers))):
        shares = [slots_of(worker, workers=workers, slots=slots, rank=rank) for worker in workers]
        assert sorted(slot for share in shares for slot in share) == list(range(slots))


@given(names, slots)
def test_a_worker_that_leaves_moves_its_own_share_only(workers: list[str], slots: int) -> None:
    """Nobody else loses a slot, and those who stood in for it have it now."""
    gone, *left = workers
    for worker in left:
        before = slots_of(worker, workers=workers, slots=slots)
        after = slots_of(worker, workers=left, slots=slots)
        assert before <= after
        assert after - before <= slots_of(gone, workers=workers, slots=slots)
        assert after - before <= slots_of(worker, workers=workers, slots=slots, rank=1)


def test_a_worker_that_nobody_has_heard_of_takes_part() -> None:
    """Its own first heartbeat may not be among what it read."""
    assert slots_of("new", workers=[], slots=16) == frozenset(range(16))
    assert slots_of("new", workers=["old"], slots=64) == slots_of("new", workers=["old", "new"], slots=64)


def test_shares_are_about_equal() -> None:
    """Of 64 slots, four workers have some each."""
    workers = [f"worker-{number}" for number in range(4)]
    assert all(6 <= len(slots_of(worker, workers=workers, slots=64)) <= 28 for worker in workers)
