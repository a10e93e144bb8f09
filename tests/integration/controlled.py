"""An application whose invocations stand still in each status until a test does something to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from perdure import Context, ObjectContext, Service, TerminalError, VirtualObject, Workflow, WorkflowContext, app
from perdure.worker.application import Application
from perdure.worker.client import Client
from perdure.worker.client_handle import Handle
from perdure.worker.object_context import ObjectSharedContext, WorkflowSharedContext
from perdure.worker.options import InvocationRetryPolicy
from tests.waiting import PATIENCE, wait_until

HOUR = timedelta(hours=1)
NOW = timedelta(0)
RETRY = InvocationRetryPolicy(initial_interval=HOUR, max_interval=HOUR)
ONCE = InvocationRetryPolicy(max_attempts=1, on_max_attempts="pause")

STATUSES = ("scheduled", "pending", "step", "waiting", "suspended", "backing-off", "paused", "completed")
"""Where an invocation can stand; `step` and `waiting` are both running."""


class Controlled:
    """A service, an object and a workflow, what they did, and what they wait for.

    Args:
        retention: How long results and journals are kept.
    """

    def __init__(self, *, retention: timedelta = HOUR) -> None:
        self.effects: Counter[str] = Counter()
        self.awakeables: list[str] = []
        self.gate = asyncio.Event()
        self.broken = True
        self.service = Service("Work")
        self.account = VirtualObject("Account")
        self.sign = Workflow("Sign")
        self._define_work()
        self._define_callers()
        self._define_account()
        self._define_sign(retention)
        self.application: Application = app(
            [self.service, self.account, self.sign], journal_retention=retention, idempotency_retention=retention
        )

    def _define_work(self) -> None:
        service = self.service

        @service.handler()
        async def step(ctx: Context) -> str:
            async def gated() -> None:
                self.effects["step began"] += 1
                await self.gate.wait()
                self.effects["step"] += 1

            await ctx.run("gated", gated)
            await ctx.run("second", lambda: self.effects.update(["second step"]))
            return "stepped"

        @service.handler()
        async def waits(ctx: Context, name: str) -> Any:
            return await self._await(ctx, name)

        @service.handler(inactivity_timeout=timedelta(milliseconds=1))
        async def leaves(ctx: Context, name: str) -> Any:
            return await self._await(ctx, name)

        @service.handler(invocation_retry_policy=RETRY)
        async def fails(ctx: Context) -> Any:
            return await self._await(ctx, "fails", fail=self.broken)

        @service.handler(invocation_retry_policy=ONCE)
        async def breaks(ctx: Context) -> Any:
            return await self._await(ctx, "breaks", fail=self.broken)

        self.waits = waits

    def _define_callers(self) -> None:
        service = self.service

        @service.handler()
        async def echo(ctx: Context, value: Any) -> Any:
            self.effects["echo"] += 1
            value = await ctx.run("twice", lambda: [value, value])
            first = await ctx.run("count", lambda: self.effects["echo"])
            return [value, first, sorted(ctx.request().headers)]

        @service.handler()
        async def parent(ctx: Context, how: str) -> Any:
            if how == "send":
                ctx.service_send(self.waits, "sent")
            return await ctx.service_call(self.waits, "called")

        @service.handler()
        async def grandparent(ctx: Context) -> Any:
            return await ctx.service_call(parent, "call")

        @service.handler()
        async def saga(ctx: Context) -> str:
            await ctx.run("book", lambda: self.effects.update(["book"]))
            try:
                await ctx.signal("confirmed")
            except TerminalError:
                await ctx.run("unbook", lambda: self.effects.update(["unbook"]))
                try:
                    await ctx.signal("refunded")
                except TerminalError as error:
                    await ctx.run("give up", lambda: self.effects.update(["give up"]))
                    raise TerminalError(f"twice: {error.message}", 410) from error
                raise
            return "confirmed"

        @service.handler()
        async def holds(ctx: Context, key: str) -> Any:
            return await ctx.object_call(self.hold, key, None)

        self.echo, self.parent, self.saga = echo, parent, saga

    def _define_account(self) -> None:
        account = self.account

        @account.handler()
        async def hold(ctx: ObjectContext) -> str:
            await ctx.run("begin", lambda: self.effects.update([f"hold {ctx.key()}"]))
            ctx.set("held", True)
            await ctx.signal("go")
            return "held"

        @account.handler()
        async def add(ctx: ObjectContext, amount: int) -> int:
            total = (await ctx.get("total", type_hint=int) or 0) + amount
            ctx.set("total", total)
            return total

        @account.handler(kind="shared")
        async def total(ctx: ObjectSharedContext) -> int:
            return await ctx.get("total", type_hint=int) or 0

        self.hold, self.add, self.total = hold, add, total

    def _define_sign(self, retention: timedelta) -> None:
        sign = self.sign

        @sign.main(workflow_retention=retention)
        async def run(ctx: WorkflowContext, name: str) -> str:
            ctx.set("name", name)
            return f"{name} {await ctx.promise('click', type_hint=str)}"

        @sign.handler()
        async def look(ctx: WorkflowSharedContext) -> str | None:
            return await ctx.promise("click", type_hint=str).peek()

        self.run, self.look = run, look

    async def _await(self, ctx: Context, name: str, *, fail: bool = False) -> Any:
        await ctx.run("begin", lambda: self.effects.update([f"{name} began"]))
        if fail:
            raise ValueError("out of luck")
        awakeable, value = ctx.awakeable()
        await ctx.run("tell", lambda: self.awakeables.append(awakeable))
        try:
            return await value
        finally:
            self.effects[f"{name} ended"] += 1

    async def put(self, client: Client, status: str) -> Handle[Any]:
        """Bring an invocation into a status."""
        match status:
            case "scheduled":
                handle = await client.send("Work/waits", "later", delay=HOUR)
            case "pending":
                await reach(await client.send(self.hold, key="k"), "running", "suspended")
                handle = await client.send(self.hold, key="k")
            case "step":
                handle = await client.send("Work/step")
                await wait_until(lambda: self.effects["step began"])
            case "waiting":
                handle = await client.send(self.waits, "w")
                await wait_until(lambda: self.awakeables)
            case "completed":
                handle = await client.send(self.echo, 1)
                await handle.result(timeout=PATIENCE)
            case _:
                name = {"suspended": "leaves", "backing-off": "fails", "paused": "breaks"}[status]
                handle = await client.send(f"Work/{name}", *(["w"] if status == "suspended" else []))
        await reach(handle, *(("running", "suspended", "ready") if status in ("step", "waiting") else (status,)))
        return handle


async def reach(handle: Handle[Any], *statuses: str) -> None:
    """Wait until an invocation is in one of these."""

    async def reached() -> bool:
        page = await handle._client.list_invocations()
        return any(view.id == handle.invocation_id and view.status in statuses for view in page.invocations)

    await wait_until(reached, description=f"{handle.invocation_id} is {' or '.join(statuses)}")
