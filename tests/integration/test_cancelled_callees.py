"""What a cancelled or killed caller called and what has not begun: it never begins once the caller has ended."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from perdure.schemas.commands import Call
from perdure.schemas.errors import TerminalError
from perdure.worker.application import Application, app
from perdure.worker.client import Client
from perdure.worker.client_controls import Action
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from tests.integration.controlled import reach
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until


class Deadlock:
    """An object that calls itself, whose callee waits for its caller's end."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        account = VirtualObject("Account")

        @account.handler()
        async def inner(ctx: ObjectContext) -> None:
            self.begun["inner"] += 1

        @account.handler()
        async def after(ctx: ObjectContext) -> None:
            self.begun["after"] += 1

        @account.handler()
        async def outer(ctx: ObjectContext) -> None:
            await ctx.object_call(inner, ctx.key(), None)

        self.outer, self.after = outer, after
        self.application: Application = app([account])


async def callee_of(client: Client, caller: str) -> str:
    """The id of what an invocation called; empty while it has called nothing."""
    calls = [row.entry async for row in client.journal(caller) if isinstance(row.entry, Call)]
    return calls[0].invocation_id if calls else ""


ENDS: dict[Action, str] = {"cancel": "cancelled", "kill": "killed"}


@pytest.mark.parametrize("action", ENDS)
async def test_a_callee_that_waits_for_its_ended_caller_never_begins(deployment: Deployment, action: Action) -> None:
    """The caller's end frees the object that they share: it goes to who came behind them."""
    world = Deadlock()
    async with (
        deployment.sender(world.application),
        deployment.worker(world.application),
        deployment.client() as client,
    ):
        handle = await client.send(world.outer, key="k")
        await wait_until(lambda: pending(client), description="the callee waits for its caller")
        callee = await callee_of(client, handle.invocation_id)
        behind = await client.send(world.after, key="k")
        await client.control(action, handle.invocation_id)
        with pytest.raises(TerminalError, match=ENDS[action]):
            await handle.result(timeout=PATIENCE)
        await behind.result(timeout=PATIENCE)
        assert world.begun == {"after": 1}
        with pytest.raises(TerminalError, match=ENDS[action]):
            await client.result(callee, timeout=PATIENCE)


async def pending(client: Client) -> bool:
    """Whether an invocation waits for its object."""
    page = await client.list_invocations()
    return any(view.status == "pending" for view in page.invocations)


@pytest.mark.parametrize("action", ENDS)
async def test_a_callee_whose_record_still_waits_in_kafka_never_begins(deployment: Deployment, action: Action) -> None:
    """It is known as ended without a record; its record finds it so, whenever it is read."""
    begun: Counter[str] = Counter()
    near, far = Service("Near", inactivity_timeout=timedelta()), Service("Far")

    @near.handler()
    async def calls(ctx: Context) -> bytes:
        return await ctx.generic_call("Far", "acts", b"")

    @far.handler()
    async def acts(ctx: Context) -> None:
        begun["acts"] += 1

    @far.handler()
    async def last(ctx: Context) -> None:
        begun["last"] += 1

    async with (
        deployment.sender(app([far])),
        deployment.sender(app([near])),
        deployment.worker(app([near])),
        deployment.client() as client,
    ):
        handle = await client.send("Near/calls")
        await reach(handle, "suspended")
        callee = await callee_of(client, handle.invocation_id)
        await client.control(action, handle.invocation_id)
        with pytest.raises(TerminalError, match=ENDS[action]):
            await handle.result(timeout=PATIENCE)
        await reach(client.attach(callee), "completed")
        with pytest.raises(TerminalError, match=ENDS[action]):
            await client.result(callee, timeout=PATIENCE)
        async with deployment.worker(app([far])):
            for _ in range(4):
                # Both partitions are read past the callee's record.
                await (await client.send("Far/last")).result(timeout=PATIENCE)
        assert begun == {"last": 4}
