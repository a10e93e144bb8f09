"""Those who are called: a service, an object and a workflow for the tests of what handlers do with others."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from perdure.schemas.errors import TerminalError
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext, ObjectSharedContext, WorkflowContext, WorkflowSharedContext
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow
from tests.worker.ensemble import Ensemble

DAY = timedelta(days=1)


class Order(BaseModel):
    """An argument and a result."""

    number: int


class Troupe:
    """A service, an object and a workflow that others call, and what was run of them."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.requests: list[Any] = []
        self.service, self.object, self.flow = Service("S"), VirtualObject("O"), Workflow("W")
        ran, requests = self.ran, self.requests

        @self.service.handler()
        async def raise_by_one(ctx: Context, order: Order) -> Order:
            ran["raise_by_one"] += 1
            requests.append(ctx.request())
            return Order(number=await ctx.run("add", lambda: order.number + 1))

        @self.service.handler()
        async def say(ctx: Context) -> str:
            ran["say"] += 1
            assert ctx.request().body == b""
            return "said"

        @self.service.handler()
        async def refuse(ctx: Context, code: int) -> None:
            raise TerminalError("refused", code, {"why": "because"})

        @self.service.handler()
        async def linger(ctx: Context, text: str) -> str:
            """Sleeps for a day; tells who cancels it."""
            ran["linger"] += 1
            try:
                await ctx.sleep(DAY)
            except TerminalError as error:
                ran["cancelled"] += 1
                raise TerminalError(f"{text}: {error.message}", error.status_code) from error
            ran["lingered"] += 1
            return text

        @self.service.handler()
        async def turn(ctx: Context, raw: bytes) -> bytes:
            return raw[::-1]

        @self.object.handler()
        async def add(ctx: ObjectContext, amount: int) -> int:
            total = (await ctx.get("total", type_hint=int) or 0) + amount
            ctx.set("total", total)
            return total

        @self.object.handler(kind="shared")
        async def total(ctx: ObjectSharedContext) -> int:
            return await ctx.get("total", type_hint=int) or 0

        @self.flow.main()
        async def main(ctx: WorkflowContext, start: int) -> int:
            ran["main"] += 1
            return start + await ctx.promise("more", type_hint=int)

        @self.flow.handler()
        async def give(ctx: WorkflowSharedContext, more: int) -> None:
            await ctx.promise("more", type_hint=int).resolve(more)

        self.raise_by_one, self.say, self.refuse, self.linger, self.turn = raise_by_one, say, refuse, linger, turn
        self.add, self.total, self.main, self.give = add, total, main, give

    @property
    def definitions(self) -> tuple[Service, VirtualObject, Workflow]:
        """For `Ensemble.cast`."""
        return self.service, self.object, self.flow


async def perform(ensemble: Ensemble, troupe: Troupe, play: Any, argument: object = None) -> Any:
    """Have a handler of a service of its own call the troupe's; its story."""
    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(*troupe.definitions, caller)
    return await ensemble.act_out(handler, argument)
