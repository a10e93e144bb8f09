"""Results of all kinds on their way to the handler: `perdure.worker.delivering`. Steps alone: `test_attempt.py`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from perdure.schemas.commands import Lookup
from perdure.schemas.entries import PauseAsked, Paused, Positioned, Run, Success
from perdure.schemas.errors import SerdeError, TerminalError
from perdure.worker.combinators import as_completed
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext, WorkflowContext
from perdure.worker.sealing import Sealer
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow
from tests.worker.ensemble import Ensemble
from tests.worker.troupe import DAY, Order, Troupe, perform

SECOND = timedelta(seconds=1)


class Number(BaseModel):
    """A type that a text is not of."""

    number: int


async def test_results_of_all_kinds_have_one_order(ensemble: Ensemble, troupe: Troupe) -> None:
    """Calls, awakeables, signals, promises, timers, steps and reads: who was first is first in every replay."""
    orders: list[list[str]] = []
    flow = Workflow("Play", state_preload=False)

    @flow.main()
    async def main(ctx: WorkflowContext) -> list[str]:
        name, awakened = ctx.awakeable()
        waits: dict[str, Any] = {
            "timer": ctx.sleep(DAY),
            "call": ctx.service_call(troupe.linger, "text"),
            "awakeable": awakened,
            "signal": ctx.signal("s"),
            "promise": ctx.promise("p").value(),
            "read": ctx.get("a"),
            "step": ctx.run("step", lambda: 1),
        }
        names = {future: what for what, future in waits.items()}
        ctx.resolve_awakeable(name, 1)
        ctx.resolve_signal(ctx.request().id, "s", 1)
        await ctx.promise("p").resolve(1)
        order: list[str] = []
        orders.append(order)
        async for future in as_completed(*waits.values()):
            order.append(names[future])
            await ctx.run(f"after {len(order)}", lambda: None)
            if ctx.request().attempt % 2:
                raise ValueError("so that there is a replay")
        return order

    ensemble.cast(flow, *troupe.definitions)
    story = await ensemble.act_out(main, key="k")
    assert sorted(story.result) == ["awakeable", "call", "promise", "read", "signal", "step", "timer"]
    assert len(orders) >= 3
    for order in orders:
        assert order == story.result[: len(order)]


async def test_tasks_are_given_what_each_one_waits_for(ensemble: Ensemble, troupe: Troupe) -> None:
    """A handler of several tasks that call, read and write sees one history, whatever it replays."""
    thing = VirtualObject("Play", state_preload=False)

    @thing.handler()
    async def play(ctx: ObjectContext) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        async def task(number: int) -> None:
            name = f"n{number}"
            before = await ctx.get(name)
            ctx.set(name, number)
            called = await ctx.service_call(troupe.raise_by_one, Order(number=number))
            await ctx.sleep(SECOND * number)
            seen[name] = [before, called.number, await ctx.get(name)]

        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(task(number))
        return seen

    ensemble.cast(thing, *troupe.definitions)
    await ensemble.memory.edit_state("Play/k", [("n2", b'"before"')])
    story = await ensemble.act_out(play, key="k")
    expected = {f"n{number}": ["before" if number == 2 else None, number + 1, number] for number in range(4)}
    assert story.result == expected
    assert list(story.result) == sorted(expected)


async def test_a_result_that_cannot_be_read_is_raised(ensemble: Ensemble, troupe: Troupe) -> None:
    """Where it is awaited, naming what it is the result of; the handler may go on."""
    said = Service("Said")

    @said.handler()
    async def say(ctx: Context) -> str:
        return "text"

    async def play(ctx: Context) -> list[str]:
        told: list[str] = []
        name, awakened = ctx.awakeable(type_hint=Number)
        ctx.resolve_awakeable(name, "text")
        ctx.resolve_signal(ctx.request().id, "s", "text")
        handle = ctx.service_send(say, None)
        attached = ctx.attach_invocation(await handle.invocation_id(), type_hint=Number)
        for waiting in (awakened, ctx.signal("s", type_hint=Number), attached):
            with pytest.raises(SerdeError) as caught:
                await waiting
            told.append(str(caught.value))
        await ctx.run("after", lambda: None)
        return told

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(said, caller)
    story = await ensemble.act_out(handler)
    assert [text.partition(" of ")[0] for text in story.result] == ["The recorded result"] * 3
    assert "an awakeable" in story.result[0]


class Once:
    """A payload codec that can open nothing."""

    applies_to_failures = False

    def encode(self, payload: bytes) -> bytes:
        """As it is."""
        return payload

    def decode(self, payload: bytes) -> bytes:
        """Never."""
        raise ValueError("the key is gone")


async def test_a_result_that_no_codec_opens_is_raised(ensemble: Ensemble, troupe: Troupe) -> None:
    """It is an error of its await, and not of the engine."""
    ensemble.sealer = Sealer(Once())

    async def play(ctx: Context) -> None:
        name, awakened = ctx.awakeable()
        ctx.resolve_awakeable(name, 1)
        with pytest.raises(SerdeError, match="the key is gone"):
            await awakened
        raise TerminalError("it was told")

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(caller)
    story = await ensemble.invoke(handler, raw=b"")
    await ensemble.rest()
    assert (await ensemble.look(story)).failure.message == "it was told"


async def test_a_pause_waits_for_the_steps_that_run(ensemble: Ensemble, troupe: Troupe) -> None:
    """Their results are recorded; the handler goes on where it was when somebody resumes it."""
    executing, ends = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def play(ctx: Context) -> str:
        async def step() -> None:
            ran.append("step")
            executing.set()
            await ends.wait()

        await ctx.run("step", step)
        return await ctx.service_call(troupe.say, None)

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(*troupe.definitions, caller)
    story = await ensemble.invoke(handler)
    await executing.wait()
    ensemble.act((await ensemble.memory.pause(story.invocation_id, at_ms=1, reason="somebody")).due)
    ends.set()
    await ensemble.rest()
    await ensemble.look(story)
    assert story.status == "paused"
    assert [type(entry) for entry in story.entries[1:]] == [PauseAsked, Run, Paused]
    assert troupe.ran["say"] == 0
    ensemble.act((await ensemble.memory.resume(story.invocation_id, at_ms=1)).due)
    await ensemble.rest()
    assert (await ensemble.look(story)).result == "said"
    assert ran == ["step"]


async def test_what_was_read_before_a_pause_is_read_again(ensemble: Ensemble, troupe: Troupe) -> None:
    """A read that the store had not answered is asked again by the next attempt, and recorded once."""
    thing = VirtualObject("O2", state_preload=False)
    reads: list[str] = []

    @thing.handler()
    async def play(ctx: ObjectContext) -> Any:
        value = await ctx.get("a")
        reads.append("a")
        await ctx.service_call(troupe.linger, "text")
        return value

    ensemble.cast(thing, *troupe.definitions)
    await ensemble.memory.edit_state("O2/k", [("a", b"1")])
    story = await ensemble.act_out(play, key="k")
    assert story.result == 1
    assert len(reads) >= 2
    rows: list[Positioned] = [row for row in story.journal if isinstance(row.entry, Lookup)]
    assert [row.entry.outcome for row in rows if isinstance(row.entry, Lookup)] == [Success(orjson.dumps(1))]


async def test_a_handler_may_wait_for_the_same_call_from_many_tasks(ensemble: Ensemble, troupe: Troupe) -> None:
    """All of them see its one outcome."""

    async def play(ctx: Context) -> list[str]:
        call = ctx.service_call(troupe.linger, "text")

        async def wait() -> str:
            return await call

        return list(await asyncio.gather(wait(), wait(), call))

    assert (await perform(ensemble, troupe, play)).result == ["text"] * 3
