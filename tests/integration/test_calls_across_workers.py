"""Workers that run different services: calls, sends, answers and cancellations go through Kafka and Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from perdure.schemas.errors import TerminalError
from perdure.worker.application import Application, app
from perdure.worker.client import Client
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext, ObjectSharedContext
from perdure.worker.serde import BytesSerde
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

MOMENT = timedelta(milliseconds=100)


class Parties:
    """Two applications that know each other by name only."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.blocked = asyncio.Event()
        near, far, shelf = Service("Near"), Service("Far"), VirtualObject("Shelf")

        @far.handler(input_serde=BytesSerde(), output_serde=BytesSerde())
        async def echo(ctx: Context, data: bytes) -> bytes:
            self.seen[ctx.request().headers.get("who", "nobody")] += 1
            return data

        @far.handler()
        async def fails(ctx: Context) -> None:
            raise TerminalError("out of stock", 418, {"shelf": "3"})

        @far.handler()
        async def waits(ctx: Context) -> str:
            self.blocked.set()
            try:
                await ctx.sleep(timedelta(minutes=5))
            except TerminalError:
                await ctx.run("tidy up", lambda: self.seen.update(["tidied"]))
                raise
            return "woke"

        @shelf.handler()
        async def put(ctx: ObjectContext, item: str) -> list[str]:
            items = [*(await ctx.get("items", type_hint=list[str]) or []), item]
            ctx.set("items", items)
            return items

        @shelf.handler(kind="shared")
        async def look(ctx: ObjectSharedContext) -> list[str]:
            return await ctx.get("items", type_hint=list[str]) or []

        @near.handler()
        async def calls(ctx: Context) -> list[str]:
            first = ctx.generic_call("Far", "echo", b"\x00\xff", headers={"who": "near"})
            ctx.generic_send("Shelf", "put", b'"later"', key="b", send_delay=MOMENT)
            second = await ctx.generic_call("Shelf", "put", b'"now"', key="a")
            try:
                await ctx.generic_call("Far", "fails", b"")
            except TerminalError as error:
                return [(await first).hex(), second.decode(), f"{error.status_code} {error.message} {error.metadata}"]
            return ["it did not fail"]

        @near.handler()
        async def cancels(ctx: Context) -> str:
            call = ctx.generic_call("Far", "waits", b"")
            await ctx.run("until it waits", self.blocked.wait)
            await call.cancel_invocation()
            try:
                await call
            except TerminalError as error:
                return f"{error.status_code}"
            return "it went on"

        self.near: Application = app([near])
        self.far: Application = app([far, shelf])


@pytest.fixture
def parties() -> Parties:
    """Parties of this test's own."""
    return Parties()


@asynccontextmanager
async def running(deployment: Deployment, parties: Parties) -> AsyncIterator[Client]:
    """A worker for each party."""
    async with (
        deployment.sender(parties.near),
        deployment.sender(parties.far),
        deployment.worker(parties.near),
        deployment.worker(parties.far),
        deployment.client() as client,
    ):
        yield client


async def test_calls_reach_services_of_other_workers(deployment: Deployment, parties: Parties) -> None:
    """Arguments that are no JSON, headers, keys, delays, results and failures arrive as they were sent, once."""
    async with running(deployment, parties) as client:
        assert await client.call("Near/calls", timeout=PATIENCE) == [
            "00ff",
            '["now"]',
            "418 out of stock {'shelf': '3'}",
        ]

        async def arrived() -> bool:
            return bool(await client.call("Shelf/look", key="b", timeout=PATIENCE) == ["later"])

        await wait_until(arrived, description="the delayed send has arrived")
        assert parties.seen == {"near": 1}


async def test_a_cancellation_reaches_another_worker(deployment: Deployment, parties: Parties) -> None:
    """The callee ends with 409 after it has tidied up, and its caller is told."""
    async with running(deployment, parties) as client:
        assert await client.call("Near/cancels", timeout=PATIENCE) == "409"
        await wait_until(lambda: parties.seen["tidied"] == 1)


async def test_a_cancelled_caller_cancels_its_callee(deployment: Deployment, parties: Parties) -> None:
    """Cancelling a caller goes on to what it called and waits for, wherever that runs."""
    service = Service("Outer")

    @service.handler()
    async def calls(ctx: Context) -> None:
        await ctx.generic_call("Far", "waits", b"")

    parties.near = app([service])
    async with running(deployment, parties) as client:
        handle = await client.send("Outer/calls")
        await wait_until(parties.blocked.is_set)
        await client.cancel(handle.invocation_id)
        with pytest.raises(TerminalError) as error:
            await handle.result(timeout=PATIENCE)
        assert error.value.status_code == 409
        await wait_until(lambda: parties.seen["tidied"] == 1)
