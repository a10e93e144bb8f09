"""The store on Redis: reading invocations and journals, and who works."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence

import orjson

from perdure.schemas.entries import Positioned
from perdure.schemas.ids import InvocationId

from .link import Argument
from .redis_scripts import WORKER_LIFE_MS, RedisScripts, all_of
from .replies import SHOWN, as_memory, as_shed, as_summary, positioned
from .store import Summary
from .transitions import Listed, Memory, Place, Shed, ShedPlace
from .wire import same


class RedisReads(RedisScripts):
    """The reads of `Store`, and the register of workers."""

    async def read_journal(
        self, invocation_id: InvocationId, *, after: int = 0, entries_max: int | None = None
    ) -> list[Positioned]:
        """See `Store.read_journal`."""
        keys = self._keys.of(invocation_id)
        count: tuple[Argument, ...] = () if entries_max is None else (b"COUNT", entries_max)
        return await self._wires[keys.slot].call((b"XRANGE", keys.journal, after + 1, b"+", *count), positioned)

    async def read_invocation(self, invocation_id: InvocationId) -> Summary | None:
        """See `Store.read_invocation`."""
        return await self._summary(invocation_id)

    async def list_invocations(self, status: str, *, invocations_max: int) -> list[Summary]:
        """See `Store.list_invocations`."""
        indexes = [
            self._wires[slot].call(
                (b"ZREVRANGE", self._keys.status(slot, status), 0, invocations_max - 1, b"WITHSCORES"), same
            )
            for slot in range(self.slots)
        ]
        scored = [(float(row[i + 1]), row[i].decode()) for row in await all_of(indexes) for i in range(0, len(row), 2)]
        newest = [InvocationId(text) for _, text in sorted(scored, reverse=True)[:invocations_max]]
        return [found for found in await all_of([self._summary(item) for item in newest]) if found is not None]

    async def list_page(self, status: str, *, rows_max: int, after: Place | None = None) -> list[Listed]:
        """See `Store.list_page`."""
        indexes = [self._index(slot, status, rows_max, after) for slot in range(self.slots)]
        places = sorted((place for index in await asyncio.gather(*indexes) for place in index), reverse=True)
        places = places[:rows_max]
        summaries = await all_of([self._summary(InvocationId(place.invocation_id)) for place in places])
        return [Listed(place, summary) for place, summary in zip(places, summaries, strict=True)]

    async def _index(self, slot: int, status: str, rows_max: int, after: Place | None) -> list[Place]:
        """The first rows of one slot past a place."""
        found: list[Place] = []
        key = self._keys.status(slot, status)
        start = b"+inf" if after is None else after.score
        for offset in itertools.count(0, rows_max):
            call = (b"ZREVRANGEBYSCORE", key, start, b"-inf", b"WITHSCORES", b"LIMIT", offset, rows_max)
            row = await self._wires[slot].call(call, same)
            places = [Place(int(float(row[i + 1])), row[i].decode()) for i in range(0, len(row), 2)]
            found += [place for place in places if after is None or place < after]
            # Many may share a score: all of those that complete and still owe something do.
            if len(places) < rows_max or len(found) >= rows_max:
                break
        return found

    async def describe(self, services: Mapping[str, str]) -> None:
        """See `Store.describe`."""
        flat: list[Argument] = [part for pair in services.items() for part in pair]
        if flat:
            await self._wiring.of(self._keys.services).call((b"HSET", self._keys.services, *flat), same)

    async def memory(self) -> Sequence[Memory]:
        """See `Store.memory`."""
        wires = list(self._wires)
        # One question to each server, which has several slots.
        asked = {wire: wire.call((b"INFO", b"memory"), as_memory) for wire in dict.fromkeys(wires)}
        told = dict(zip(asked, await all_of(list(asked.values())), strict=True))
        return [told[wire] for wire in wires]

    def shed(self, slot: int, *, journals_max: int, after: ShedPlace | None = None) -> asyncio.Future[Shed]:
        """See `Store.shed`."""
        begin = ShedPlace(0, 0) if after is None else after
        keys = (b"2", self._keys.status(slot, "completed"), self._keys.status(slot, ""))
        call = (b"EVALSHA", self._shas["shed"], *keys, self._keys.prefix(slot), *begin, journals_max)
        return self._wires[slot].call(call, as_shed)

    async def descriptions(self) -> Mapping[str, str]:
        """See `Store.descriptions`."""
        flat = await self._wiring.of(self._keys.services).call((b"HGETALL", self._keys.services), same)
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {name.decode("utf-8", "replace"): text.decode("utf-8", "replace") for name, text in pairs}

    async def description(self, service: str) -> str | None:
        """See `Store.description`."""
        raw = await self._wiring.of(self._keys.services).call((b"HGET", self._keys.services, service), same)
        return None if raw is None else raw.decode()

    def _summary(self, invocation_id: InvocationId) -> asyncio.Future[Summary | None]:
        keys = self._keys.of(invocation_id)
        return self._wires[keys.slot].call(
            (b"HMGET", keys.invocation, *SHOWN), lambda reply: as_summary(invocation_id, reply)
        )

    async def remember_start(self, group: str, topic: str, offsets: Mapping[int, int]) -> Mapping[int, int]:
        """Keep where a consumer group begins in a topic, by partition, unless that is known; returns what is kept.

        Raises:
            StoreError: Redis refuses it.
        """
        field, text = f"{group}/{topic}", orjson.dumps({str(number): offset for number, offset in offsets.items()})
        wire = self._wiring.of(self._keys.starts)
        kept = wire.call((b"HSETNX", self._keys.starts, field, text), same)
        found = wire.call((b"HGET", self._keys.starts, field), same)
        await kept
        return {int(number): offset for number, offset in orjson.loads(await found).items()}

    async def keep_offsets(self, group: str, offsets: Mapping[str, int]) -> None:
        """Remember how far a consumer group has read, by topic id and partition, in place of what was remembered.

        Raises:
            StoreError: Redis refuses it.
        """
        flat: list[Argument] = [part for place, offset in offsets.items() for part in (f"{group}/{place}", offset)]
        await self._wiring.of(self._keys.offsets).call((b"HSET", self._keys.offsets, *flat), same)

    async def kept_offsets(self, group: str, places: Sequence[str]) -> Sequence[int | None]:
        """Return how far a consumer group has read, as `keep_offsets` was told; `None` where it was not.

        Raises:
            StoreError: Redis does not answer.
        """
        fields = (f"{group}/{place}" for place in places)
        found = await self._wiring.of(self._keys.offsets).call((b"HMGET", self._keys.offsets, *fields), same)
        return [None if offset is None else int(offset) for offset in found]

    async def heartbeat(self, worker: str, facts: dict[str, str]) -> Sequence[str]:
        """See `Store.heartbeat`."""
        workers, mine = self._keys.workers, self._keys.worker(worker)
        seconds, micros = await self._wiring.of(workers).call((b"TIME",), same)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        of_all, of_mine = self._wiring.of(workers), self._wiring.of(mine)
        flat: list[Argument] = [part for pair in facts.items() for part in pair]
        replies = [
            of_all.call((b"ZADD", workers, now_ms, worker), same),
            of_mine.call((b"HSET", mine, b"seen_at", now_ms, *flat), same),
            of_mine.call((b"PEXPIRE", mine, WORKER_LIFE_MS * 4), same),
            of_all.call((b"ZREMRANGEBYSCORE", workers, b"-inf", now_ms - WORKER_LIFE_MS * 4), same),
            of_all.call((b"ZRANGEBYSCORE", workers, now_ms - WORKER_LIFE_MS, b"+inf"), same),
        ]
        return sorted(raw.decode() for raw in (await all_of(replies))[-1])

    async def retire(self, worker: str) -> None:
        """See `Store.retire`."""
        workers, mine = self._keys.workers, self._keys.worker(worker)
        left = self._wiring.of(workers).call((b"ZREM", workers, worker), same)
        forgotten = self._wiring.of(mine).call((b"DEL", mine), same)
        await all_of([left, forgotten])

    async def expire(self, worker: str) -> int:
        """See `Store.expire`."""
        indexes = [
            self._wires[slot].call((b"ZRANGE", self._keys.status(slot, "running"), 0, -1), same)
            for slot in range(self.slots)
        ]
        ids = [raw.decode() for running in await all_of(indexes) for raw in running]
        replies = []
        for invocation_id in ids:
            keys = self._keys.of(invocation_id)
            head = (b"EVALSHA", self._shas["expire"], b"3", keys.invocation, keys.due, keys.status_prefix)
            replies.append(self._wires[keys.slot].call((*head, invocation_id, worker), same))
        return sum(await all_of(replies))
