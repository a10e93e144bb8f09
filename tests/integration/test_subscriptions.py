"""Any existing topic invokes a handler, each record once: over restarts, rebalances, failures, full queues."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.worker.broker import Headers, Record
from perdure.worker.kafka_admin import describe_cluster
from perdure.worker.main import worker_engine
from perdure.worker.subscriptions import Subscription
from tests.integration.deployment import Deployment
from tests.integration.shop import Order, Shop, settled, topic_of
from tests.waiting import PATIENCE, wait_until
from tests.worker.kafka_clients import SESSION_TIMEOUT_MS

HEADERS: Headers = (
    ("traceparent", b"00-4bf92f-01"),
    ("twice", b"1"),
    ("twice", b"2"),
    ("raw", b"\xff"),
    ("none", None),
)


@pytest.fixture
def shop() -> Shop:
    """A shop of this test's own."""
    return Shop()


@pytest.fixture
def fleet(plain: Deployment) -> Deployment:
    """A deployment whose workers share partitions, and notice soon that one has gone."""
    changes = {"kafka_assignment": "group", "kafka_session_timeout_ms": SESSION_TIMEOUT_MS}
    plain.settings = plain.settings.model_copy(update=changes)
    return plain


async def test_handlers_are_given_the_whole_record(deployment: Deployment, shop: Shop) -> None:
    """The value by the handler's type, all headers, and where the record stands; in every attempt."""
    async with topic_of(deployment) as orders:
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/order"))
        async with deployment.worker(application):
            before_ms = int(datetime.now(UTC).timestamp() * 1000)
            await orders.send(b' {"number": 7}\n', key=b"\xffkey", headers=HEADERS)
            await wait_until(lambda: shop.requests, description="the record is processed")
    request = shop.requests[0]
    assert shop.seen[0] == Order(number=7)
    assert request.body == b' {"number": 7}\n'
    assert request.raw_headers == HEADERS
    assert request.headers["twice"] == "2"
    assert request.source is not None
    assert request.source[:3] == (orders.topic, 0, 0)
    assert request.source.key == b"\xffkey"
    assert abs(request.source.timestamp_ms - before_ms) < 60_000


@pytest.mark.parametrize(("handler", "expected"), [("raw", b"\x00\xffx"), ("digits", "00ff78")])
async def test_values_need_not_be_json(plain: Deployment, shop: Shop, handler: str, expected: object) -> None:
    """Bytes as they are, or by a serde of the user's own; a null value is none."""
    async with topic_of(plain) as orders:
        application = shop.application(Subscription(topic=orders.topic, handler=f"Shop/{handler}"))
        async with plain.worker(application):
            await orders.send(b"\x00\xffx")
            await orders.send(None, key=b"tombstone")
            await wait_until(lambda: len(shop.seen) == 2, description="both are processed")
    assert shop.seen[0] == expected
    assert not shop.seen[1]


async def test_each_record_is_processed_once_over_restarts(plain: Deployment, shop: Shop) -> None:
    """A worker stops in the middle, and the next one goes on behind what was admitted."""
    async with topic_of(plain, partitions=2) as orders:
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/count"))
        await orders.numbers(range(40), partitions=2)
        async with plain.worker(application, concurrency=4):
            await wait_until(lambda: shop.effects.total() >= 10, description="some are processed")
        await orders.numbers(range(40, 60), partitions=2)
        async with plain.worker(application) as engine:
            await wait_until(lambda: len(shop.effects) == 60, description="all are processed")
            await wait_until(settled(engine), description="all is durable")
        async with plain.worker(application):
            await orders.numbers([60])
            await wait_until(lambda: shop.effects["60"], description="the last is processed")
    assert set(shop.effects.values()) == {1}


async def test_each_record_is_processed_once_though_a_worker_dies(plain: Deployment, shop: Shop) -> None:
    """What it had taken goes on elsewhere when its leases end; no step is executed again that was recorded."""
    async with topic_of(plain, partitions=2) as orders:
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/count"))
        await orders.numbers(range(30), partitions=2)
        async with worker_engine(application, plain.settings, plain.around) as engine:
            running = asyncio.create_task(engine.run())
            await wait_until(lambda: shop.effects.total() >= 10, description="some are processed")
            shop.gate.clear()
            await orders.numbers(range(30, 40), partitions=2)
            await wait_until(lambda: shop.running.total() >= 10, description="others have begun")
            running.cancel()
            await asyncio.wait([running])
        shop.gate.set()
        async with plain.worker(application):
            await wait_until(lambda: len(shop.effects) == 40, description="all are processed")
    assert set(shop.effects.values()) == {1}


async def test_each_record_is_processed_once_over_rebalances(fleet: Deployment, shop: Shop) -> None:
    """Workers come and go while records arrive, and what Kafka delivers again is known."""
    async with topic_of(fleet, partitions=4) as orders:
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/count"))
        async with fleet.worker(application):
            await orders.numbers(range(50), partitions=4)
            await wait_until(lambda: shop.effects, description="the first worker works")
            async with fleet.worker(application) as second:
                await orders.numbers(range(50, 100), partitions=4)
                took_over = second._sources[1].committer.held
                await wait_until(lambda: took_over(orders.topic), description="the second one, too")
                await orders.numbers(range(100, 150), partitions=4)
            await wait_until(lambda: len(shop.effects) == 150, description="all are processed")
    assert set(shop.effects.values()) == {1}


@pytest.mark.parametrize(("start", "expected"), [("earliest", range(6)), ("latest", range(3, 6))])
async def test_where_a_group_begins(plain: Deployment, shop: Shop, start: Any, expected: range) -> None:
    """And `latest` is the moment of the first worker: nothing that came since is lost when it stops at once."""
    async with topic_of(plain, partitions=2) as orders:
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/count", start=start))
        await orders.numbers(range(3), partitions=2)
        async with plain.worker(application) as engine:
            await wait_until(lambda: len(engine._sources[1].committer.held(orders.topic)) == 2)
        await orders.numbers([3, 4], partitions=2)
        async with plain.worker(application):
            await orders.numbers([5], partitions=2)
            await wait_until(lambda: {"3", "4", "5"} <= set(shop.effects), description="what came since is processed")
    assert sorted(map(int, shop.effects.elements())) == list(expected)


async def test_members_of_a_group_begin_where_the_first_one_said(fleet: Deployment, shop: Shop) -> None:
    """A second worker takes partitions over of which nothing is committed, and begins at the first one's moment."""
    async with topic_of(fleet, partitions=4) as orders:
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/count", start="latest"))
        await orders.numbers(range(8), partitions=4)
        async with fleet.worker(application) as first:
            held = first._sources[1].committer.held
            await wait_until(lambda: len(held(orders.topic)) == 4, description="it holds all")
            async with fleet.worker(application) as second:
                took_over = second._sources[1].committer.held
                await wait_until(lambda: took_over(orders.topic), description="they share them")
                await orders.numbers(range(8, 16), partitions=4)
                await wait_until(lambda: len(shop.effects) >= 8, description="what came since")
    assert shop.effects == {str(number): 1 for number in range(8, 16)}


async def test_a_group_begins_at_a_time(plain: Deployment, shop: Shop) -> None:
    """With the first record of that time or later."""
    async with topic_of(plain) as orders:
        await orders.numbers([0, 1])
        found = await plain.read(orders.topic, lambda records: len(records) >= 2)
        # The embedded broker goes by when a record arrived, which is some milliseconds later.
        start = datetime.fromtimestamp(found[-1].timestamp_ms / 1000, UTC) + timedelta(milliseconds=100)
        await wait_until(lambda: datetime.now(UTC) > start, description="the clock went on")
        await orders.numbers([2])
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/count", start=start))
        async with plain.worker(application):
            await orders.numbers([3])
            await wait_until(lambda: len(shop.effects) >= 2, description="the later ones are processed")
    assert set(shop.effects) == {"2", "3"}


async def test_a_group_may_begin_in_the_future(plain: Deployment, shop: Shop) -> None:
    """Then it begins at the end, and what comes is processed."""
    async with topic_of(plain) as orders:
        await orders.numbers([0, 1])
        start = datetime.now(UTC) + timedelta(days=1)
        application = shop.application(Subscription(topic=orders.topic, handler="Shop/count", start=start))
        async with plain.worker(application) as engine:
            await wait_until(lambda: engine._sources[1].committer.held(orders.topic), description="it has begun")
            await orders.numbers([2])
            await wait_until(lambda: shop.effects, description="it is processed")
    assert set(shop.effects) == {"2"}


@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_records_of_a_service_run_in_order(plain: Deployment, shop: Shop, ordering: Any) -> None:
    """One after the other in each partition, or for each key; those of different ones at the same time."""
    async with topic_of(plain, partitions=2) as orders:
        subscription = Subscription(topic=orders.topic, handler="Shop/count", ordering=ordering)
        shop.gate.clear()
        async with plain.worker(shop.application(subscription)):
            await orders.numbers(range(30), partitions=2, keys=2 if ordering == "partition" else 6)
            lanes = 2 if ordering == "partition" else 6
            await wait_until(lambda: len(shop.order) == lanes, description="each lane has begun")
            shop.gate.set()
            await wait_until(lambda: len(shop.effects) == 30, description="all are processed")
    assert shop.together == 1
    assert all(numbers == sorted(numbers) for numbers in shop.order.values())
    assert set(shop.effects.values()) == {1}


async def test_without_an_order_they_run_together(plain: Deployment, shop: Shop) -> None:
    """As many as the worker has room for."""
    async with topic_of(plain) as orders:
        shop.gate.clear()
        async with plain.worker(shop.application(Subscription(topic=orders.topic, handler="Shop/count"))):
            await orders.numbers(range(10))
            await wait_until(lambda: shop.together == 10, description="all run at once")
            shop.gate.set()


async def test_the_records_key_is_the_objects(plain: Deployment, shop: Shop) -> None:
    """In the order of the partition for each key; a key that is none goes to the dead letters and holds up nothing."""
    async with topic_of(plain) as orders:
        subscription = Subscription(topic=orders.topic, handler="Basket/add")
        async with plain.worker(shop.application(subscription)):
            for bad in (None, b"", b"\xff", b"x" * 600):
                await orders.send(b"99", key=bad, headers=HEADERS)
            await orders.numbers(range(20), keys=3)
            await wait_until(lambda: len(shop.effects) == 20, description="all with a key are processed")
            letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= 4)
    assert {letter.key for letter in letters} == {None, b"", b"\xff", b"x" * 600}
    assert {letter.value for letter in letters} == {b"99"}
    assert all(letter.headers[: len(HEADERS)] == HEADERS for letter in letters)
    assert shop.order == {f"k{key}": list(range(key, 20, 3)) for key in range(3)}


async def test_a_terminal_failure_may_become_a_dead_letter(deployment: Deployment, shop: Shop) -> None:
    """Once, as it came, with the failure; successes do not, and neither do those that keep their failures."""
    async with topic_of(deployment) as orders:
        burying = Subscription(topic=orders.topic, handler="Shop/refuse", on_terminal_failure="dead-letter")
        keeping = Subscription(topic=orders.topic, handler="Shop/refuse", group="keeping")
        dead = deployment.topic("dead")
        async with deployment.worker(shop.application(burying, keeping)) as engine:
            for number in range(4):
                await orders.send(b"%d" % number, key=b"k%d" % number, headers=HEADERS)
            letters = await deployment.read(dead, lambda records: len({letter.key for letter in records}) >= 2)
            await orders.send(b"no number", key=b"last")
            letters = await deployment.read(dead, lambda records: len({letter.key for letter in records}) >= 3)
            await wait_until(lambda: engine._replies.idle, description="all is acknowledged")
    assert [(letter.key, letter.value) for letter in letters] == [(b"k1", b"1"), (b"k3", b"3"), (b"last", b"no number")]
    assert letters[0].headers[: len(HEADERS)] == HEADERS
    about = about_of(letters[0])
    assert about["perdure-reason"] == b"1 is odd"
    assert about["perdure-code"] == b"422"
    assert about["perdure-handler"] == b"Shop/refuse"
    assert about["perdure-topic"] == orders.topic.encode()
    assert about["perdure-offset"] == b"1"
    assert (about["perdure-invocation"] or b"").startswith(b"inv_")


def about_of(letter: Record) -> dict[str, bytes | None]:
    """Headers that were added on the way."""
    return {name: value for name, value in letter.headers if name.startswith("perdure-")}


async def test_subscriptions_come_and_go(plain: Deployment, shop: Shop) -> None:
    """What came while there was none is processed when it is back, and nothing twice."""
    async with topic_of(plain) as orders:
        subscription = Subscription(topic=orders.topic, handler="Shop/count")
        await orders.numbers(range(5))
        async with plain.sender(shop.application()), plain.worker(shop.application()), plain.client() as client:
            await client.call("Shop/refuse", 0, timeout=PATIENCE)
        assert not shop.effects
        async with plain.worker(shop.application(subscription)) as engine:
            await wait_until(lambda: len(shop.effects) == 5, description="all are processed")
            await wait_until(settled(engine), description="all is durable")
        async with plain.worker(shop.application()), plain.client() as client:
            await orders.numbers(range(5, 10))
            await client.call("Shop/refuse", 0, timeout=PATIENCE)
        async with plain.worker(shop.application(subscription)):
            await wait_until(lambda: len(shop.effects) == 10, description="the others are processed, too")
    assert set(shop.effects.values()) == {1}


async def test_two_groups_process_a_record_once_each(plain: Deployment, shop: Shop) -> None:
    """Two handlers of one topic, each with a group of its own."""
    async with topic_of(plain) as orders:
        both = [Subscription(topic=orders.topic, handler=handler) for handler in ("Shop/count", "Shop/raw")]
        async with plain.worker(shop.application(*both)):
            await orders.numbers(range(5))
            await wait_until(lambda: len(shop.effects) == 5 and len(shop.seen) == 5, description="both have all")
    assert set(shop.effects.values()) == {1}


async def test_a_full_queue_holds_its_partition_back_and_no_other(
    plain: Deployment, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """In order and visibly; what waits in Kafka is admitted when there is room."""
    caplog.set_level("INFO", logger="perdure.worker.intake")
    async with topic_of(plain, partitions=2) as orders:
        basket = Subscription(topic=orders.topic, handler="Basket/add")
        shop.gate.clear()
        async with plain.worker(shop.application(basket, queue_max=2)):
            for number in range(20):
                await orders.send(b"%d" % number, key=b"hot", partition=0)
            await wait_until(lambda: "is full" in caplog.text, description="the queue is full")
            for number in range(20, 22):
                await orders.send(b"%d" % number, key=b"cold", partition=1)
            await wait_until(lambda: shop.order["cold"], description="another partition goes on")
            assert shop.order["hot"] == [0]
            shop.gate.set()
            await wait_until(lambda: len(shop.effects) == 22, description="all are processed")
    assert shop.order["hot"] == list(range(20))
    assert shop.together == 1
    assert len([line for line in caplog.messages if "is full" in line]) >= 1
    assert len([line for line in caplog.messages if "goes on" in line]) >= 1


async def test_a_topic_that_is_not_there_is_waited_for(plain: Deployment, shop: Shop) -> None:
    """It is not created, nothing else waits, and it is read once somebody has made it."""
    topic = f"{plain.settings.namespace}-orders"
    config = plain.settings.kafka_config(client_id="somebody-else")
    subscription = Subscription(topic=topic, handler="Shop/count")
    application = shop.application(subscription)
    async with plain.sender(application), plain.worker(application), plain.client() as client:
        assert await client.call("Shop/refuse", 0, timeout=PATIENCE) == 0
        assert (await describe_cluster(config, [topic])).topics == {}
        async with topic_of(plain) as orders:
            await orders.numbers([1])
            await wait_until(lambda: shop.effects["1"], description="it is read")
