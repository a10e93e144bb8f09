"""From a record to its outcome, through the lane's Kafka and Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from perdure.schemas.entries import Run
from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import InvocationId, new_invocation_id
from perdure.worker.application import Application, app
from perdure.worker.clock import SystemClock, system_random
from perdure.worker.context import Context
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from perdure.worker.service import Service
from tests.integration.deployment import Deployment, envelope, record
from tests.waiting import PATIENCE, wait_until

MS = timedelta(milliseconds=1)


class Shop:
    """A service, and counters of what it really did."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.gate = asyncio.Event()
        service = Service("Shop", invocation_retry_policy=InvocationRetryPolicy(initial_interval=20 * MS))
        service.handler()(self.buy_handler())
        service.handler("fail")(self.fail_handler())
        service.handler("flaky")(self.flaky_handler())
        service.handler("headers")(self.headers_handler())
        service.handler("gated")(self.gated_handler())
        self.application: Application = app([service])

    def buy_handler(self) -> Any:
        """A handler with several steps."""

        async def buy(ctx: Context, item: str) -> str:
            async def charge() -> str:
                self.effects[f"charge {item}"] += 1
                return f"receipt for {item}"

            reference = str(ctx.uuid())
            receipt = await ctx.run("charge", charge)
            await ctx.sleep(5 * MS)
            await asyncio.gather(
                *(ctx.run(f"notify {n}", lambda n=n: self.effects.update([f"notify {item} {n}"])) for n in range(3))
            )
            assert reference == str(ctx.request().headers.get("nothing") or reference)
            return receipt

        return buy

    def fail_handler(self) -> Any:
        """A handler that fails for good."""

        async def fail(ctx: Context) -> None:
            raise TerminalError("sold out", 410, {"item": "hat"})

        return fail

    def flaky_handler(self) -> Any:
        """A handler that needs several attempts, and a step that needs several executions."""

        async def flaky(ctx: Context, name: str) -> int:
            async def step() -> None:
                self.effects[f"step {name}"] += 1
                if self.effects[f"step {name}"] < 3:
                    raise ValueError("not yet")

            await ctx.run_typed("step", step, RunOptions(initial_retry_interval=MS))
            self.effects[f"attempt {name}"] += 1
            if self.effects[f"attempt {name}"] < 3:
                raise ValueError("not yet")
            return ctx.request().attempt

        return flaky

    def headers_handler(self) -> Any:
        """A handler that shows its request."""

        async def headers(ctx: Context) -> dict[str, Any]:
            request = ctx.request()
            raw = [[name, None if value is None else value.hex()] for name, value in request.raw_headers]
            return {"headers": dict(request.headers), "raw": raw, "key": request.idempotency_key}

        return headers

    def gated_handler(self) -> Any:
        """A handler whose step waits for the test."""

        async def gated(ctx: Context, name: str) -> str:
            async def step() -> str:
                self.effects[name] += 1
                await self.gate.wait()
                return name

            return await ctx.run("gate", step)

        return gated


@pytest.fixture
def shop() -> Shop:
    """A shop of this test's own."""
    return Shop()


async def test_a_record_by_hand_becomes_an_outcome(deployment: Deployment, shop: Shop) -> None:
    """JSON produced by anybody runs, its steps once, and its reply is produced to the topic that it names."""
    replies = deployment.topic("replies")
    async with deployment.sender(shop.application) as sender, deployment.worker(shop.application):
        topic = deployment.topic("Shop")
        for item in ("hat", "bag"):
            await sender.send(record(topic, envelope("buy", item, reply_to=replies), key=b"any"))
        await sender.send(record(topic, b'{"handler": "fail", "reply_to": "%s"}' % replies.encode()))
        found = await deployment.read(replies, lambda records: len(records) >= 3)
    answers = [orjson.loads(reply.value or b"") for reply in found]
    assert sorted(answer["value"] for answer in answers if answer["status"] == "success") == [
        "receipt for bag",
        "receipt for hat",
    ]
    failures = [answer["failure"] for answer in answers if answer["status"] == "failure"]
    assert failures == [{"code": 410, "message": "sold out", "metadata": {"item": "hat"}}]
    assert [reply.key for reply in found] == [answer["id"].encode() for answer in answers]
    assert set(shop.effects.values()) == {1}
    assert len(shop.effects) == 8


async def test_a_client_calls(deployment: Deployment, shop: Shop) -> None:
    """Results, failures and statuses come back; failed attempts and steps are retried."""
    async with deployment.worker(shop.application), deployment.client() as client:
        await _topics_exist(deployment, shop)
        assert await client.call("Shop/buy", "hat", timeout=PATIENCE) == "receipt for hat"
        with pytest.raises(TerminalError) as failure:
            await client.call("Shop/fail", timeout=PATIENCE)
        assert (failure.value.status_code, failure.value.metadata) == (410, {"item": "hat"})
        assert await client.call("Shop/flaky", "a", timeout=PATIENCE) >= 3
        handle = await client.send("Shop/flaky", "b")
        await handle.result(timeout=PATIENCE)
        assert (await handle.status()).status == "completed"
        with pytest.raises(TerminalError) as refusal:
            await client.call("Shop/buy", 7, timeout=PATIENCE)
        assert refusal.value.status_code == 400
    assert shop.effects["step a"] == shop.effects["step b"] == 3
    assert shop.effects["attempt a"] == 3


async def _topics_exist(deployment: Deployment, shop: Shop) -> None:
    async with deployment.sender(shop.application):
        pass


async def test_headers_reach_the_handler(deployment: Deployment, shop: Shop) -> None:
    """All of the record's, repeated, empty and binary ones too, and then the envelope's own."""
    headers = (("traceparent", b"00-4bf92f-01"), ("twice", b"1"), ("twice", b"2"), ("raw", b"\xff"), ("empty", b""))
    replies = deployment.topic("replies")
    value = envelope("headers", reply_to=replies, headers={"mine": "x"}, idempotency_key="k")
    async with deployment.sender(shop.application) as sender, deployment.worker(shop.application):
        await sender.send(record(deployment.topic("Shop"), value, headers=headers))
        found = await deployment.read(replies, lambda records: len(records) >= 1)
    answer = orjson.loads(found[0].value or b"")["value"]
    assert answer["raw"] == [[name, data.hex()] for name, data in (*headers, ("mine", b"x"))]
    assert answer["headers"]["traceparent"] == "00-4bf92f-01"
    assert answer["key"] == "k"


@pytest.mark.parametrize("named", ["id", "idempotency_key"])
async def test_duplicates_run_once(deployment: Deployment, shop: Shop, named: str) -> None:
    """While it runs and after it completed; each record that asks for a reply gets one."""
    replies = deployment.topic("replies")
    name = new_invocation_id("Shop", None, system_random()) if named == "id" else "order-7"
    fields: dict[str, Any] = {named: name, "reply_to": replies}
    async with deployment.sender(shop.application) as sender, deployment.worker(shop.application):
        topic = deployment.topic("Shop")
        await sender.send(record(topic, envelope("gated", "hat", **fields)))
        await wait_until(lambda: shop.effects["hat"] == 1)
        await sender.send(record(topic, envelope("gated", "hat", **fields), key=b"other partition"))
        shop.gate.set()
        first = await deployment.read(replies, lambda records: len(records) >= 1)
        await sender.send(record(topic, envelope("gated", "hat", **fields), key=b"third"))
        both = await deployment.read(replies, lambda records: len(records) >= 2)
    assert {reply.value for reply in both} == {first[0].value}
    assert shop.effects == {"hat": 1}


async def test_not_before_starts_later(plain: Deployment, shop: Shop) -> None:
    """An invocation with a start in the future is scheduled, and does not run before."""
    started: list[int] = []
    service = Service("Later")

    @service.handler()
    async def note(ctx: Context) -> None:
        started.append(SystemClock().now_ms())

    application = app([service])
    async with plain.sender(application) as sender, plain.worker(application), plain.client() as client:

        async def send(due_ms: int) -> InvocationId:
            name = new_invocation_id("Later", None, system_random())
            due = datetime.fromtimestamp(due_ms / 1000, UTC).isoformat()
            await sender.send(record(plain.topic("Later"), envelope("note", id=name, not_before=due)))
            return name

        due_ms = SystemClock().now_ms() + 700
        soon, late = await send(due_ms), await send(due_ms + 3_600_000)
        await wait_until(lambda: started, description="the first one has started")
        await client.result(soon, timeout=PATIENCE)
        async with plain.store() as store:

            async def scheduled() -> bool:
                summary = await store.read_invocation(late)
                return summary is not None and summary.fields["status"] == "scheduled"

            await wait_until(scheduled)
    assert len(started) == 1
    assert started[0] >= due_ms


async def test_the_journal_tells_the_story(plain: Deployment, shop: Shop) -> None:
    """Input, each step with its result, and the outcome, in order."""
    async with plain.sender(shop.application), plain.worker(shop.application), plain.client() as client:
        handle = await client.send("Shop/buy", "hat")
        await handle.result(timeout=PATIENCE)
        async with plain.store() as store:
            journal = [row.entry for row in await store.read_journal(handle.invocation_id)]
    assert [type(entry).__name__ for entry in journal[:4]] == ["Input", "Run", "Sleep", "Completion"]
    assert sorted(entry.name for entry in journal if isinstance(entry, Run)) == [
        "charge",
        "notify 0",
        "notify 1",
        "notify 2",
    ]
    assert type(journal[-1]).__name__ == "Output"


async def test_many_invocations_at_once(deployment: Deployment, shop: Shop) -> None:
    """More than a worker may run at once: all complete, each step once."""
    async with (
        deployment.sender(shop.application),
        deployment.worker(shop.application, concurrency=8),
        deployment.client() as client,
    ):
        calls = [client.call("Shop/buy", f"item {n}", timeout=PATIENCE) for n in range(60)]
        assert await asyncio.gather(*calls) == [f"receipt for item {n}" for n in range(60)]
    assert set(shop.effects.values()) == {1}
    assert len(shop.effects) == 240
