"""The coalescing connection against a Redis that dies, freezes, refuses and forgets: a call waits, and is answered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from perdure.journal.keys import Keys
from perdure.journal.link import Endpoint, connect
from perdure.journal.redis_scripts import script_texts
from perdure.journal.redis_store import RedisStore
from perdure.journal.wire import Wire, refusal, same
from perdure.schemas.errors import DecodeError, FencedError, GapError, StoreError
from perdure.worker.server_process import ServerProcess
from tests.servers import lane
from tests.waiting import PATIENCE_S, wait_until

from .store_contract import LEASE_MS, admission, output, run

ADD = b"return redis.call('INCR', KEYS[1])"
ADD_SHA = hashlib.sha1(ADD, usedforsecurity=False).hexdigest()


def wire_to(server: ServerProcess, *, pending_max: int = 1_000) -> Wire:
    """A wire to that server, with one script."""
    host, _, port = server.address.partition(":")

    async def locate() -> Endpoint:
        return Endpoint(host, int(port))

    return Wire(locate, {ADD_SHA: ADD, **script_texts()}, name="test", pending_max=pending_max)


def client_of(server: ServerProcess) -> redis.Redis:
    """A client for the test's own commands."""
    return redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))


async def test_calls_of_one_tick_are_answered_in_order(private_redis: ServerProcess) -> None:
    """Whatever is asked for at once is answered as it was asked."""
    async with wire_to(private_redis) as wire:
        calls = [wire.call((b"EVALSHA", ADD_SHA, 1, "n"), same) for _ in range(1000)]
        assert [await call for call in calls] == list(range(1, 1001))
        assert wire.connected


def test_what_is_said_to_a_lost_connection_is_lost(private_redis: ServerProcess) -> None:
    """Writing to a connection that was reset is no error on uvloop either, whose closed transports raise."""
    uvloop = pytest.importorskip("uvloop")

    async def say() -> None:
        link = await connect(Endpoint("127.0.0.1", private_redis.port), name="test")
        link.transport.abort()
        await link.closed.wait()
        link.send((b"PING",))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(say())


async def test_a_call_made_during_an_outage_waits(
    private_redis: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered when Redis is back; the outage is told once when it begins and once when it ends."""
    async with wire_to(private_redis) as wire:
        await wire.call((b"SET", "a", "1"), same)
        await private_redis.kill()
        await wait_until(lambda: not wire.connected, description="the wire notices")
        caplog.clear()
        with caplog.at_level(logging.INFO):
            calls = [wire.call((b"GET", "a"), same) for _ in range(3)]
            await asyncio.wait(calls, timeout=0.6)
            assert not any(call.done() for call in calls)
            await private_redis.start()
            assert [await call for call in calls] == [b"1"] * 3
        assert [record.getMessage() for record in caplog.records] == ["Redis is back"]


async def test_work_goes_on_where_it_was_after_redis_died_in_the_middle(private_redis: ServerProcess) -> None:
    """Appends that had no answer are sent again and done once; the journal has each entry once."""
    async with wire_to(private_redis) as wire:
        store = RedisStore(wire, Keys("ns", slots=1))
        admissions = [admission() for _ in range(20)]
        leases = [(await store.admit(asked, lease_ms=LEASE_MS)).lease for asked in admissions]  # type: ignore[union-attr]
        asked = [store.append(lease, [run(0)], after=1, seq=1, progress=True) for lease in leases]
        await asyncio.sleep(0)
        await private_redis.kill()
        again = [store.append(lease, [run(1)], after=2, seq=2, progress=True) for lease in leases]
        await private_redis.start()
        assert [(await call).length for call in asked] == [2] * 20
        assert [(await call).length for call in again] == [3] * 20
        for lease in leases:
            await store.complete(lease, [output()], after=3, seq=3, retention_ms=60_000, journal_retention_ms=60_000)
            assert [entry for _, _, entry in await store.read_journal(lease.invocation_id, after=1)] == [
                run(0),
                run(1),
                output(),
            ]


async def test_what_is_sent_once_is_not_repeated_over_another_connection(private_redis: ServerProcess) -> None:
    """It is answered where the connection lasts, and given up where it is lost or not there."""
    async with wire_to(private_redis) as wire:
        add = (b"EVALSHA", ADD_SHA, 1, "n")
        assert await wire.call(add, same) == 1
        assert await wire.call_once(add, same) == 2
        await private_redis.pause()
        held = wire.call_once(add, same)
        await asyncio.wait([held], timeout=0.1)
        assert not held.done()
        await private_redis.kill()
        assert await held is None
        await wait_until(lambda: not wire.connected, description="the wire notices")
        assert wire.losses == 1
        late = wire.call_once(add, same)
        assert await late is None
        await private_redis.start()
        assert int(await wire.call((b"INCRBY", "n", 0), same)) < 3


async def test_a_frozen_redis_is_waited_for(private_redis: ServerProcess) -> None:
    """A stall is no outage: nothing is sent twice and everything is answered afterwards."""
    async with wire_to(private_redis) as wire:
        await wire.wait_connected()
        await private_redis.pause()
        calls = [wire.call((b"EVALSHA", ADD_SHA, 1, "n"), same) for _ in range(3)]
        await asyncio.wait(calls, timeout=0.2)
        assert not any(call.done() for call in calls)
        await private_redis.resume()
        assert [await call for call in calls] == [1, 2, 3]


async def test_a_redis_that_is_full_is_asked_again(private_redis: ServerProcess) -> None:
    """`OOM` means not now: the write waits until there is room."""
    async with wire_to(private_redis) as wire:
        with client_of(private_redis) as client:
            client.config_set("maxmemory", "1")
            call = wire.call((b"SET", "a", "1"), same)
            await asyncio.wait([call], timeout=0.4)
            assert not call.done()
            client.config_set("maxmemory", "0")
        assert await call == b"OK"


async def test_what_waits_for_room_is_let_go_when_the_wire_ends(private_redis: ServerProcess) -> None:
    """Nobody hangs on an answer that cannot come any more."""
    async with wire_to(private_redis) as wire:
        with client_of(private_redis) as client:
            client.config_set("maxmemory", "1")
            call = wire.call((b"SET", "a", "1"), same)
            await asyncio.wait([call], timeout=0.1)
            never = wire.call((b"BLPOP", "nothing", 0), same)
    await asyncio.wait([call, never], timeout=PATIENCE_S)
    assert call.cancelled()
    assert never.cancelled()


async def test_forgotten_scripts_are_loaded_and_not_once_for_each_call(private_redis: ServerProcess) -> None:
    """A thousand calls that meet an empty script cache load it a few times, not a thousand times."""
    async with wire_to(private_redis) as wire:
        await wire.wait_connected()
        with client_of(private_redis) as client:
            client.script_flush()
            before = client.info("commandstats")["cmdstat_script|load"]["calls"]
            calls = [wire.call((b"EVALSHA", ADD_SHA, 1, "n"), same) for _ in range(1000)]
            assert sorted([await call for call in calls]) == list(range(1, 1001))
            after = client.info("commandstats")["cmdstat_script|load"]["calls"]
        assert after - before < 40 * len(script_texts())


async def test_an_answer_that_cannot_be_read_fails_its_own_call(private_redis: ServerProcess) -> None:
    """The connection and the calls beside it are not touched."""

    def torn(reply: object) -> object:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "not text")

    def damaged(reply: object) -> object:
        raise DecodeError("not an entry")

    async with wire_to(private_redis) as wire:
        calls = [wire.call((b"PING",), convert) for convert in (torn, damaged, same)]
        with pytest.raises(UnicodeDecodeError):
            await calls[0]
        with pytest.raises(DecodeError):
            await calls[1]
        assert await calls[2] == b"PONG"


async def test_a_refusal_is_the_callers(private_redis: ServerProcess) -> None:
    """What waiting does not mend is raised, with the server's words."""
    async with wire_to(private_redis) as wire:
        await wire.call((b"SET", "a", "text"), same)
        with pytest.raises(StoreError, match="not an integer"):
            await wire.call((b"INCR", "a"), same)


async def test_calls_are_bounded(private_redis: ServerProcess) -> None:
    """More without an answer than were agreed upon is a bug of the caller's, and said so."""
    async with wire_to(private_redis, pending_max=2) as wire:
        calls = [wire.call((b"PING",), same) for _ in range(2)]
        with pytest.raises(StoreError, match="2 commands wait"):
            wire.call((b"PING",), same)
        assert [await call for call in calls] == [b"PONG"] * 2
        assert await wire.call((b"PING",), same) == b"PONG"


async def test_a_wire_is_used_inside_its_block(private_redis: ServerProcess) -> None:
    """Before and after it, a call is refused instead of never answered."""
    wire = wire_to(private_redis)
    with pytest.raises(StoreError, match="outside"):
        wire.call((b"PING",), same)
    async with wire:
        assert await wire.call((b"PING",), same) == b"PONG"
    with pytest.raises(StoreError, match="outside"):
        wire.call((b"PING",), same)


def test_the_scripts_refusals_have_their_own_errors() -> None:
    """Fenced and gap are what attempts act upon; the rest is the store's."""
    assert isinstance(refusal("FENCED 3"), FencedError)
    assert isinstance(refusal("GAP 7"), GapError)
    assert isinstance(refusal("ERR wrong number of arguments"), StoreError)


async def test_what_is_no_redis_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A web server at that address is named as the likely mistake, without a traceback."""
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        left.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreError, match="does not speak Redis's protocol"):
            await connect(Endpoint("127.0.0.1", port), name="test")
        await left.wait()
    assert [record.getMessage() for record in caplog.records] == []


async def test_a_server_that_became_a_replica_is_left(private_redis: ServerProcess, tmp_path: Path) -> None:
    """Where the old primary lives on as a replica, its refusals have the new one looked for; nothing is lost."""
    successor = await lane.new_redis(tmp_path / "successor")
    primary = private_redis

    async def locate() -> Endpoint:
        host, _, port = primary.address.partition(":")
        return Endpoint(host, int(port))

    try:
        async with Wire(locate, {ADD_SHA: ADD}, name="test") as wire:
            assert await wire.call((b"EVALSHA", ADD_SHA, 1, "n"), same) == 1
            with client_of(private_redis) as client:
                client.replicaof("127.0.0.1", successor.port)
            primary = successor
            assert await wire.call((b"EVALSHA", ADD_SHA, 1, "m"), same) == 1
            with client_of(successor) as client:
                assert client.get("m") == b"1"
    finally:
        await successor.kill()
