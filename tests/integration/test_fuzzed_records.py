"""Fuzzed records among good ones, through Kafka and Redis into a running worker: each is accounted for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from perdure.journal.store import Store
from perdure.schemas.errors import DecodeError
from perdure.worker.admissions import admission_of
from perdure.worker.application import Application, app
from perdure.worker.broker import Headers, Outgoing, Record
from perdure.worker.clock import SystemClock, system_random
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext
from perdure.worker.readings import EnvelopeReading
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS
from tests.integration.deployment import Deployment, envelope, record
from tests.waiting import wait_until

HOSTILE, GOOD = 240, 40


def twins() -> Application:
    """What the seeds of the fuzz target speak to."""
    service, things = Service("S"), VirtualObject("O")

    @service.handler()
    async def h(ctx: Context, argument: Any = None) -> Any:
        return await ctx.run("pass on", lambda: argument)

    @things.handler()
    async def keep(ctx: ObjectContext, argument: Any = None) -> Any:
        ctx.set("kept", argument)
        return argument

    return app([service, things])


def fuzzed(topics: tuple[str, str], mutator: Mutator) -> Outgoing:
    """One record as the fuzz target takes it apart."""
    data = mutator()
    value, _, rest = data[1:].partition(b"\xff\xff")
    key, _, header = rest.partition(b"\xff\xff")
    headers: Headers = ((header[:3].decode("utf-8", "replace"), header[3:]),) if header else ()
    return record(topics[data[:1] > b"\x7f"], value, key=key or None, headers=headers)


async def unaccounted(
    records: list[Record], letters: list[Record], store: Store, read: EnvelopeReading
) -> list[Record]:
    """Those that are neither an invocation nor a dead letter."""
    about = [dict(letter.headers) for letter in letters]
    dead = {(each["perdure-topic"], each["perdure-partition"], each["perdure-offset"]) for each in about}
    lost = []
    for each in records:
        try:
            admission = admission_of(twins(), read(each), token="t", worker="w")
        except DecodeError:
            (topic, number), offset = each.partition, each.offset
            if (topic.encode(), str(number).encode(), str(offset).encode()) not in dead:
                lost.append(each)
        else:
            if await store.read_invocation(admission.invocation_id) is None:
                lost.append(each)
    return lost


async def test_every_fuzzed_record_is_accounted_for(plain: Deployment) -> None:
    """It is an invocation or a dead letter, and all good ones between them come out."""
    application, seed = twins(), system_random().randrange(2**32)
    mutator = Mutator(TARGETS["record"].seeds, random.Random(f"{seed} record"))
    topics = plain.topic("S"), plain.topic("O")
    replies, dead = plain.topic("replies"), plain.topic("dead")
    services = {topics[0]: "S", topics[1]: "O"}
    read = EnvelopeReading(application, services, record_bytes_max=1_000_000, now_ms=SystemClock().now_ms)
    sent = [fuzzed(topics, mutator) for _ in range(HOSTILE)]
    wanted = {*range(0, HOSTILE, HOSTILE // GOOD), *range(HOSTILE, HOSTILE + 8)}
    for number in sorted(wanted, reverse=True):
        # Among the others, and in each partition behind everything.
        good = envelope("h", number, reply_to=replies)
        sent.insert(number, record(topics[0], good, key=f"key {number}".encode()))
    counts = Counter(each.topic for each in sent)
    async with plain.sender(application) as sender, plain.worker(application), plain.store() as store:
        for each in sent:
            await sender.send(each)
        found = await plain.read(replies, lambda records: wanted <= numbers(records))
        assert numbers(found) >= wanted, f"seed {seed}"
        records: list[Record] = []
        for topic in topics:
            records += await plain.read(topic, at_least(counts[topic]))
        bad = sum(1 for each in records if is_bad(each, read))
        letters = await plain.read(dead, at_least(bad))

        async def all_found() -> bool:
            return await unaccounted(records, letters, store, read) == []

        await wait_until(all_found, description=f"seed {seed}: all are accounted for")
    assert 20 < bad < HOSTILE


def at_least(count: int) -> Callable[[list[Record]], bool]:
    """Whether so many records were read."""
    return lambda records: len(records) >= count


def is_bad(each: Record, read: EnvelopeReading) -> bool:
    """Whether it is to be a dead letter."""
    try:
        admission_of(twins(), read(each), token="t", worker="w")
    except DecodeError:
        return True
    return False


def numbers(replies: list[Record]) -> set[Any]:
    """What came out of good records."""
    values = [orjson.loads(reply.value or b"{}").get("value") for reply in replies]
    return {value for value in values if isinstance(value, int)}
