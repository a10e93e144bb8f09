"""PURE. Which offset may be committed while records of one partition finish in any order.

Law: the committable offset of a partition is its *watermark*: everything fetched below it is done. It is the lowest
offset fetched and not yet done or, when there is none, the one after the last fetched. Offsets that were never fetched
(compacted away, transaction markers, aborted records) are not waited for.

```
fetched   7  8  11  12  13         8..11 was compacted away: nobody waits for 9 and 10
done      7  8      12             watermark 11: the lowest that is not done
done      7  8  11  12             watermark 13
```

Each assignment of a partition is a new *generation* with an empty table: what an earlier one left behind neither
blocks nor advances it. Kafka delivers again from the committed offset, so nothing is lost by forgetting.
Source: the bugs that parallel-consumer (#62, #329, #409, #547) and Faust (#318, #458, #625, #681) met with gap lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .broker import Partition


@dataclass(slots=True)
class _Progress:
    """One assigned partition. `order` holds what was fetched, ascending; `open`, by generation, what is not done."""

    generation: int
    order: deque[int] = field(default_factory=deque)
    open: dict[int, int] = field(default_factory=dict)
    next_offset: int | None = None
    committed: int | None = None

    def watermark(self) -> int | None:
        """The offset below which all is done; `None` before the first fetch. Amortised constant time."""
        while self.order and self.order[0] not in self.open:
            self.order.popleft()
        return self.order[0] if self.order else self.next_offset

    def rewind(self, offset: int, generation: int) -> None:
        """Forget what will be fetched again; what lies below and is not done still holds the watermark."""
        self.generation = generation
        while self.order and self.order[-1] >= offset:
            self.open.pop(self.order.pop(), None)


class OffsetTracker:
    """What was fetched, what of it is done, and what may be committed. Not thread-safe; does no I/O.

    Call `fetched` for every record that a poll returned before the next await: a rebalance may come at any await,
    and a record that is registered after it would be counted in the wrong generation.
    """

    def __init__(self) -> None:
        self._partitions: dict[Partition, _Progress] = {}
        self._generation = 0

    @property
    def backlog(self) -> int:
        """How many fetched records of assigned partitions are not done."""
        return sum(len(progress.open) for progress in self._partitions.values())

    def assigned(self, partitions: Iterable[Partition]) -> int:
        """Start a new generation for each of `partitions`, also for those that were held before.

        Returns:
            The generation, for `done`. It grows with each call.
        """
        self._generation += 1
        for partition in partitions:
            self._partitions[partition] = _Progress(self._generation)
        return self._generation

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Forget `partitions`; those that are not held are ignored."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def fetched(self, partition: Partition, offset: int) -> int:
        """Register a record that must be done before anything above it may be committed.

        An offset at or below the last fetched one means that the partition was rewound, by us or because it was
        truncated or created anew: a new generation begins there for it and all above, and the watermark goes back with
        it. That may commit a lower offset than before, which repeats records and never loses one.

        Returns:
            The generation that the record belongs to, for `done`; 0 if the partition is not held, and then nothing
            changes.
        """
        progress = self._partitions.get(partition)
        if progress is None:
            return 0
        if progress.next_offset is None:
            progress.committed = offset
        elif offset < progress.next_offset:
            self._generation += 1
            progress.rewind(offset, self._generation)
        progress.order.append(offset)
        progress.open[offset] = progress.generation
        progress.next_offset = offset + 1
        return progress.generation

    def open(self, partition: Partition, offset: int, *, generation: int) -> bool:
        """Whether that record, of that generation, is still to be done here."""
        progress = self._partitions.get(partition)
        return progress is not None and progress.open.get(offset) == generation

    def done(self, partition: Partition, offset: int, *, generation: int | None = None) -> None:
        """Mark a record as done. Doing so twice, or for what is not held, changes nothing.

        Args:
            partition: Where it was fetched from.
            offset: Its offset.
            generation: What `fetched` returned for it; a record of an older generation changes nothing. `None` means
                whichever is current: right only if being done outlives an assignment (an admission does).
        """
        progress = self._partitions.get(partition)
        if progress is not None and generation in (None, progress.open.get(offset)):
            progress.open.pop(offset, None)

    def committable(self) -> dict[Partition, int]:
        """The watermark of each partition where it differs from what was last committed; maybe empty."""
        watermarks = ((partition, p, p.watermark()) for partition, p in self._partitions.items())
        return {partition: mark for partition, p, mark in watermarks if mark is not None and mark != p.committed}

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Remember that these offsets were committed, so that `committable` leaves them out until they move."""
        for partition, offset in offsets.items():
            progress = self._partitions.get(partition)
            if progress is not None:
                progress.committed = offset
