"""The client against real servers: `perdure.worker.client`, with the worker's part played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaConsumer
from pydantic import BaseModel

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import NamespaceSettings, opened, read_namespace
from perdure.journal.redis_store import RedisStore
from perdure.journal.store import Admission, Claimed
from perdure.schemas.entries import Failure, Input, Outcome, Output, Success
from perdure.schemas.errors import (
    BrokerError,
    InvocationNotFoundError,
    RecordTooLargeError,
    SerdeError,
    SettingsError,
    StoreError,
    TerminalError,
    UsageError,
)
from perdure.schemas.ids import InvocationId, id_of_idempotency_key, new_invocation_id
from perdure.schemas.records import Envelope, decode_invocation
from perdure.worker.broker import Outgoing
from perdure.worker.client import Client
from perdure.worker.clock import system_random
from perdure.worker.kafka_admin import create_topics
from perdure.worker.sender import Sender
from perdure.worker.server_process import ServerProcess, free_port
from perdure.worker.service import Service
from perdure.worker.settings import Settings
from perdure.worker.topics import plan_topics
from tests.waiting import PATIENCE, PATIENCE_S, wait_until

SECOND = timedelta(seconds=1)
DAY_MS = 86_400_000


class Order(BaseModel):
    """An argument."""

    item: str
    count: int = 1


class Receipt(BaseModel):
    """A result."""

    total: int


shop = Service("Shop")


@shop.handler()
async def buy(ctx: object, order: Order) -> Receipt:
    """Never run here: only its types are used."""
    raise NotImplementedError


@shop.handler()
async def ping(ctx: object) -> str:
    """A handler without an argument."""
    raise NotImplementedError


class FakeWorker:
    """Reads a service's topic, and admits and completes when the test says so."""

    def __init__(self, consumer: AIOKafkaConsumer, store: RedisStore) -> None:
        self.store = store
        self._consumer = consumer

    async def receive(self) -> Envelope:
        """The next invocation that was sent."""
        record = await asyncio.wait_for(self._consumer.getone(), PATIENCE_S)
        return decode_invocation(record.value)

    async def admit(self, invocation: Envelope) -> Claimed:
        """Admit it, as the engine does."""
        invocation_id = invocation.id or id_of_idempotency_key(
            "Shop", invocation.handler, invocation.key, idempotency_key=invocation.idempotency_key or ""
        )
        entry = Input(0, "w", (), invocation.payload)
        admission = Admission(
            InvocationId(invocation_id),
            "Shop",
            invocation.handler,
            invocation.key,
            entry,
            token="t",
            worker="w",
            waiter=invocation.waiter or "",
        )
        admitted = await self.store.admit(admission, lease_ms=60_000)
        assert isinstance(admitted, Claimed)
        return admitted

    async def complete(self, claimed: Claimed, outcome: Outcome) -> None:
        """Record the outcome."""
        await self.store.complete(
            claimed.lease, [Output(0, outcome)], after=1, seq=1, retention_ms=DAY_MS, journal_retention_ms=DAY_MS
        )

    async def serve(self, outcome: Outcome) -> Envelope:
        """Receive, admit and complete one invocation."""
        invocation = await self.receive()
        await self.complete(await self.admit(invocation), outcome)
        return invocation


@pytest.fixture
def settings(redis_url: str, bootstrap_servers: str, namespace: str) -> Settings:
    """The session's servers and this test's namespace."""
    return Settings.load(
        redis_url=redis_url, bootstrap_servers=bootstrap_servers, namespace=namespace, slots=4, topic_partitions=1
    )


@asynccontextmanager
async def fake_worker(settings: Settings) -> AsyncIterator[FakeWorker]:
    """A worker of the service Shop."""
    await create_topics(
        settings.kafka_config(), plan_topics(settings.namespace, ["Shop"], partitions=1, replication_factor=1)
    )
    keys = Keys(settings.namespace, slots=settings.slots)
    consumer = AIOKafkaConsumer(
        f"{settings.namespace}.Shop",
        bootstrap_servers=settings.bootstrap_servers,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
    )
    async with consumer, connected_store(settings.redis_config, keys, name="fake-worker") as store:
        yield FakeWorker(consumer, store)


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[FakeWorker]:
    """A worker of the service Shop."""
    async with fake_worker(settings) as made:
        yield made


@pytest.fixture
async def client(settings: Settings, worker: FakeWorker) -> AsyncIterator[Client]:
    """An entered client; the topic exists."""
    async with Client(settings) as entered:
        yield entered


async def test_a_call_by_function_is_typed(client: Client, worker: FakeWorker) -> None:
    """The argument goes through the handler's input type and the result comes back as its output type."""
    call = asyncio.create_task(client.call(buy, Order(item="tea"), timeout=PATIENCE))
    invocation = await worker.serve(Success(b'{"total":7}'))
    assert await call == Receipt(total=7)
    assert invocation.handler == "buy"
    assert invocation.payload == b'{"item":"tea","count":1}'
    assert invocation.waiter == f"{client._settings.namespace}:outcome:{client.client_id}"


async def test_a_call_by_name_speaks_json(client: Client, worker: FakeWorker) -> None:
    """Without the function at hand values are what JSON makes of them; what is not JSON is bytes."""
    call = asyncio.create_task(client.call("Shop/buy", {"item": "tea"}, timeout=PATIENCE))
    await worker.serve(Success(b'{"total":7}'))
    assert await call == {"total": 7}
    call = asyncio.create_task(client.call("Shop/buy", None, timeout=PATIENCE))
    assert (await worker.serve(Success(b"\xff"))).payload == b"null"
    assert await call == b"\xff"


async def test_a_handler_without_argument_is_called_without(client: Client, worker: FakeWorker) -> None:
    """No argument is not null."""
    call = asyncio.create_task(client.call(ping, timeout=PATIENCE))
    assert (await worker.serve(Success(b'"pong"'))).payload == b""
    assert await call == "pong"


async def test_a_failure_is_raised_with_code_and_metadata(client: Client, worker: FakeWorker) -> None:
    """The caller gets what the handler ended with."""
    call = asyncio.create_task(client.call(ping, timeout=PATIENCE))
    await worker.serve(Failure(402, "no money", {"card": "expired"}))
    with pytest.raises(TerminalError) as failed:
        await call
    assert (failed.value.message, failed.value.status_code) == ("no money", 402)
    assert failed.value.metadata == {"card": "expired"}


async def test_many_wait_on_one_subscription(client: Client, worker: FakeWorker, settings: Settings) -> None:
    """Each of many calls gets its own result, over one channel of one connection."""
    calls = [asyncio.create_task(client.call("Shop/buy", number, timeout=PATIENCE)) for number in range(50)]
    for _ in calls:
        invocation = await worker.receive()
        await worker.complete(await worker.admit(invocation), Success(invocation.payload))
    assert await asyncio.gather(*calls) == list(range(50))
    async with opened(settings.redis_config) as line:
        assert await line.ask("PUBSUB", "NUMSUB", f"{settings.namespace}:outcome:{client.client_id}") == [
            f"{settings.namespace}:outcome:{client.client_id}".encode(),
            1,
        ]


async def test_an_outcome_may_overtake_the_acknowledgement(
    client: Client, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call hears an outcome that is published before Kafka's acknowledgement has arrived, without looking."""
    send = Sender.send

    async def acknowledged_late(sender: Sender, outgoing: Outgoing) -> None:
        await send(sender, outgoing)
        await worker.serve(Success(b'"early"'))
        await wait_until(heard, description="the outcome's message arrived")

    def heard() -> bool:
        _, outcomes = client._inside()
        return any(future.done() for futures in outcomes._waits.values() for future in futures)

    monkeypatch.setattr(Sender, "send", acknowledged_late)
    monkeypatch.setattr("perdure.worker.outcomes.LOOK_FIRST_S", 3_600.0)
    assert await client.call(ping, timeout=PATIENCE) == "early"


async def test_a_lost_message_costs_time_and_nothing_else(client: Client, worker: FakeWorker) -> None:
    """Where the outcome was not published to us, looking finds it."""
    call = asyncio.create_task(client.call(ping, timeout=PATIENCE))
    invocation = await worker.receive()
    unannounced = invocation._replace(waiter=None)
    await worker.complete(await worker.admit(unannounced), Success(b'"late"'))
    assert await call == "late"


async def test_a_handle_waits_for_what_is_not_admitted_yet(client: Client, worker: FakeWorker) -> None:
    """Sending returns when Kafka has it; its result can be asked for at once."""
    handle = await client.send(buy, Order(item="tea"))
    assert (await worker.store.read_invocation(handle.invocation_id)) is None
    waiting = asyncio.create_task(handle.result(timeout=PATIENCE))
    with pytest.raises(InvocationNotFoundError):
        await handle.status()
    invocation = await worker.receive()
    assert invocation.id == handle.invocation_id
    assert invocation.waiter is None
    claimed = await worker.admit(invocation)
    assert (await handle.status()).status == "running"
    await worker.complete(claimed, Success(b'{"total":1}'))
    assert await waiting == Receipt(total=1)
    assert (await handle.status()).outcome == Success(b'{"total":1}')


async def test_any_result_can_be_asked_for_by_id(client: Client, worker: FakeWorker) -> None:
    """Running or completed, by whomever it was sent."""
    handle = await client.send("Shop/ping")
    claimed = await worker.admit(await worker.receive())
    waiting = asyncio.create_task(client.result(handle.invocation_id, timeout=PATIENCE))
    await wait_until(lambda: _waiters(worker, handle.invocation_id))
    await worker.complete(claimed, Success(b"[1]"))
    assert await waiting == [1]
    assert await client.result(handle.invocation_id) == [1]
    status = await client.status(handle.invocation_id)
    assert (status.target, status.status, status.attempts) == ("Shop/ping", "completed", 1)


async def _waiters(worker: FakeWorker, invocation_id: InvocationId) -> bool:
    summary = await worker.store.read_invocation(invocation_id)
    return summary is not None and "waiters" in summary.fields


async def test_an_unknown_id_is_said_to_be_unknown(client: Client) -> None:
    """An id of the right form that nobody knows, and text that is no id, are told apart."""
    unknown = new_invocation_id("Shop", None, system_random())
    with pytest.raises(InvocationNotFoundError, match=unknown):
        await client.result(unknown, timeout=PATIENCE)
    with pytest.raises(InvocationNotFoundError, match=unknown):
        await client.status(unknown)
    with pytest.raises(UsageError, match="inv_"):
        await client.status("something")


async def test_a_timeout_names_the_invocation(client: Client, worker: FakeWorker) -> None:
    """What was sent goes on, and its result can be asked for later by the id in the message."""
    with pytest.raises(TimeoutError, match="inv_") as late:
        await client.call(ping, timeout=timedelta(milliseconds=50))
    invocation = await worker.serve(Success(b'"pong"'))
    assert invocation.id is not None
    assert invocation.id in str(late.value)
    assert await client.result(invocation.id) == "pong"


async def test_an_idempotency_key_gives_one_invocation(client: Client, worker: FakeWorker) -> None:
    """Two sends with one key are one id, which is known before admission; a later call gets the old result."""
    first = await client.send(buy, Order(item="tea"), idempotency_key="o-1")
    again = await client.send(buy, Order(item="tea"), idempotency_key="o-1")
    assert first.invocation_id == again.invocation_id
    assert not first.already_accepted
    await worker.serve(Success(b'{"total":3}'))
    assert await again.result(timeout=PATIENCE) == Receipt(total=3)
    late = await client.send(buy, Order(item="tea"), idempotency_key="o-1")
    assert (late.invocation_id, late.already_accepted) == (first.invocation_id, True)
    # Nothing was sent for that one; the next record is for the reply, and changes nothing else.
    replied = await client.send(buy, Order(item="tea"), idempotency_key="o-1", reply_to="replies")
    assert replied.already_accepted
    assert [(await worker.receive()).reply_to for _ in range(2)] == [None, "replies"]


async def test_options_travel_in_the_envelope(client: Client, worker: FakeWorker) -> None:
    """Id, start, headers and reply topic are what the worker reads."""
    chosen = new_invocation_id("Shop", None, system_random())
    start = datetime(2040, 1, 1, tzinfo=UTC)
    handle = await client.send(ping, id=chosen, not_before=start, headers={"a": "b"}, reply_to="replies")
    assert handle.invocation_id == chosen
    invocation = await worker.receive()
    assert (invocation.id, invocation.not_before, invocation.headers) == (chosen, start, {"a": "b"})
    assert invocation.reply_to == "replies"
    before = datetime.fromtimestamp(client._clock.now_ms() / 1000, UTC)
    await client.send(ping, delay=timedelta(hours=1))
    delayed = (await worker.receive()).not_before
    assert delayed is not None
    assert timedelta(hours=1) <= delayed - before < timedelta(hours=2)


async def test_what_could_not_be_understood_is_not_sent(client: Client, settings: Settings) -> None:
    """Bad targets and options fail here and not in the dead-letter topic."""
    for target in ("Shop", "Shop/", "/x", "a/b/c"):
        with pytest.raises(UsageError, match="Service/handler"):
            await client.send(target)
    with pytest.raises(UsageError, match="not both"):
        await client.send(ping, id=new_invocation_id("S", None, system_random()), idempotency_key="k")
    with pytest.raises(UsageError, match="not both"):
        await client.send(ping, delay=SECOND, not_before=datetime(2040, 1, 1, tzinfo=UTC))
    with pytest.raises(UsageError, match="time zone"):
        await client.send(ping, not_before=datetime(2040, 1, 1))  # noqa: DTZ001 # the mistake that is shown
    with pytest.raises(UsageError, match="key"):
        await client.send(ping, key="")
    with pytest.raises(UsageError, match="reply_to"):
        await client.send(ping, reply_to="no spaces")
    with pytest.raises(SerdeError):
        await client.send("Shop/buy", object())
    with pytest.raises(RecordTooLargeError, match="PERDURE_RECORD_BYTES_MAX"):
        await client.send("Shop/buy", "x" * settings.record_bytes_max)


async def test_a_service_without_a_topic_is_reported_and_none_is_made(client: Client, settings: Settings) -> None:
    """A typo in a service's name makes no topic."""
    for _ in range(2):
        with pytest.raises(SettingsError, match=rf"no topic {settings.namespace}\.Sohp"):
            await client.send("Sohp/buy")


async def test_the_namespace_decides_the_slots(client: Client, settings: Settings) -> None:
    """The first client of a namespace makes it; a later one with another setting takes what there is."""
    made = NamespaceSettings(4, 1)
    assert await read_namespace(settings.redis_config, settings.namespace) == made
    async with Client(settings.model_copy(update={"slots": 16})) as other:
        assert other._inside()[0].slots == 4


async def test_without_redis_entering_fails(bootstrap_servers: str) -> None:
    """Redis that is not there is told at once and not by a hanging call."""
    url = f"redis://127.0.0.1:{free_port(system_random())}"
    with pytest.raises(StoreError, match="does not answer"):
        async with Client.connect(redis_url=url, bootstrap_servers=bootstrap_servers):
            pass


async def test_without_kafka_sending_fails(redis_url: str, namespace: str) -> None:
    """Kafka that is not there is told by the first send."""
    address = f"127.0.0.1:{free_port(system_random())}"
    async with Client.connect(redis_url=redis_url, bootstrap_servers=address, namespace=namespace) as client:
        with pytest.raises(BrokerError):
            await client.send(ping)


async def test_outside_its_block_it_refuses(settings: Settings) -> None:
    """A client that was not entered, or was left, says so."""
    client = Client(settings)
    with pytest.raises(UsageError, match="async with"):
        await client.send(ping)


async def test_a_wait_survives_a_restart_of_redis(
    private_redis: ServerProcess, bootstrap_servers: str, namespace: str
) -> None:
    """What completed while the subscription was away is found when it is back."""
    settings = Settings.load(
        redis_url=f"redis://{private_redis.address}", bootstrap_servers=bootstrap_servers, namespace=namespace, slots=4
    )
    async with fake_worker(settings) as worker, Client(settings) as client:
        call = asyncio.create_task(client.call(ping, timeout=2 * PATIENCE))
        claimed = await worker.admit(await worker.receive())
        await private_redis.restart()
        await worker.complete(claimed, Success(b'"pong"'))
        assert await call == "pong"
