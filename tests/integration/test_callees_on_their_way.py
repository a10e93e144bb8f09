"""What is done to an invocation whose record still waits in Kafka: it is not there yet, and not gone either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from perdure.schemas.errors import InvocationNotFoundError, TerminalError
from perdure.worker.application import Application, app
from perdure.worker.client import Client
from perdure.worker.context import Context
from perdure.worker.service import Service
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

AT_ONCE = timedelta()


def near() -> Application:
    """Callers, which know their callees by name."""
    service = Service("Near", inactivity_timeout=AT_ONCE)

    @service.handler()
    async def cancels(ctx: Context) -> str:
        call = ctx.generic_call("Far", "waits", b"")
        await call.cancel_invocation()
        try:
            await call
        except TerminalError as error:
            return str(error.status_code)
        return "it went on"

    @service.handler()
    async def attaches(ctx: Context) -> str:
        sent = await ctx.generic_send("Far", "greets", b"").invocation_id()
        return await ctx.attach_invocation(sent, type_hint=str)

    @service.handler()
    async def signals(ctx: Context) -> str:
        sent = await ctx.generic_send("Far", "waits", b"").invocation_id()
        ctx.resolve_signal(sent, "go", "there it is")
        return await ctx.attach_invocation(sent, type_hint=str)

    @service.handler()
    async def calls(ctx: Context) -> bytes:
        return await ctx.generic_call("Far", "waits", b"")

    return app([service])


def far() -> Application:
    """Callees."""
    service = Service("Far")

    @service.handler()
    async def greets(ctx: Context) -> str:
        return "hello"

    @service.handler()
    async def waits(ctx: Context) -> str:
        return await ctx.signal("go", type_hint=str)

    return app([service])


@asynccontextmanager
async def waiting(deployment: Deployment, handler: str) -> AsyncIterator[tuple[Client, str]]:
    """A caller that has suspended, and whose callee's worker only runs inside the block."""
    async with (
        deployment.sender(far()),
        deployment.sender(near()),
        deployment.worker(near()),
        deployment.client() as client,
    ):
        handle = await client.send(f"Near/{handler}")

        async def waits() -> bool:
            return await status_of(client, handle.invocation_id) in ("suspended", "completed")

        await wait_until(waits, description="the caller waits")
        yield client, handle.invocation_id


async def status_of(client: Client, invocation_id: str) -> str:
    """The status of an invocation; empty while there is none."""
    try:
        return (await client.status(invocation_id)).status
    except InvocationNotFoundError:
        return ""


async def test_cancelled_before_it_was_admitted(deployment: Deployment) -> None:
    """The cancellation is brought when the callee is there."""
    async with waiting(deployment, "cancels") as (client, caller), deployment.worker(far()):
        assert await client.result(caller, timeout=PATIENCE) == "409"


async def test_attached_to_before_it_was_admitted(deployment: Deployment) -> None:
    """The outcome comes, instead of a 404 for what was sent a moment ago."""
    async with waiting(deployment, "attaches") as (client, caller), deployment.worker(far()):
        assert await client.result(caller, timeout=PATIENCE) == "hello"


async def test_signalled_before_it_was_admitted(deployment: Deployment) -> None:
    """The signal is kept for it."""
    async with waiting(deployment, "signals") as (client, caller), deployment.worker(far()):
        assert await client.result(caller, timeout=PATIENCE) == "there it is"


async def test_killed_with_its_caller_before_it_was_admitted(deployment: Deployment) -> None:
    """No callee of a killed caller goes on as an orphan."""
    async with waiting(deployment, "calls") as (client, caller):
        callee = ""
        async for row in client.journal(caller):
            callee = getattr(row.entry, "invocation_id", callee)
        await client.kill(caller)
        async with deployment.worker(far()):

            async def killed() -> bool:
                return await status_of(client, callee) == "completed"

            await wait_until(killed, description="the callee is killed")
