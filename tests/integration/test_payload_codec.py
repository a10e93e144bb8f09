"""A payload codec over every value: nothing that handlers handle stands readable in Redis or Kafka."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
import pytest

from perdure.journal.redis_store import RedisStore
from perdure.schemas.commands import Call
from perdure.schemas.entries import Output, Success
from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import InvocationId
from perdure.worker.application import Application, app
from perdure.worker.client import Client
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext, WorkflowContext, WorkflowSharedContext
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.sealing import Sealer
from perdure.worker.service import Service
from perdure.worker.subscriptions import Subscription
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow
from tests.integration.deployment import Deployment
from tests.integration.shop import topic_of
from tests.waiting import PATIENCE, wait_until

SECRET = "hush-hush"


class Scrambler(PayloadCodec):
    """Compresses, and turns every byte around: enough to make text unreadable."""

    applies_to_failures = True

    def encode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec.encode`."""
        return bytes(byte ^ 0x5A for byte in zlib.compress(data))

    def decode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec.decode`."""
        return zlib.decompress(bytes(byte ^ 0x5A for byte in data))


def secretive() -> Application:
    """Everything that a value can go through."""
    service, box, flow = Service("Teller"), VirtualObject("Box"), Workflow("Flow")

    @box.handler()
    async def put(ctx: ObjectContext, text: str) -> str:
        before = await ctx.get("text", type_hint=str)
        ctx.set("text", text)
        return f"{before} then {await ctx.get('text', type_hint=str)}"

    @flow.main()
    async def run(ctx: WorkflowContext, text: str) -> str:
        return text + await ctx.promise("more", type_hint=str)

    @flow.handler()
    async def tell(ctx: WorkflowSharedContext, text: str) -> None:
        await ctx.promise("more", type_hint=str).resolve(text)

    @service.handler()
    async def fails(ctx: Context, text: str) -> None:
        raise TerminalError(f"no {text}", 418, {"about": text})

    @service.handler()
    async def tour(ctx: Context, key: str) -> list[Any]:
        async def step() -> str:
            return SECRET

        name, awakeable = ctx.awakeable(type_hint=str)
        ctx.resolve_awakeable(name, SECRET)
        running = ctx.workflow_call(run, key, SECRET)
        await ctx.workflow_call(tell, key, SECRET)
        results: list[Any] = [await ctx.run("step", step), await awakeable, await running]
        results += [await ctx.object_call(put, key, SECRET), await ctx.object_call(put, key, SECRET)]
        try:
            await ctx.service_call(fails, SECRET)
        except TerminalError as error:
            results += [error.message, error.status_code, error.metadata]
        return results

    return app([service, box, flow], payload_codec=Scrambler())


async def test_what_a_kill_leaves_is_sealed_as_other_failures(plain: Deployment) -> None:
    """By a client of the application, and by its workers for what was called; both read it as it was."""
    service = Service("Waiting")

    @service.handler()
    async def waits(ctx: Context) -> None:
        await ctx.signal("go")

    @service.handler()
    async def calls(ctx: Context) -> None:
        await ctx.service_call(waits, None)

    application = app([service], payload_codec=Scrambler())
    async with (
        plain.sender(application),
        plain.worker(application),
        Client(plain.settings, payload_codec=Scrambler()) as client,
        plain.store() as store,
    ):
        handle = await client.send(calls)

        await wait_until(lambda: known(store, handle.invocation_id), description="the caller is there")

        async def callee() -> str:
            calls = [row.entry async for row in client.journal(handle.invocation_id) if isinstance(row.entry, Call)]
            return calls[0].invocation_id if calls else ""

        await wait_until(callee, description="the callee is called")
        called = await callee()
        await wait_until(lambda: known(store, called), description="the callee is there")
        await client.kill(handle.invocation_id)
        for invocation_id, message in ((handle.invocation_id, "killed"), (called, "killed with its caller")):
            with pytest.raises(TerminalError, match=f"^{message}$"):
                await client.result(invocation_id, timeout=PATIENCE)
            (*_, last) = await store.read_journal(InvocationId(invocation_id))
            assert isinstance(last.entry, Output)
            assert "killed" not in str(last.entry.outcome)


async def known(store: RedisStore, invocation_id: str) -> bool:
    """Whether an invocation was admitted."""
    return await store.read_invocation(InvocationId(invocation_id)) is not None


async def test_no_value_can_be_read(deployment: Deployment) -> None:
    """Steps, calls, state, promises, awakeables, results and failures arrive whole, and are nowhere in the clear."""
    application = secretive()
    async with (
        deployment.sender(application),
        deployment.worker(application),
        deployment.client() as client,
        deployment.store() as store,
    ):
        # By hand, so that the argument itself is no secret: what producers write in the clear is read as it is.
        handle = await client.send("Teller/tour", "key")

        async def done() -> bool:
            return (
                bool(await store.list_invocations("completed", invocations_max=1))
                and (await handle.status()).status == "completed"
            )

        await wait_until(done, description="the tour is complete")
        kept: list[str] = [str(await store.read_state("Box/key")), str(await store.peek_promise("Flow/key", "more"))]
        for summary in await store.list_invocations("completed", invocations_max=100):
            kept.append(str(summary.fields))
            kept += map(str, await store.read_journal(summary.invocation_id))
        assert len(kept) > 20
        assert SECRET not in " ".join(kept)
        (*_, last) = await store.read_journal(handle.invocation_id)
        assert isinstance(last.entry, Output)
        opened = Sealer(Scrambler()).open_outcome(last.entry.outcome)
        assert isinstance(opened, Success)
        put = [f"None then {SECRET}", f"{SECRET} then {SECRET}"]
        failure = [f"no {SECRET}", 418, {"about": SECRET}]
        assert orjson.loads(opened.value) == [SECRET, SECRET, SECRET * 2, *put, *failure]


async def test_subscribed_records_come_through(plain: Deployment) -> None:
    """Their handlers read what was produced, which is kept sealed; what fails is a letter with what was produced."""
    seen: list[str] = []
    service = Service("Desk")

    @service.handler()
    async def take(ctx: Context, text: str) -> None:
        seen.append(text)
        if text == "odd":
            raise TerminalError("it is odd")

    async with topic_of(plain) as orders:
        subscription = Subscription(topic=orders.topic, handler=take, on_terminal_failure="dead-letter")
        application = app([service], payload_codec=Scrambler(), subscriptions=[subscription])
        async with plain.worker(application), plain.store() as store:
            for text in (SECRET, "odd"):
                await orders.send(orjson.dumps(text))
            await wait_until(lambda: len(seen) == 2, description="both are read")
            letters = await plain.read(plain.topic("dead"), lambda records: len(records) >= 1)
            for summary in await store.list_invocations("completed", invocations_max=100):
                assert SECRET not in str(await store.read_journal(summary.invocation_id))
    assert sorted(seen) == [SECRET, "odd"]
    assert [letter.value for letter in letters] == [b'"odd"']
