"""When the reply of an outcome goes to Kafka, with and without `PERDURE_REPLY_DURABLE`."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from perdure.schemas.ids import id_of_idempotency_key
from perdure.schemas.limits import PAYLOAD_BYTES_MAX
from perdure.worker.application import Application, app
from perdure.worker.broker import Record
from perdure.worker.committer import DurableBarrier
from perdure.worker.context import Context
from perdure.worker.engine import Engine
from perdure.worker.kafka_admin import create_topics
from perdure.worker.service import Service
from tests.integration.deployment import Deployment, envelope, record
from tests.waiting import PATIENCE, wait_until
from tests.worker.kafka_clients import topic_plan

MARK = b"the barrier is let go after this"


class HeldBarrier:
    """The real durable point of a worker, which nobody passes before the test lets go."""

    def __init__(self, barrier: DurableBarrier) -> None:
        self._barrier = barrier
        self.let_go = asyncio.Event()

    @property
    def lag_ms(self) -> int:
        """See `DurableBarrier`."""
        return self._barrier.lag_ms

    async def pass_(self) -> int:
        """See `DurableBarrier`."""
        await self.let_go.wait()
        return await self._barrier.pass_()


def held(engine: Engine) -> HeldBarrier:
    """Hold the durable point of a worker from now on."""
    barrier = HeldBarrier(engine._committer._barrier)
    engine._committer._barrier = barrier
    return barrier


def echoing() -> Application:
    """An application whose one handler returns its argument."""
    service = Service("Echo")

    @service.handler()
    async def echo(ctx: Context, argument: Any = None) -> Any:
        return argument

    @service.handler()
    async def bulky(ctx: Context) -> bytes:
        return b"\x00" * PAYLOAD_BYTES_MAX

    return app([service])


def values_of(replies: list[Record]) -> list[Any]:
    """What is in a reply topic, in order."""
    return [MARK if reply.value == MARK else orjson.loads(reply.value or b"")["value"] for reply in replies]


async def test_a_durable_reply_waits_for_the_durable_point(plain: Deployment) -> None:
    """The outcome is in Redis and clients have it; its reply is produced once a power loss cannot take it back."""
    application, replies = echoing(), plain.topic("replies")
    await create_topics(plain.settings.kafka_config(client_id="by-hand"), [topic_plan(replies)])
    async with (
        plain.sender(application) as sender,
        plain.worker(application, reply_durable=True) as engine,
        plain.client() as client,
    ):
        assert await client.call("Echo/echo", 0, timeout=PATIENCE) == 0
        barrier = held(engine)
        await sender.send(record(plain.topic("Echo"), envelope("echo", 1, reply_to=replies)))
        await wait_until(lambda: not engine._replies.idle, description="the outcome is recorded")
        assert await client.call("Echo/echo", 2, timeout=PATIENCE) == 2
        await engine._outbox.emptied()
        await sender.send(record(replies, MARK))
        barrier.let_go.set()
        found = await plain.read(replies, lambda records: len(records) >= 2)
        await wait_until(lambda: engine._replies.idle, description="the reply is acknowledged")
    assert values_of(found) == [MARK, 1]


async def test_any_other_reply_is_produced_at_once(plain: Deployment) -> None:
    """Nothing passes the durable point, and the reply is there."""
    application, replies = echoing(), plain.topic("replies")
    async with plain.sender(application) as sender, plain.worker(application, reply_durable=False) as engine:
        await wait_until(lambda: engine._committer._connection is not None, description="the worker has begun")
        barrier = held(engine)
        await sender.send(record(plain.topic("Echo"), envelope("echo", 1, reply_to=replies)))
        found = await plain.read(replies, lambda records: len(records) >= 1)
        assert not barrier.let_go.is_set()
        barrier.let_go.set()
    assert values_of(found) == [1]


async def test_an_outcome_that_no_reply_can_hold_is_told_so(plain: Deployment) -> None:
    """Bytes grow by a third on their way: the reply says so, a repeated record moves on, clients have the result."""
    application, replies = echoing(), plain.topic("replies")
    await create_topics(plain.settings.kafka_config(client_id="by-hand"), [topic_plan(replies)])
    wanted = record(plain.topic("Echo"), envelope("bulky", idempotency_key="k", reply_to=replies), key=b"k")
    id_ = id_of_idempotency_key("Echo", "bulky", None, idempotency_key="k")
    async with plain.sender(application) as sender, plain.worker(application) as engine, plain.client() as client:
        for told in (1, 2):
            await sender.send(wanted)
            found = await plain.read(replies, lambda records, told=told: len(records) >= told)  # type: ignore[misc]
            reply = orjson.loads(found[-1].value or b"")
            assert (reply["id"], reply["status"], reply["failure"]["code"]) == (id_, "failure", 413)
            assert "ask for it by its id" in reply["failure"]["message"]
        await wait_until(lambda: engine._committer._offsets.backlog == 0, description="the offsets may move")
        await wait_until(lambda: engine._replies.idle, description="nothing is owed any more")
        assert len(await client.result(id_, timeout=PATIENCE)) == PAYLOAD_BYTES_MAX
