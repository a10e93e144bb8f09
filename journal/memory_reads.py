"""The store in memory: reading invocations and journals, and who works."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from perdure.schemas.entries import Positioned
from perdure.schemas.ids import InvocationId

from .memory_namespace import MemoryNamespace, settled
from .memory_slot import KEPT_WITHOUT_END_MS
from .store import Summary
from .transitions import Listed, Memory, Place, Shed, ShedPlace

WORKER_LIFE_MS = 6_000
"""A worker without a heartbeat for this long is not counted as alive."""


class MemoryReads(MemoryNamespace):
    """The reads of `Store`, and the register of workers."""

    def read_journal(
        self, invocation_id: InvocationId, *, after: int = 0, entries_max: int | None = None
    ) -> asyncio.Future[list[Positioned]]:
        """See `Store.read_journal`."""
        slot, _ = self._at(invocation_id)
        return settled(lambda: slot.tail(invocation_id, after)[:entries_max])

    def read_invocation(self, invocation_id: InvocationId) -> asyncio.Future[Summary | None]:
        """See `Store.read_invocation`."""
        return settled(lambda: self._summary(invocation_id))

    def list_invocations(self, status: str, *, invocations_max: int) -> asyncio.Future[list[Summary]]:
        """See `Store.list_invocations`."""
        scored = [(score, key) for slot in self._slots for key, score in slot.index[status].items()]
        newest = [InvocationId(key) for _, key in sorted(scored, reverse=True)[:invocations_max]]
        known = [(key, record) for key in newest if (record := self._record(key)) is not None]
        return settled(lambda: [Summary(key, record.fields()) for key, record in known])

    def list_page(self, status: str, *, rows_max: int, after: Place | None = None) -> asyncio.Future[list[Listed]]:
        """See `Store.list_page`."""
        places = sorted(
            (Place(score, key) for slot in self._slots for key, score in slot.index[status].items()), reverse=True
        )
        past = [place for place in places if after is None or place < after][:rows_max]
        return settled(lambda: [Listed(place, self._summary(InvocationId(place.invocation_id))) for place in past])

    def _summary(self, invocation_id: InvocationId) -> Summary | None:
        record = self._record(invocation_id)
        return None if record is None else Summary(invocation_id, record.fields())

    def describe(self, services: Mapping[str, str]) -> asyncio.Future[None]:
        """See `Store.describe`."""
        return settled(lambda: self._services.update(services))

    def memory(self) -> asyncio.Future[Sequence[Memory]]:
        """See `Store.memory`: there is no bound here."""
        return settled(lambda: [Memory(0, 0)] * self.slots)

    def shed(self, slot: int, *, journals_max: int, after: ShedPlace | None = None) -> asyncio.Future[Shed]:
        """See `Store.shed`."""
        held, _ = self._now(slot)
        score, seen = (0, 0) if after is None else after
        ends = sorted((until, key) for key, until in held.index["completed"].items() if until < KEPT_WITHOUT_END_MS)
        rows = [row for row in ends if row[0] >= score][seen : seen + journals_max]
        removed = 0
        for until, key in rows:
            score, seen = until, seen + 1 if until == score else 1
            record = held.records.get(key)
            # One that expired and was admitted anew may stand here until the next sweep.
            if (record is None or record.status == "completed") and key in held.journals:
                held.discard("journal", key)
                removed += 1
        return settled(lambda: Shed(removed, ShedPlace(score, seen) if len(rows) == journals_max else None))

    def descriptions(self) -> asyncio.Future[Mapping[str, str]]:
        """See `Store.descriptions`."""
        return settled(lambda: dict(self._services))

    def description(self, service: str) -> asyncio.Future[str | None]:
        """See `Store.description`."""
        return settled(lambda: self._services.get(service))

    def heartbeat(self, worker: str, facts: dict[str, str]) -> asyncio.Future[Sequence[str]]:
        """See `Store.heartbeat`."""
        now_ms = self._clock.now_ms()
        self._workers[worker] = now_ms
        return settled(lambda: sorted(name for name, at in self._workers.items() if at >= now_ms - WORKER_LIFE_MS))

    def retire(self, worker: str) -> asyncio.Future[None]:
        """See `Store.retire`."""
        self._workers.pop(worker, None)
        return settled(lambda: None)

    def expire(self, worker: str) -> asyncio.Future[int]:
        """See `Store.expire`."""
        held = 0
        for slot in self._slots:
            for invocation_id in slot.index["running"]:
                record = slot.records.get(invocation_id)
                if record is not None and record.worker == worker:
                    slot.due.put(f"lease:{invocation_id}", 0)
                    held += 1
        return settled(lambda: held)
