"""What must not be overtaken: `perdure.worker.arrivals`."""

from __future__ import annotations

from perdure.journal.store import Admission
from perdure.worker.arrivals import LAST_MAX, RETENTION_MS_MIN, Arrivals, Fetched
from perdure.worker.broker import Partition, Record
from tests.journal.store_contract import admission

P0, P1 = Partition("orders", 0), Partition("orders", 1)


class Scene:
    """Records that come to objects, some of which are durable by now."""

    def __init__(self) -> None:
        self.durable: set[tuple[Partition, int]] = set()
        self.arrivals = Arrivals(lambda record, generation: (record.partition, record.offset) not in self.durable)

    def come(self, offset: int, key: str = "hot", partition: Partition = P0, **changes: object) -> Admission:
        """One comes, for the first time or again."""
        asked = admission(key=key, mode="exclusive")._replace(**changes)  # type: ignore[arg-type] # as the test says
        return self.arrivals.placed(fetched(offset, partition), asked)


def fetched(offset: int, partition: Partition = P0) -> Fetched:
    """That record."""
    return Fetched(Record(partition, offset, 0, b"", b"", ()), 1)


def test_each_comes_behind_the_one_before_of_its_object() -> None:
    """Also where that came from another partition; objects are apart, and services without keys have no order."""
    scene = Scene()
    first, cold = scene.come(0), scene.come(1, "cold")
    assert (first.behind, cold.behind) == ("", "")
    second = scene.come(2)
    assert second.behind == first.invocation_id
    assert scene.come(0, partition=P1).behind == second.invocation_id
    assert scene.come(3, "cold").behind == cold.invocation_id
    assert [scene.come(offset, mode="").behind for offset in (4, 5)] == ["", ""]


def test_what_is_tried_again_comes_behind_the_same_one() -> None:
    """Whatever came after it: else it would wait for what waits for it."""
    scene = Scene()
    first = scene.come(0)
    second, third = scene.come(1), scene.come(2)
    assert scene.come(1, invocation_id=second.invocation_id).behind == first.invocation_id
    assert scene.come(2, invocation_id=third.invocation_id).behind == second.invocation_id
    assert scene.come(3).behind == third.invocation_id
    assert scene.come(0, invocation_id=first.invocation_id).behind == ""
    scene.durable.add((P0, 0))
    assert scene.come(1, invocation_id=second.invocation_id).behind == ""


def test_nothing_is_remembered_of_what_is_answered() -> None:
    """An offset that comes once more, after a rebalance, is a new arrival."""
    scene = Scene()
    scene.come(0)
    second = scene.come(1)
    for offset in (0, 1):
        scene.arrivals.answered(fetched(offset))
    assert scene.come(0).behind == second.invocation_id
    scene.come(5, partition=P1)
    scene.arrivals.forget(P1)
    assert P1 not in scene.arrivals._before


def test_what_records_hold_is_not_kept() -> None:
    """It may be much, and is remembered of objects for as long as there are few of them."""
    scene = Scene()
    large = Record(P0, 0, 0, b"k", b"x" * 1_000_000, (("h", b"x" * 1_000),))
    scene.arrivals.placed(Fetched(large, 1), admission(key="hot", mode="exclusive"))
    scene.come(1)
    assert b"xxx" not in repr((scene.arrivals._last, scene.arrivals._before)).encode()


def test_what_is_kept_for_a_moment_only_is_not_waited_for() -> None:
    """It is gone before it is durable; that says nothing."""
    scene = Scene()
    scene.come(0, retention_ms=RETENTION_MS_MIN - 1)
    first = scene.come(1)
    assert first.behind == ""
    assert scene.come(2).behind == first.invocation_id


def test_objects_are_forgotten_once_their_last_record_is_durable() -> None:
    """There is a bound, and what may be lost still is known beyond it."""
    scene = Scene()
    scene.durable.update((P0, offset) for offset in range(LAST_MAX))
    for offset in range(LAST_MAX):
        scene.come(offset, f"key-{offset}")
        scene.arrivals.answered(fetched(offset))
    newest = scene.come(LAST_MAX, "newest")
    assert len(scene.arrivals._last) == 1
    assert scene.come(LAST_MAX + 1, "newest").behind == newest.invocation_id
