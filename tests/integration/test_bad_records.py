"""What nobody can understand goes to the dead letters as it is, and holds up nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from perdure.schemas.errors import TerminalError
from perdure.schemas.limits import RECORD_BYTES_MAX
from perdure.worker.application import Application, app
from perdure.worker.broker import Outgoing, Record
from perdure.worker.context import Context
from perdure.worker.letters import opened
from perdure.worker.service import Service
from perdure.worker.subscriptions import Subscription
from tests.integration.deployment import Deployment, envelope, record
from tests.integration.shop import topic_of
from tests.waiting import PATIENCE, wait_until
from tests.worker.kafka_clients import NOT_UTF8, produce_batch

BAD: dict[str, tuple[bytes | None, str]] = {
    "no JSON": (b"{handler: add}", "not JSON"),
    "no UTF-8": (b"\xff\xfe", "not JSON"),
    "empty": (b"", "not JSON"),
    "null": (None, "value is null"),
    "another JSON": (b"[1, 2]", "not an object with a handler"),
    "without a handler": (b'{"argument": 1}', "handler: Field required"),
    "with a handler that is no name": (b'{"handler": 7}', "handler:"),
    "with an unknown field": (b'{"handler": "echo", "argumnet": 1}', "argumnet"),
    "with an id that is none": (b'{"handler": "echo", "id": "7"}', "not an invocation id"),
    "with a time without a zone": (b'{"handler": "echo", "not_before": "2030-01-01T00:00:00"}', "time zone"),
    "with a reply topic that is none": (b'{"handler": "echo", "reply_to": "no topic!"}', "reply_to"),
    "too large": (b'{"handler": "echo", "argument": "%s"}' % (b"x" * 2_000), "at most 1500"),
    "NaN": (b'{"handler": "echo", "argument": NaN}', "not JSON"),
}

HEADERS = (("traceparent", b"00-4bf92f-01"), ("twice", b"1"), ("twice", b"2"), ("raw", b"\xff"))


def echoing() -> Application:
    """An application whose one handler returns its argument."""
    service = Service("Echo")

    @service.handler()
    async def echo(ctx: Context, argument: Any = None) -> Any:
        return argument

    return app([service])


@pytest.fixture
def small(plain: Deployment) -> Deployment:
    """A deployment that takes small records only."""
    plain.settings = plain.settings.model_copy(update={"record_bytes_max": 1_500})
    return plain


def headers_of(letter: Record) -> dict[str, bytes | None]:
    """Headers that were added on the way."""
    return dict(letter.headers[len(HEADERS) :])


def places_of(letters: list[Record]) -> set[tuple[bytes | None, ...]]:
    """Where dead letters came from."""
    about = [dict(letter.headers) for letter in letters]
    return {tuple(each[f"perdure-{name}"] for name in ("topic", "partition", "offset")) for each in about}


def results_of(replies: list[Record]) -> set[Any]:
    """What handlers returned; a reply may come twice."""
    return {orjson.loads(reply.value or b"")["value"] for reply in replies}


async def test_every_kind_of_bad_record_is_kept_and_passed_by(small: Deployment) -> None:
    """Byte for byte with key and headers, with the reason and the source; good records before and after it run."""
    application = echoing()
    topic, dead = small.topic("Echo"), small.topic("dead")
    async with small.sender(application) as sender, small.worker(application), small.client() as client:
        for name, (value, _) in BAD.items():
            await sender.send(record(topic, value, key=name.encode(), headers=HEADERS))
        await sender.send(Outgoing(topic, None, None, HEADERS))
        for number in range(6):
            assert await client.call("Echo/echo", number, timeout=PATIENCE) == number
        letters = await small.read(dead, lambda records: len(records) >= len(BAD) + 1)
    by_key = {letter.key: letter for letter in letters}
    assert len(letters) == len(BAD) + 1
    for name, (value, reason) in BAD.items():
        letter = by_key[name.encode()]
        assert letter.value == value, name
        assert letter.headers[: len(HEADERS)] == HEADERS, name
        about = headers_of(letter)
        assert reason in (about["perdure-reason"] or b"").decode(), name
        assert about["perdure-topic"] == topic.encode()
        assert set(about) == {
            "perdure-reason",
            "perdure-topic",
            "perdure-partition",
            "perdure-offset",
            "perdure-timestamp",
        }
    assert by_key[None].value is None
    places = {(headers_of(letter)["perdure-partition"], headers_of(letter)["perdure-offset"]) for letter in letters}
    assert len(places) == len(letters)


async def test_header_names_that_are_not_utf8_hold_up_nothing(plain: Deployment) -> None:
    """The record is kept, name and all, and what came in one batch with it runs; so it is in resume topics."""
    application = echoing()
    topic, dead = plain.topic("Echo"), plain.topic("dead")
    server, replies = plain.settings.bootstrap_servers, plain.topic("replies")
    batch = [record(topic, envelope("echo", number, reply_to=replies)) for number in range(5)]
    headers = (("traceparent", b"00-4bf92f-01"), (NOT_UTF8, b"\x00"), ("none", None))
    batch[2] = record(topic, envelope("echo", 2), key=b"bad", headers=headers)
    async with plain.sender(application), plain.worker(application), plain.client() as client:
        await produce_batch(server, batch, partition=0)
        await produce_batch(server, [record(f"{topic}.resume", b"{}", key=b"resume", headers=headers)])
        letters = await plain.read(dead, lambda records: len({letter.key for letter in records}) >= 2)
        found = await plain.read(replies, lambda records: len(results_of(records)) >= 4)
        assert [await client.call("Echo/echo", n, timeout=PATIENCE) for n in range(8)] == list(range(8))
        await produce_batch(server, batch[2:3], partition=1)
        letters = await plain.read(dead, lambda records: len(places_of(records)) >= 3)
    assert results_of(found) == {0, 1, 3, 4}
    letter = next(letter for letter in letters if letter.key == b"bad")
    assert letter.value == batch[2].value
    shown = ("traceparent", b"00-4bf92f-01"), ("caf\N{REPLACEMENT CHARACTER}", b"\x00"), ("none", None)
    assert letter.headers[:4] == (*shown, ("perdure-header-1-name", NOT_UTF8.encode()))
    assert dict(letter.headers)["perdure-offset"] == b"2"
    assert b"header 1, counted from 0, is not UTF-8" in (dict(letter.headers)["perdure-reason"] or b"")


async def test_bad_resume_notices_are_dead_letters(plain: Deployment) -> None:
    """Somebody who produces to a resume topic by mistake does no harm either."""
    application = echoing()
    resume = plain.topic("Echo.resume")
    values = [b"nonsense", b"{}", b'{"id": "inv_x", "epoch": 1}', None]
    async with plain.sender(application) as sender, plain.worker(application), plain.client() as client:
        for value in values:
            await sender.send(record(resume, value, key=b"k"))
        assert await client.call("Echo/echo", 1, timeout=PATIENCE) == 1
        letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= len(values))
    assert sorted(str(letter.value) for letter in letters) == sorted(str(value) for value in values)


async def test_dead_letters_are_not_written_twice_over_a_restart(plain: Deployment) -> None:
    """Their offsets move like any other's: a new worker does not find them again."""
    application = echoing()
    topic, dead = plain.topic("Echo"), plain.topic("dead")
    async with plain.sender(application) as sender:
        async with plain.worker(application) as engine, plain.client() as client:
            await sender.send(record(topic, b"bad", key=b"1"))
            await plain.read(dead, lambda records: len(records) >= 1)
            assert await client.call("Echo/echo", 1, timeout=PATIENCE) == 1
            # Where Redis has no WAITAOF, offsets lag by two seconds; what a stop leaves behind them comes again.
            await wait_until(lambda: not engine._committer._unvouched, description="all is durable")
        async with plain.worker(application), plain.client() as client:
            await sender.send(record(topic, b"bad too", key=b"2"))
            assert await client.call("Echo/echo", 2, timeout=PATIENCE) == 2
            letters = await plain.read(dead, lambda records: b"bad too" in [letter.value for letter in records])
    assert [letter.value for letter in letters if letter.value == b"bad"] == [b"bad"]


async def test_a_dead_letter_that_cannot_be_written_keeps_its_offset(plain: Deployment) -> None:
    """Until the dead-letter topic takes it, each new worker finds the record again, and everything else goes on."""
    application = echoing()
    topic, dead = plain.topic("Echo"), plain.topic("dead")
    # Fits into a record, but not together with the reason: the producer refuses it.
    value = b"x" * (1_048_576 - 150)
    async with plain.sender(application) as sender:
        for _ in range(2):
            async with plain.worker(application), plain.client() as client:
                if _ == 0:
                    await sender.send(record(topic, value, key=b"1"))
                calls = [client.call("Echo/echo", number, timeout=PATIENCE) for number in range(8)]
                assert await asyncio.gather(*calls) == list(range(8))
                await sender.send(record(topic, b"bad", key=b"1"))
                await plain.read(dead, lambda records: len(records) >= 1)
        letters = await plain.read(dead, lambda records: len(records) >= 2)
    # The later bad record of the same partition was found by the second worker again: its offset had not moved.
    assert [letter.value for letter in letters].count(b"bad") >= 2
    assert value not in [letter.value for letter in letters]


async def test_an_envelope_may_be_written_by_hand(plain: Deployment) -> None:
    """Whitespace, escapes, any argument: what JSON allows is taken."""
    application = echoing()
    async with plain.sender(application) as sender, plain.worker(application):
        replies = plain.topic("replies")
        value = (
            b' {\n "handler" : "echo", "argument": {"\\u00e9": [1.50, null]}, "reply_to": "%s" } ' % replies.encode()
        )
        await sender.send(record(plain.topic("Echo"), value))
        await sender.send(record(plain.topic("Echo"), envelope("echo", reply_to=replies)))
        found = await plain.read(replies, lambda records: len(records) >= 2)
    assert any(b'"value":{"\xc3\xa9":[1.5,null]}' in (reply.value or b"") for reply in found)


async def test_records_that_no_letter_can_hold_move_on(plain: Deployment) -> None:
    """Their letters say where they stand: unreadable or failed, the offset moves, and a new worker finds neither again.

    A letter has headers of its own, so that the largest record that a topic takes is too large for the dead letters.
    """
    service = Service("Echo")
    calls: list[int] = []

    @service.handler()
    async def refuse(ctx: Context, argument: bytes) -> None:
        calls.append(len(argument))
        raise TerminalError("not this one")

    async with topic_of(plain) as orders:
        subscription = Subscription(topic=orders.topic, handler=refuse, on_terminal_failure="dead-letter")
        application = app([service], subscriptions=[subscription])
        async with plain.worker(application) as engine:
            offsets = engine._sources[1].committer._offsets
            await orders.send(b"x" * (RECORD_BYTES_MAX + 48_400), key=b"unreadable")
            await orders.send(b"x" * RECORD_BYTES_MAX, headers=(("large", b"x" * 48_400),))
            await orders.send(b"x", key=b"small")
            letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= 3)
            await wait_until(lambda: offsets.backlog == 0, description="all offsets may move")
        async with plain.worker(application):
            await orders.send(b"y", key=b"small")
            letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= 4)
    seen = {each.record.offset: each for each in map(opened, letters)}
    assert [seen[offset].about.get("left-out") for offset in range(4)] == [
        "key of 10 bytes, value of 1048400 bytes, 0 headers",
        "key of 0 bytes, value of 1000000 bytes, 1 headers",
        None,
        None,
    ]
    assert [seen[offset].record.value for offset in range(4)] == [None, None, b"x", b"y"]
    assert len(letters) == 4
    assert sorted(calls) == [1, 1, RECORD_BYTES_MAX]
