"""PURE. The order in which records of an object came, as far as a failover of the store may break it.

Law: a record is admitted only where the one that came right before it, to the same object, is there. That one may have
been admitted and lost again; it is admitted anew once that is noticed, and until then nothing may overtake it. What is
durable cannot be lost, and is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from perdure.journal.store import Admission
from perdure.schemas.ids import InvocationId

from .broker import Partition, Record

LAST_MAX = 50_000
"""Objects whose last record is remembered; beyond it those are forgotten whose records are durable. Of the others there
are fewer: `committer.UNVOUCHED_MAX` records in all."""

RETENTION_MS_MIN = 10_000
"""What is kept for less may be gone before it is durable, which takes a second or two: that it is not there does not
mean that it was lost."""


class Fetched(NamedTuple):
    """A record, with the generation of its partition's assignment."""

    record: Record
    generation: int


class _Before(NamedTuple):
    """Without what the record holds, which may be much: this is kept for longer than the record is."""

    invocation_id: InvocationId
    fetched: Fetched

    @classmethod
    def of(cls, invocation_id: InvocationId, fetched: Fetched) -> _Before:
        """What is kept of a record."""
        bare = fetched.record._replace(key=None, value=None, headers=())
        return cls(invocation_id, fetched._replace(record=bare))


class Arrivals:
    """What came last to each object, and what came before each record that is not admitted yet.

    Args:
        open_: Whether a record is this worker's and its offset has not moved: it may be lost, and admitted again.
    """

    def __init__(self, open_: Callable[[Record, int], bool]) -> None:
        self._open = open_
        self._last: dict[str, _Before] = {}
        self._before: dict[Partition, dict[int, _Before | None]] = {}

    def placed(self, fetched: Fetched, admission: Admission) -> Admission:
        """The admission, behind the one that it must not overtake. To be called in the order of the records.

        A record that is tried again comes behind the same one as before, whatever has come since.
        """
        if admission.mode != "exclusive":
            return admission
        partition, offset = fetched.record.partition, fetched.record.offset
        rows = self._before.setdefault(partition, {})
        if offset not in rows:
            rows[offset] = self._comes_behind(fetched, admission)
        before = rows[offset]
        if before is None or not self._open(*before.fetched):
            return admission
        return admission._replace(behind=before.invocation_id)

    def _comes_behind(self, fetched: Fetched, admission: Admission) -> _Before | None:
        before = self._last.pop(admission.target, None)
        if admission.retention_ms >= RETENTION_MS_MIN:
            self._last[admission.target] = _Before.of(admission.invocation_id, fetched)
            if len(self._last) > LAST_MAX:
                self._last = {name: last for name, last in self._last.items() if self._open(*last.fetched)}
        return before

    def answered(self, fetched: Fetched) -> None:
        """It is not tried again."""
        rows = self._before.get(fetched.record.partition)
        if rows is not None:
            rows.pop(fetched.record.offset, None)

    def left_behind(self, ids: Collection[InvocationId]) -> None:
        """These are admitted by a later worker: those behind them are not to wait for it."""
        self._last = {name: last for name, last in self._last.items() if last.invocation_id not in ids}
        for rows in self._before.values():
            for offset, before in rows.items():
                if before is not None and before.invocation_id in ids:
                    rows[offset] = None

    def forget(self, partition: Partition) -> None:
        """Nothing of it waits here any more."""
        self._before.pop(partition, None)
