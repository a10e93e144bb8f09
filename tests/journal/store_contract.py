"""What the tests of the store's contract need beside a `Store`: time that can be passed, messages, and a full dump.

Two benches, one for each implementation. Time passes on both without waiting: on Redis every deadline is moved towards
now, which is the same to the scripts. Delays in these tests are minutes, so that the machine's own pace never matters.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import redis.asyncio

from perdure.journal.keys import Keys
from perdure.journal.link import Endpoint
from perdure.journal.memory_slot import KEPT_WITHOUT_END_MS, Promises
from perdure.journal.memory_store import MemoryStore
from perdure.journal.redis_scripts import script_texts
from perdure.journal.redis_store import RedisStore
from perdure.journal.replies import body_of_outcome, payload_kept
from perdure.journal.store import Admission, Claim, Claimed, Concluded, Delivery, Due, Lease, Store
from perdure.journal.wire import Wire
from perdure.schemas.codec import encode
from perdure.schemas.commands import Call
from perdure.schemas.entries import Completion, Entry, Input, Output, Run, Sleep, Success
from perdure.schemas.ids import InvocationId, id_of_workflow, new_invocation_id
from perdure.worker.clock import system_random
from tests.waiting import PATIENCE_S

MINUTE_MS = 60_000
LEASE_MS = 10 * MINUTE_MS
SLOTS = 2

Dump = dict[str, object]


class Bench(Protocol):
    """A store of an empty namespace, and the test's means to look at it from outside."""

    store: Store
    keys: Keys

    async def now_ms(self) -> int:
        """The store's time."""

    async def pass_ms(self, ms: int) -> None:
        """Let that much of the store's time pass."""

    async def tick(self) -> None:
        """Return in a later millisecond of the store's time."""

    async def messages(self) -> list[tuple[str, bytes]]:
        """What was published since the last call: channel and message."""

    async def dump(self) -> Dump:
        """Everything that the namespace holds, in one form for both stores; `kept` are keys that will expire."""

    async def plant(self, slot: int, member: str) -> None:
        """Put a member into the slot's `due` that is due now."""

    async def forget_scripts(self) -> None:
        """`SCRIPT FLUSH`, where there are scripts."""


class FakeClock:
    """Stands still until it is told."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        """The time that it was set to."""
        return self.at_ms


class MemoryBench:
    """`MemoryStore` on a clock that stands still."""

    def __init__(self, namespace: str, kind: type[MemoryStore] = MemoryStore, *, one_node: bool = True) -> None:
        self.keys = Keys(namespace, slots=SLOTS)
        self._clock = FakeClock()
        self._heard: list[tuple[str, bytes]] = []
        self._memory = kind(self._clock, SLOTS, namespace=namespace, publish=self._hear, one_node=one_node)
        self.store: Store = self._memory

    def _hear(self, channel: str, message: bytes) -> None:
        self._heard.append((channel, message))

    async def now_ms(self) -> int:
        """See `Bench`."""
        return self._clock.at_ms

    async def pass_ms(self, ms: int) -> None:
        """See `Bench`."""
        self._clock.at_ms += ms

    async def tick(self) -> None:
        """See `Bench`."""
        self._clock.at_ms += 1

    async def messages(self) -> list[tuple[str, bytes]]:
        """See `Bench`."""
        heard, self._heard = self._heard, []
        return heard

    async def dump(self) -> Dump:
        """See `Bench`."""
        dump: Dump = {}
        kept: set[str] = set()
        for number, slot in enumerate(self._memory._slots):
            slot.forget(self._clock.at_ms)
            for key, record in slot.records.items():
                dump[f"{{{number}}}:invocation:{key}"] = record.hash()
            for key, entries in slot.journals.items():
                rows = [(position, epoch, *encode(entry)) for position, epoch, entry in entries]
                dump[f"{{{number}}}:journal:{key}"] = rows
            if slot.due.scores:
                dump[f"{{{number}}}:due"] = dict(slot.due.scores)
            for status, scores in slot.index.items():
                if scores:
                    dump[f"{{{number}}}:status:{status}"] = dict(scores)
            for target, holder in slot.holders.items():
                dump[f"{{{number}}}:object:{target}"] = {"holder": holder}
            for target, queue in slot.queues.items():
                dump[f"{{{number}}}:queue:{target}"] = list(queue)
            for target, state in slot.states.items():
                kept_values = {name: payload_kept(value).decode() for name, value in state.items()}
                dump[f"{{{number}}}:state:{target}"] = kept_values
            for target, promises in slot.promises.items():
                dump[f"{{{number}}}:promises:{target}"] = _promises_kept(promises)
            kept |= {f"{{{number}}}:{key}" for key in slot.until.scores}
        dump["kept"] = kept
        return dump

    async def plant(self, slot: int, member: str) -> None:
        """See `Bench`."""
        self._memory._slots[slot].due.put(member, self._clock.at_ms)

    async def forget_scripts(self) -> None:
        """See `Bench`."""


def _promises_kept(promises: Promises) -> dict[str, str]:
    kept = {f"={name}": f"{by}\n{body_of_outcome(it).decode()}" for name, (it, by) in promises.kept.items()}
    waits = {f"?{name}": " ".join(f"{who}:{index}" for who, index in waits) for name, waits in promises.waits.items()}
    return kept | waits


# Moves every time that the namespace ARGV[1] holds into the past by ARGV[2] ms, save what has no end.
_PASS = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local left = redis.call('PTTL', key)
  if left > 0 then redis.call('PEXPIRE', key, left - ARGV[2]) end
  for _, name in ipairs({'admitted_at', 'completed_at'}) do
    if string.find(key, ':invocation:', 1, true) and redis.call('HEXISTS', key, name) == 1 then
      redis.call('HINCRBY', key, name, -ARGV[2])
    end
  end
  if string.find(key, ':due$') or string.find(key, ':status:', 1, true) then
    local row = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #row, 2 do
      if tonumber(row[i + 1]) ~= tonumber(ARGV[3]) then redis.call('ZINCRBY', key, -ARGV[2], row[i]) end
    end
  end
end
"""

_DUMP = """
local reads = {hash = {'HGETALL'}, stream = {'XRANGE', '-', '+'}, zset = {'ZRANGE', 0, -1, 'WITHSCORES'},
  list = {'LRANGE', 0, -1}}
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind = redis.call('TYPE', key).ok
  local name, first, last, scores = unpack(reads[kind])
  local held = scores and redis.call(name, key, first, last, scores)
    or first and redis.call(name, key, first, last) or redis.call(name, key)
  all[#all + 1] = {key, kind, redis.call('PTTL', key) > 0, held}
end
return all
"""

_DELETE = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"


class RedisBench:
    """`RedisStore` on the lane's Redis."""

    def __init__(self, namespace: str, wire: Wire, client: Any) -> None:
        self.keys = Keys(namespace, slots=SLOTS)
        self.store: Store = RedisStore(wire, self.keys)
        # Any: the client's types say bytes or text wherever it answers bytes.
        self._client = client
        self._channels = client.pubsub()
        self._pattern = f"{namespace}:*"

    async def listen(self) -> None:
        """Hear of everything that is published from now on."""
        await self._channels.psubscribe(f"{self.keys.namespace}:*")
        await self._channels.get_message(timeout=PATIENCE_S)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._channels.aclose()

    async def now_ms(self) -> int:
        """See `Bench`."""
        seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def pass_ms(self, ms: int) -> None:
        """See `Bench`."""
        await self._client.eval(_PASS, 0, self._pattern, ms, KEPT_WITHOUT_END_MS)

    async def tick(self) -> None:
        """See `Bench`."""
        start_ms = await self.now_ms()
        while await self.now_ms() == start_ms:
            pass

    async def messages(self) -> list[tuple[str, bytes]]:
        """See `Bench`."""
        end = f"{self.keys.namespace}:end"
        await self._client.publish(end, b"")
        heard: list[tuple[str, bytes]] = []
        while True:
            message = await self._channels.get_message(ignore_subscribe_messages=True, timeout=PATIENCE_S)
            assert message is not None, "a message that was published did not arrive"
            if message["channel"] == end.encode():
                return heard
            heard.append((message["channel"].decode(), message["data"]))

    async def dump(self) -> Dump:
        """See `Bench`."""
        dump: Dump = {}
        kept: set[str] = set()
        for key, kind, expires, held in await self._client.eval(_DUMP, 0, self._pattern):
            name = key.decode()[len(self.keys.namespace) + 1 :]
            if kind == b"stream":
                dump[name] = [(*_place(where), what, body) for where, (what, body) in held]
            elif kind == b"list":
                dump[name] = [member.decode() for member in held]
            else:
                pairs = zip(held[::2], held[1::2], strict=True)
                dump[name] = {
                    member.decode(): value.decode() if kind == b"hash" else int(float(value)) for member, value in pairs
                }
            if expires:
                kept.add(name)
        dump["kept"] = kept
        return dump

    async def delete_all(self) -> None:
        """Leave nothing of the namespace behind."""
        await self._client.eval(_DELETE, 0, self._pattern)

    async def plant(self, slot: int, member: str) -> None:
        """See `Bench`."""
        await self._client.zadd(self.keys.due(slot), {member: await self.now_ms()})

    async def forget_scripts(self) -> None:
        """See `Bench`."""
        await self._client.script_flush()


def _place(entry_id: bytes) -> tuple[int, int]:
    position, _, epoch = entry_id.partition(b"-")
    return int(position), int(epoch)


class OneOfSeveral(Wire):
    """A wire that says that each slot may be on a node of its own, and so has the store use it as a cluster's."""

    one_node = False


@asynccontextmanager
async def redis_bench(namespace: str, url: str, *, one_node: bool = True) -> AsyncIterator[RedisBench]:
    """A bench on the Redis at `url`; what the namespace holds is deleted at the end."""
    where = urlsplit(url)
    assert where.hostname is not None
    assert where.port is not None
    endpoint = Endpoint(where.hostname, where.port)

    async def locate() -> Endpoint:
        return endpoint

    async with (
        redis.asyncio.Redis.from_url(url) as client,
        (Wire if one_node else OneOfSeveral)(locate, script_texts(), name=f"test-{namespace}") as wire,
    ):
        bench = RedisBench(namespace, wire, client)
        await bench.listen()
        yield bench
        await bench.aclose()
        await bench.delete_all()


def new_id(key: str | None = None) -> InvocationId:
    """A fresh invocation id."""
    return new_invocation_id("Greeter", key, system_random())


def admission(invocation_id: InvocationId | None = None, **changes: Any) -> Admission:
    """An admission of `Greeter/greet` by worker w1 with token t1, changed as told."""
    key = changes.get("key")
    fresh = new_id(key if isinstance(key, str) else None)
    if changes.get("mode") == "main" and isinstance(key, str):
        fresh = id_of_workflow("Greeter", key)
    plain = Admission(
        invocation_id or fresh, "Greeter", "greet", None, Input(1, "w1", (("h", b"\xff"),), b'"Ada"'), "t1", "w1"
    )
    return plain._replace(**changes)


async def admitted(bench: Bench, **changes: Any) -> Lease:
    """Admit an invocation and return its first lease."""
    answer = await bench.store.admit(admission(**changes), lease_ms=LEASE_MS)
    assert isinstance(answer, Claimed)
    return answer.lease


def calling(index: int) -> Call:
    """A call of something else."""
    return Call(index, 5, "Greeter", "greet", None, new_id(), "", (), b"null")


async def answered(bench: Bench, invocation_id: InvocationId, *answers: Completion, position: int = 0) -> Delivery:
    """Bring the results of commands; what became of the last one.

    Args:
        bench: A store.
        invocation_id: Whose journal.
        answers: The results.
        position: Where their commands stand; without it they come as from somebody who does not say.
    """
    if not position:
        each = [await bench.store.deliver(invocation_id, one, once=f"o:{one.command_index}") for one in answers]
        return each[-1]
    told = await bench.store.answer(invocation_id, [(position, answer) for answer in answers])
    return Delivery(told.results[-1], told.due) if told.results[-1] == "delivered" else Delivery(told.results[-1])


async def claimed(bench: Bench, lease: Lease, *, token: str = "t2", worker: str = "w2") -> Claim:
    """Claim a ready invocation after the attempt of `lease`."""
    claim = await bench.store.claim(
        lease.invocation_id, lease.epoch, token=token, worker=worker, lease_ms=LEASE_MS, at_ms=2
    )
    assert claim is not None
    return claim


async def sweep_all(bench: Bench) -> list[Due]:
    """Sweep every slot once; what was due."""
    return [due for slot in range(SLOTS) for due in (await bench.store.sweep(slot)).due]


async def fields_of(bench: Bench, invocation_id: InvocationId) -> dict[str, str]:
    """The invocation's fields."""
    summary = await bench.store.read_invocation(invocation_id)
    assert summary is not None
    return summary.fields


async def completed(bench: Bench, lease: Lease, *, after: int = 1, seq: int = 1) -> Concluded:
    """Complete an invocation; its outcome and journal are kept for an hour."""
    return await bench.store.complete(
        lease, [output()], after=after, seq=seq, retention_ms=60 * MINUTE_MS, journal_retention_ms=60 * MINUTE_MS
    )


async def suspended(bench: Bench, **changes: Any) -> Lease:
    """Admit an invocation and have its first attempt leave until something comes."""
    lease = await admitted(bench, **changes)
    assert await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=None) is None
    return lease


async def entries_of(bench: Bench, invocation_id: InvocationId, after: int = 1) -> list[Entry]:
    """What the journal holds past a position."""
    return [entry for _, _, entry in await bench.store.read_journal(invocation_id, after=after)]


def run(index: int, value: object = None, name: str = "step") -> Run:
    """A step that succeeded."""
    return Run(index, name, 5, 1, Success(json.dumps(value).encode()))


def sleep(index: int, duration_ms: int) -> Sleep:
    """A timer without a name."""
    return Sleep(index, "", 5, duration_ms)


def output(value: object = "done") -> Output:
    """An outcome."""
    return Output(9, Success(json.dumps(value).encode()))
