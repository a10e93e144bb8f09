"""A shop whose handlers write down what records of subscribed topics bring them, and a hand that produces those."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from pydantic import BaseModel

from perdure.schemas.errors import TerminalError
from perdure.worker.application import Application, app
from perdure.worker.broker import Headers, Outgoing
from perdure.worker.context import Context, Request
from perdure.worker.kafka_admin import create_topics, describe_cluster
from perdure.worker.options import RunOptions
from perdure.worker.record_source import RecordSource
from perdure.worker.sender import Sender
from perdure.worker.serde import Serde
from perdure.worker.service import Service
from perdure.worker.subscriptions import Subscription
from perdure.worker.virtual_object import VirtualObject
from tests.integration.deployment import Deployment
from tests.waiting import wait_until
from tests.worker.kafka_clients import topic_plan


class Order(BaseModel):
    """What an order is."""

    number: int


class Hex(Serde[str]):
    """Bytes as their hexadecimal digits: a format of the user's own."""

    def serialize(self, obj: str | None) -> bytes:
        """See `Serde`."""
        return bytes.fromhex(obj or "")

    def deserialize(self, buf: bytes) -> str:
        """See `Serde`."""
        return buf.hex()


class Shop:
    """A service and an object that write down what they are invoked with."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.requests: list[Request] = []
        self.effects: Counter[str] = Counter()
        self.order: defaultdict[str, list[int]] = defaultdict(list)
        self.running: Counter[str] = Counter()
        self.together = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def work(self, ctx: Context, number: int, lane: str) -> None:
        """A step for each record; notes which ran at the same time, and in which order they began."""

        async def step() -> None:
            self.order[lane].append(number)
            self.running[lane] += 1
            self.together = max(self.together, self.running[lane])
            await self.gate.wait()
            self.running[lane] -= 1
            self.effects[str(number)] += 1

        await ctx.run_typed("work", step, RunOptions())

    def application(self, *subscriptions: Subscription, queue_max: int | None = None) -> Application:
        """Made anew for each worker, as each process would."""
        service, basket = Service("Shop"), VirtualObject("Basket", queue_max=queue_max)

        @service.handler()
        async def order(ctx: Context, order: Order) -> None:
            self.seen.append(order)
            self.requests.append(ctx.request())

        @service.handler()
        async def raw(ctx: Context, value: bytes) -> None:
            self.seen.append(value)

        @service.handler(input_serde=Hex())
        async def digits(ctx: Context, value: str) -> None:
            self.seen.append(value)

        @service.handler()
        async def count(ctx: Context, number: int) -> None:
            source = ctx.request().source
            assert source is not None
            await self.work(ctx, number, lane(source))

        @service.handler()
        async def refuse(ctx: Context, number: int) -> int:
            if number % 2:
                raise TerminalError(f"{number} is odd", 422)
            return number

        @basket.handler()
        async def add(ctx: Context, number: int) -> None:
            source = ctx.request().source
            assert source is not None
            await self.work(ctx, number, (source.key or b"").decode())

        return app([service, basket], subscriptions=subscriptions)


def lane(source: RecordSource) -> str:
    """Where a record is in order with others."""
    return f"{source.partition} {(source.key or b'-').decode()}"


@dataclasses.dataclass
class Feeder:
    """Produces to one topic."""

    topic: str
    sender: Sender

    async def send(
        self, value: bytes | None, *, key: bytes | None = None, headers: Headers = (), partition: int | None = None
    ) -> None:
        """Produce one record."""
        await self.sender.send(Outgoing(self.topic, key, value, headers, partition))

    async def numbers(self, numbers: Iterable[int], *, partitions: int = 1, keys: int | None = None) -> None:
        """One record a number; the partition goes round, the key too."""
        for number in numbers:
            key = None if keys is None else b"k%d" % (number % keys)
            await self.send(b"%d" % number, key=key, partition=number % partitions)


@contextlib.asynccontextmanager
async def topic_of(deployment: Deployment, name: str = "orders", *, partitions: int = 1) -> AsyncIterator[Feeder]:
    """A topic of somebody else's, and a hand that produces to it."""
    topic = f"{deployment.settings.namespace}-{name}"
    config = deployment.settings.kafka_config(client_id="somebody-else")
    await create_topics(config, [topic_plan(topic, partitions=partitions)])

    async def known() -> bool:
        return (await describe_cluster(config, [topic])).topics.get(topic) == partitions

    await wait_until(known, description="the brokers know the topic")
    async with Sender(config) as sender:
        yield Feeder(topic, sender)


def settled(engine: Any) -> Callable[[], bool]:
    """Whether every record's offset has moved that a worker has taken."""
    return lambda: not any(source.committer._unvouched for source in engine._sources)
