"""Records that mean harm: each becomes an invocation or a dead letter, and everything around them goes on."""

from __future__ import annotations

import asyncio
import functools
import json
from datetime import timedelta
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from perdure.journal.keys import Keys
from perdure.journal.redis_store import RedisStore
from perdure.schemas.errors import InvocationNotFoundError
from perdure.schemas.ids import InvocationId, id_of_idempotency_key, new_invocation_id
from perdure.worker.application import Application, app
from perdure.worker.broker import Outgoing
from perdure.worker.client import Client
from perdure.worker.clock import system_random
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from tests.integration.deployment import Deployment, envelope, record
from tests.waiting import PATIENCE, wait_until

HOSTILE_NAMES = [
    "{17}",
    "a{b}c{d}",
    "}{",
    "a:b:c",
    "a/b//",
    "line\nbreak\r\n",
    "\x00\x1b[2J\x9b2J",
    "\u202etxt.exe",
    " ",
    "*",
    "?[a-z]\\",
    "'; FLUSHALL; --",
    "..",
    "𝄞é\ufeff",
    "x" * 512,
]


def hostile() -> Application:
    """A service and an object whose handlers give back what they get."""
    service, things = Service("Echo"), VirtualObject("Thing")

    @service.handler()
    async def echo(ctx: Context, argument: Any = None) -> Any:
        return await ctx.run("pass on", lambda: argument)

    @things.handler()
    async def keep(ctx: ObjectContext, argument: Any = None) -> Any:
        ctx.set(ctx.key()[:200], argument)
        return [ctx.key(), await ctx.get(ctx.key()[:200]), await ctx.state_keys()]

    return app([service, things])


async def known(client: Client, invocation_id: str) -> bool:
    """Whether it was admitted."""
    try:
        await client.status(invocation_id)
    except InvocationNotFoundError:
        return False
    return True


@pytest.mark.parametrize("place", ["inv_4" + "0" * 26, "inv_f" + "f" * 26])
async def test_a_caller_that_cannot_be_holds_up_nobody(plain: Deployment, place: str) -> None:
    """A record that names a caller no id can have is a dead letter; deadlines of its slot are looked at as before."""
    application = hostile()
    async with plain.sender(application) as sender, plain.worker(application), plain.client() as client:
        value = envelope("echo", 1, caller=f"{place}:1:1")
        await sender.send(record(plain.topic("Echo"), value, key=b"k"))
        letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= 1)
        assert letters[0].value == value
        delayed = [await client.send("Echo/echo", n, delay=timedelta(milliseconds=250)) for n in range(16)]
        assert [await handle.result(timeout=PATIENCE) for handle in delayed] == list(range(16))


async def test_a_waiter_that_is_somebody_elses_channel_harms_nobody(
    plain: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """An outcome on the channel on which a worker hears of entries is no hint, and does not cost the connection."""
    application = hostile()
    channels = [f"{plain.settings.namespace}:hints:hinted", "__redis__:invalidate", "é\u00a0x"]
    async with (
        plain.sender(application) as sender,
        plain.worker(application, worker_id="hinted"),
        plain.client() as client,
    ):
        for channel in channels:
            id_ = new_invocation_id("Echo", None, system_random())
            await sender.send(record(plain.topic("Echo"), envelope("echo", 1, waiter=channel, id=id_)))
            if channel.isprintable():
                await wait_until(functools.partial(known, client, id_), description="it is admitted")
                assert await client.result(id_, timeout=PATIENCE) == 1
        assert await client.call("Echo/echo", 2, timeout=PATIENCE) == 2
    ours = [entry for entry in caplog.records if entry.name.startswith("perdure")]
    assert [entry.getMessage() for entry in ours if entry.levelname == "ERROR"] == []


@pytest.mark.parametrize("topic", [".", ".."])
async def test_a_reply_topic_that_kafka_does_not_have_is_refused(plain: Deployment, topic: str) -> None:
    """These two match the pattern of topics' names, and are none."""
    application = hostile()
    async with plain.sender(application) as sender, plain.worker(application), plain.client() as client:
        await sender.send(record(plain.topic("Echo"), envelope("echo", 1, reply_to=topic), key=b"k"))
        letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= 1)
        assert b"reply_to" in (dict(letters[0].headers)["perdure-reason"] or b"")
        assert await client.call("Echo/echo", 2, timeout=PATIENCE) == 2


async def test_names_that_mean_something_to_redis_kafka_or_a_terminal(plain: Deployment) -> None:
    """Keys, idempotency keys, headers and handlers may hold anything: two that differ are never taken for one."""
    application = hostile()
    async with plain.sender(application) as sender, plain.worker(application), plain.client() as client:
        calls = [client.call("Thing/keep", n, key=name, timeout=PATIENCE) for n, name in enumerate(HOSTILE_NAMES)]
        for name, number, found in zip(HOSTILE_NAMES, range(99), await asyncio.gather(*calls), strict=False):
            assert found == [name, number, [name[:200]]]
        for number, name in enumerate(HOSTILE_NAMES):
            sent = await client.send("Echo/echo", number, idempotency_key=name, headers={name: name})
            assert await sent.result(timeout=PATIENCE) == number
            assert await client.call("Echo/echo", -1, idempotency_key=name, timeout=PATIENCE) == number
            # A handler of that name is nowhere: it waits for a deployment that has it, and is in nobody's way.
            await sender.send(record(plain.topic("Echo"), envelope(name[:200])))
        assert await client.call("Echo/echo", "last", timeout=PATIENCE) == "last"


DEEP, HUGE = 190, 4_000

ODD_VALUES: dict[str, tuple[bytes, Any]] = {
    "deep": (b"[" * DEEP + b"]" * DEEP, json.loads("[" * DEEP + "]" * DEEP)),
    "a huge integer": (b"9" * HUGE, 10**HUGE - 1),
    "digits of a float": (b"0.1000000000000000055511151231257827", 0.1),
    "a duplicate key": (b'{"a": 1, "a": 2}', {"a": 2}),
    "an empty key": (b'{"": {"": null}}', {"": {"": None}}),
    "escapes": (rb'"\u0000\u001b\u2028\ud834\udd1e\/"', "\x00\x1b\u2028𝄞/"),
    "the codec's own marks": (b'{",\\"value\\":": ",\\"value\\":1}", "failure": {"code": 1}}', None),
    "a name that reads like infinity": (b'{"Infinity": "NaN"}', {"Infinity": "NaN"}),
}

NO_VALUES: dict[str, bytes] = {
    "deeper than is read": b"[" * 3_000 + b"]" * 3_000,
    "never closed": b"[" * 100_000,
    "a number beyond floats": b"1e999",
    "NaN": b"NaN",
    "minus infinity": b"-Infinity",
    "half a surrogate pair": rb'"\ud800"',
    "a huger integer": b"9" * 5_000,
    "a raw control character": b'"\x01"',
    "bytes that are no UTF-8": b'"\xff\xfe"',
    "nothing": b"",
}


async def test_odd_values_come_through_or_are_refused(plain: Deployment) -> None:
    """What is JSON comes out as it went in; what is not, or what nobody could read, is a dead letter."""
    application = hostile()
    topic, replies = plain.topic("Echo"), plain.topic("replies")
    form = b'{"handler": "echo", "idempotency_key": "%s", "reply_to": "%s", "argument": %s}'
    async with plain.sender(application) as sender, plain.worker(application), plain.client() as client:
        for name, (raw, _) in ODD_VALUES.items():
            await sender.send(record(topic, form % (name.encode(), replies.encode(), raw), key=name.encode()))
        for name, raw in NO_VALUES.items():
            await sender.send(record(topic, form % (name.encode(), replies.encode(), raw), key=name.encode()))
        await sender.send(record(topic, b"\xef\xbb\xbf" + envelope("echo"), key=b"byte order mark"))
        await sender.send(Outgoing(topic, b"tombstone", None, ()))
        for name, (raw, value) in ODD_VALUES.items():
            wanted = orjson.loads(raw) if value is None else value
            id_ = id_of_idempotency_key("Echo", "echo", None, idempotency_key=name)
            await wait_until(functools.partial(known, client, id_), description=name)
            assert await client.result(id_, timeout=PATIENCE) == wanted, name
        refused = len(NO_VALUES) + 2
        letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= refused)
    assert {(letter.key or b"").decode() for letter in letters} == {*NO_VALUES, "byte order mark", "tombstone"}


async def test_a_failure_of_ten_megabytes_is_cut_and_says_so(plain: Deployment) -> None:
    """Message and stack are shortened in the journal, for the caller and in listings; the metadata is refused."""
    service = Service("Loud")

    @service.handler()
    async def shout(ctx: Context) -> None:
        raise ValueError("x" * 10_000_000)

    application = app([service])
    async with plain.sender(application), plain.worker(application), plain.client() as client, plain.store() as store:
        sent = await client.send("Loud/shout", idempotency_key="once")

        async def failed() -> bool:
            found = await store.read_invocation(sent.invocation_id)
            return found is not None and "left out" in found.fields.get("last_failure", "")

        await wait_until(failed, description="the failure stands with the invocation")
        entries = await store.read_journal(sent.invocation_id)
    texts = [str(entry.entry) for entry in entries]
    assert max(map(len, texts)) < 30_000


async def damage(plain: Deployment, store: RedisStore, invocation_id: InvocationId) -> None:
    """Write into a journal by hand what no version reads."""
    keys = Keys(plain.settings.namespace, slots=store.slots).of(invocation_id)
    async with Redis.from_url(plain.settings.redis_url.get_secret_value()) as redis:
        length = int(await redis.hget(keys.invocation, "length") or 0)
        await redis.xadd(keys.journal, {"run": '{"index":0,'}, id=f"{length + 1}-1")
        await redis.hset(keys.invocation, "length", length + 1)


async def test_a_damaged_journal_is_set_aside(plain: Deployment) -> None:
    """It is paused with the reason, its resume record is done with, and what else there is goes on."""
    application = hostile()
    async with plain.sender(application), plain.client() as client, plain.store() as store, plain.worker(application):
        sent = await client.send("Echo/echo", 1, delay=timedelta(seconds=2.5))
        await wait_until(functools.partial(known, client, sent.invocation_id), description="it is admitted")
        await damage(plain, store, sent.invocation_id)

        async def paused() -> bool:
            return (await client.status(sent.invocation_id)).status == "paused"

        await wait_until(paused, description="it is paused")
        found = await store.read_invocation(sent.invocation_id)
        assert found is not None
        assert "cannot be read" in found.fields["last_failure"]
        assert await client.call("Echo/echo", 2, timeout=PATIENCE) == 2


async def test_what_is_damaged_hides_nothing_else_that_is_due(plain: Deployment) -> None:
    """What cannot be read is told by name and comes again later; what falls due behind it in its slot is found."""
    plain.settings = plain.settings.model_copy(update={"slots": 1})
    application = hostile()
    async with plain.sender(application), plain.store() as store:
        async with plain.client() as client, plain.worker(application):
            sent = [await client.send("Echo/echo", n) for n in range(2)]
            assert [await each.result(timeout=PATIENCE) for each in sent] == [0, 1]
        ids = [each.invocation_id for each in sent]
        keys = Keys(plain.settings.namespace, slots=1).of(ids[0])
        async with Redis.from_url(plain.settings.redis_url.get_secret_value()) as redis:
            await redis.hset(keys.invocation, "callers", "nobody")
            await redis.zadd(keys.due, {f"reply:{id_}": score for score, id_ in enumerate(ids, 1)})
        swept = await store.sweep(0)
        assert [due.invocation_id for due in swept.due] == ids[1:]
        (why,) = swept.unreadable
        assert why.startswith(f"reply of {ids[0]}: 'nobody' is not a caller")
