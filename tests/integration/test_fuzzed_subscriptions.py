"""Fuzzed records among good ones on subscribed topics, through Kafka and Redis into a running worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Final

import pytest

from perdure.schemas.errors import DecodeError, TerminalError
from perdure.worker.admissions import admission_of
from perdure.worker.application import Application
from perdure.worker.broker import Headers, Outgoing, Partition, Record
from perdure.worker.clock import system_random
from perdure.worker.context import Context
from perdure.worker.handler import decode_argument
from perdure.worker.kafka import Consumer
from perdure.worker.kafka_offsets import committed, ends
from perdure.worker.letters import opened
from perdure.worker.readings import SubscriptionReading
from perdure.worker.record_source import RecordSource
from perdure.worker.subscriptions import Subscription
from tests.fuzz.mutation import Mutator
from tests.fuzz.subscribed import SEEDS, SUBSCRIPTIONS, application, taken_apart
from tests.integration.deployment import Deployment
from tests.integration.shop import Feeder, topic_of
from tests.integration.test_fuzzed_records import at_least
from tests.waiting import wait_until
from tests.worker.kafka_clients import quick_config

PARTITIONS: Final = 2
HOSTILE: Final = 300
GOOD: Final = 12
"""Of each topic, some of them behind everything else."""

RECORD_BYTES_MAX: Final = 12_000

GOOD_KEYS: Final = [b"ada", b"{17}", b"}{", "𝄞\r\n\ufeff".encode(), b"\x00\x1b[2J", b"*", b"a:b/c", b"x" * 512]
ODD_KEYS: Final = [*GOOD_KEYS, None, b"", b"\xff\xfe", b"\xed\xa0\x80", b"k" * 5_000]
"""A service takes any key: it only puts records into order."""

NO_OBJECT_KEYS: Final = [None, b"", b"\xff\xfe", b"\xed\xa0\x80", b"k" * 513, b"x" * 512 + b"\xc3"]

NO_ORDERS: Final = [
    None,
    b"",
    b"{",
    b"NaN",
    b'{"number": NaN}',
    b'{"number": 1e999}',
    b'{"number": "\\ud800"}',
    b'{"number": %b}' % (b"9" * 5_000),
    b'{"number": 1, "more": %b1%b}' % (b"[" * 3_000, b"]" * 3_000),
    b"[" * 7_000,
    b"\xef\xbb\xbf{}",
    b'{"number": "\x00"}',
]
HUGE_ORDERS: Final = [
    b'{"number": %b}' % (b"9" * 4_000),
    b'{"number": 1, "more": %b1%b}' % (b"[" * 150, b"]" * 150),
    b'{"number": 1, "number": 2, "": {"\\u0000": "\\ud834\\udd1e"}}',
]

MARK: Final = "good"
"""Name of a header of those that have to come through."""


def good(topic: str, chance: random.Random) -> Outgoing:
    """A record that has to be processed, by any key that its topic allows."""
    key = chance.choice(GOOD_KEYS if topic == "object" else ODD_KEYS)
    if topic == "flow":
        key = chance.randbytes(8).hex().encode()
    value = chance.choice([b'{"number": 7}', *HUGE_ORDERS]) if topic == "typed" else b"7"
    return Outgoing(topic, key, value, ((MARK, b"1"),))


def bad() -> list[Outgoing]:
    """Records that have to be dead letters, each for another reason."""
    many: Headers = (("h", b""),) * 101
    return [
        *(Outgoing(topic, key, b"7") for topic in ("object", "flow") for key in NO_OBJECT_KEYS),
        *(Outgoing("typed", b"k", value) for value in NO_ORDERS),
        *(Outgoing("own", b"k", value) for value in (b"!", b"?", b"#", b"$")),
        *(Outgoing(topic, b"k", b"7", many) for topic in SUBSCRIPTIONS),
        *(Outgoing(topic, b"k", b"7" * RECORD_BYTES_MAX) for topic in SUBSCRIPTIONS),
        *(Outgoing(topic, b"k", b"7", (("h", b"\xff" * 100_000),)) for topic in SUBSCRIPTIONS),
    ]


def hostile(mutator: Mutator) -> Outgoing:
    """A fuzzed record that nobody retries: one that is, holds up those behind it, as it should."""
    record = taken_apart(mutator().replace(b"%", b""))
    # Names of headers that are not UTF-8 are tried elsewhere: aiokafka's own producer refuses them.
    headers = tuple([(name.encode("utf-8", "replace").decode(), value) for name, value in record.headers])
    return record._replace(headers=headers)


def mixed(seed: int) -> list[Outgoing]:
    """All of it, in an order by chance, with something good at the end of each partition's records."""
    chance = random.Random(seed)
    mutator = Mutator(SEEDS, random.Random(f"{seed} subscribed"))
    records = [*bad(), *(hostile(mutator) for _ in range(HOSTILE))]
    records += [good(topic, chance) for topic in SUBSCRIPTIONS for _ in range(GOOD)]
    chance.shuffle(records)
    last = [good(topic, chance) for topic in SUBSCRIPTIONS for _ in range(GOOD)]
    return [*records, *last]


class Scene:
    """The subscriptions of one deployment, what their handlers did, and what they have to do."""

    def __init__(self, plain: Deployment, chance: random.Random) -> None:
        self.chance = chance
        self.topics = {f"{plain.settings.namespace}-{name}": name for name in SUBSCRIPTIONS}
        self.subscriptions = {
            topic: Subscription(topic=topic, on_terminal_failure="dead-letter", **SUBSCRIPTIONS[name])
            for topic, name in self.topics.items()
        }
        self.application: Application = application(done=self.done, subscriptions=self.subscriptions.values())
        self.read = SubscriptionReading(
            self.application, self.subscriptions.values(), group="g", record_bytes_max=RECORD_BYTES_MAX, now_ms=int
        )
        self.done_so_far: list[RecordSource] = []

    async def done(self, ctx: Context) -> None:
        """Do something about a record, once."""
        source = ctx.request().source
        assert source is not None

        async def do_it() -> None:
            for _ in range(self.chance.randrange(20)):
                await asyncio.sleep(0)
            self.done_so_far.append(source)

        await ctx.run("do it", do_it)

    def judged(self, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Those whose handlers are called, and those that become dead letters; known runs of workflows are neither."""
        called: list[Record] = []
        dead: list[Record] = []
        runs = set()
        for record in records:
            try:
                admission = admission_of(self.application, self.read(record), token="t", worker="w")
                if admission.invocation_id in runs:
                    continue
                runs.add(admission.invocation_id)
                handler = self.application.handler(admission.service, admission.handler)
                assert handler is not None
                decode_argument(handler, admission.input.value)
                called.append(record)
            except (DecodeError, TerminalError):
                dead.append(record)
        return called, dead


@contextlib.asynccontextmanager
async def feeders(plain: Deployment) -> AsyncIterator[Mapping[str, Feeder]]:
    """The topics, and a hand that produces to each."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(topic_of(plain, name, partitions=PARTITIONS))
            for name in SUBSCRIPTIONS
        }


async def behind(plain: Deployment, scene: Scene) -> dict[Partition, tuple[int, int]]:
    """Where each group is not at its partition's end: its commit, and the end."""
    found: dict[Partition, tuple[int, int]] = {}
    for topic, subscription in scene.subscriptions.items():
        group = subscription.group_in(plain.settings.namespace)
        partitions = [Partition(topic, number) for number in range(PARTITIONS)]
        consumer = Consumer(quick_config(plain.settings.bootstrap_servers, group), revoked=nobody, assigned=nobody)
        try:
            await consumer.start()
            last, commits = await consumer.ask(ends, partitions), await consumer.ask(committed, partitions)
        finally:
            await consumer.close()
        found |= {each: (commits.get(each, 0), last[each]) for each in partitions if commits.get(each, 0) != last[each]}
    return found


async def nobody(_: object) -> None:
    """Is told of partitions."""


def source_of(record: Record) -> str:
    """As letters tell it."""
    return f"{record.partition.topic}/{record.partition.number}/{record.offset}"


def check_order(done: list[RecordSource], topics: Mapping[str, str]) -> None:
    """Of each key or partition that has an order, offsets only grow."""
    lanes: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for source in done:
        match topics[source.topic]:
            case "raw" if source.key is not None:
                lanes["raw", source.key].append(source.offset)
            case "own":
                lanes["own", source.partition].append(source.offset)
            case "object":
                lanes["object", source.key].append(source.offset)
            case _:
                pass
    for lane, offsets in lanes.items():
        assert offsets == sorted(offsets), lane


async def test_every_record_of_a_subscription_is_done_once_or_a_dead_letter(
    plain: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """In order where there is one; no partition is stuck, all offsets move, and nothing of ours fails in the log."""
    plain.settings = plain.settings.model_copy(update={"record_bytes_max": RECORD_BYTES_MAX})
    seed = system_random().randrange(2**32)
    scene, sent = Scene(plain, random.Random(seed)), mixed(seed)
    async with feeders(plain) as topics, plain.worker(scene.application):
        for each in sent:
            await topics[each.topic].send(each.value, key=each.key, headers=each.headers)
        records: list[Record] = []
        for topic, name in scene.topics.items():
            count = sum(each.topic == name for each in sent)
            records += await plain.read(topic, at_least(count))
        expected, dead = scene.judged(records)
        assert all(record in expected for record in records if (MARK, b"1") in record.headers), f"seed {seed}"
        assert len(dead) >= len(bad()), f"seed {seed}"
        await wait_until(lambda: len(scene.done_so_far) >= len(expected), description=f"seed {seed}")
        letters = await plain.read(plain.topic("dead"), at_least(len(dead)))

        async def all_committed() -> bool:
            return await behind(plain, scene) == {}

        await wait_until(all_committed, description=f"seed {seed}: all offsets move to the end")
    wanted = {RecordSource(*record.partition, record.offset, record.timestamp_ms, record.key) for record in expected}
    assert Counter(scene.done_so_far) == Counter(wanted), f"seed {seed}"
    check_order(scene.done_so_far, scene.topics)
    # Of what was admitted a null value is empty in its letter.
    kept = {letter.source: (letter.record.key, letter.record.value or b"") for letter in map(opened, letters)}
    assert kept == {source_of(record): (record.key, record.value or b"") for record in dead}, f"seed {seed}"
    ours = [entry for entry in caplog.records if entry.name.startswith("perdure")]
    assert [entry.getMessage() for entry in ours if entry.levelno >= logging.ERROR or entry.exc_info] == []
