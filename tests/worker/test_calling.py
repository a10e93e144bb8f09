"""Calls and sends: `perdure.worker.calling`. Everything really runs, on a store in memory.

What else handlers do with others is in `test_calling_answers.py`, what is refused in `test_calling_refusals.py`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.commands import Call, Send
from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import InvocationId, id_of_call, id_of_idempotency_key, id_of_workflow
from perdure.worker.calling import SendHandle
from perdure.worker.context import Context
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow
from tests.worker.attempt_stage import DAY_MS
from tests.worker.ensemble import Ensemble
from tests.worker.troupe import DAY, Order, Troupe, perform


async def test_a_service_is_called(ensemble: Ensemble, troupe: Troupe) -> None:
    """Argument and result are of the handler's types; it runs once, whatever the caller replays."""

    async def play(ctx: Context) -> int:
        first = await ctx.service_call(troupe.raise_by_one, Order(number=1))
        second = await ctx.service_call(troupe.raise_by_one, first)
        assert isinstance(second, Order)
        await ctx.run("step", lambda: None)
        return second.number

    story = await perform(ensemble, troupe, play)
    assert story.result == 3
    assert troupe.ran["raise_by_one"] >= 2
    calls = [entry for entry in story.entries if isinstance(entry, Call)]
    assert [(call.service, call.handler, call.key, call.value) for call in calls] == [
        ("S", "raise_by_one", None, b'{"number":1}'),
        ("S", "raise_by_one", None, b'{"number":2}'),
    ]
    assert [call.invocation_id for call in calls] == [
        id_of_call("S", None, parent=story.invocation_id, command_index=index) for index in (0, 1)
    ]


async def test_a_handler_without_an_argument_is_called_with_none(ensemble: Ensemble, troupe: Troupe) -> None:
    """Nothing is sent."""

    async def play(ctx: Context) -> list[str]:
        return [await ctx.service_call(troupe.say, None), await ctx.service_call(troupe.say, arg=None)]

    assert (await perform(ensemble, troupe, play)).result == ["said", "said"]


async def test_calls_at_the_same_time_run_at_the_same_time(ensemble: Ensemble, troupe: Troupe) -> None:
    """Each takes its place at the call, and not at the await."""

    async def play(ctx: Context) -> list[str]:
        calls = [ctx.service_call(troupe.linger, text) for text in "ab"]
        return [await call for call in reversed(calls)]

    before_ms = ensemble.clock.now_ms()
    assert (await perform(ensemble, troupe, play)).result == ["b", "a"]
    assert DAY_MS <= ensemble.clock.now_ms() - before_ms < 1.5 * DAY_MS


async def test_a_failure_of_the_callee_is_raised(ensemble: Ensemble, troupe: Troupe) -> None:
    """With its code, its message and its metadata."""

    async def play(ctx: Context) -> list[Any]:
        with pytest.raises(TerminalError) as caught:
            await ctx.service_call(troupe.refuse, 418)
        return [caught.value.status_code, caught.value.message, dict(caught.value.metadata)]

    assert (await perform(ensemble, troupe, play)).result == [418, "refused", {"why": "because"}]


async def test_headers_and_keys_travel(ensemble: Ensemble, troupe: Troupe) -> None:
    """The callee sees them in its request."""

    async def play(ctx: Context) -> None:
        await ctx.service_call(troupe.raise_by_one, Order(number=1), "once", {"trace": "é"})

    await perform(ensemble, troupe, play)
    assert dict(troupe.requests[0].headers) == {"trace": "é"}
    assert troupe.requests[0].idempotency_key == "once"


async def test_an_idempotency_key_runs_once(ensemble: Ensemble, troupe: Troupe) -> None:
    """All calls with the key have the one outcome; the id follows from the key."""

    async def play(ctx: Context) -> list[str]:
        one = ctx.service_call(troupe.linger, "first", idempotency_key="once")
        two = ctx.service_call(troupe.linger, "second", idempotency_key="once")
        assert await one.invocation_id() == await two.invocation_id()
        assert await one.invocation_id() == id_of_idempotency_key("S", "linger", None, idempotency_key="once")
        # One that has its outcome already.
        return [await one, await two, await ctx.service_call(troupe.linger, "third", idempotency_key="once")]

    assert (await perform(ensemble, troupe, play)).result == ["first"] * 3
    assert troupe.ran["lingered"] == 1


async def test_objects_are_called_by_key(ensemble: Ensemble, troupe: Troupe) -> None:
    """Each key has its own state; exclusive calls of one are in order, and a shared one reads what was committed."""

    async def play(ctx: Context) -> list[int]:
        a = [ctx.object_call(troupe.add, key="a", arg=amount) for amount in (1, 2, 3)]
        b = ctx.object_call(troupe.add, "b", 10)
        return [await call for call in (*a, b)] + [await ctx.object_call(troupe.total, "a", None)]

    assert (await perform(ensemble, troupe, play)).result == [1, 3, 6, 10, 6]


async def test_workflows_are_called_by_key(ensemble: Ensemble, troupe: Troupe) -> None:
    """`main` runs once for a key, and every call of it has the one outcome."""

    async def play(ctx: Context) -> list[Any]:
        one = ctx.workflow_call(troupe.main, "k", 1)
        two = ctx.workflow_call(troupe.main, key="k", arg=100)
        assert await one.invocation_id() == await two.invocation_id() == id_of_workflow("W", "k")
        await ctx.workflow_call(troupe.give, "k", 10)
        return [await one, await two]

    story = await perform(ensemble, troupe, play)
    assert story.result == [11, 11]


async def test_sends_go_on(ensemble: Ensemble, troupe: Troupe) -> None:
    """The sender ends before those that it sent; the handle knows the id."""
    ids: list[str] = []

    async def play(ctx: Context) -> str:
        handles = [
            ctx.service_send(troupe.linger, "sent"),
            ctx.object_send(troupe.add, "k", 5),
            ctx.workflow_send(troupe.main, "k", 1),
            ctx.workflow_send(troupe.give, "k", 1),
            ctx.generic_send("S", "say", b""),
        ]
        assert all(isinstance(handle, SendHandle) for handle in handles)
        ids[:] = [await handle.invocation_id() for handle in handles]
        return "gone on"

    before_ms = ensemble.clock.now_ms()
    story = await perform(ensemble, troupe, play)
    assert story.result == "gone on"
    assert int(story.fields["completed_at"]) - before_ms < DAY_MS
    assert [entry.invocation_id for entry in story.entries if isinstance(entry, Send)] == ids
    found = [await ensemble.memory.read_invocation(InvocationId(one)) for one in ids]
    assert [one is not None and one.fields["status"] for one in found] == ["completed"] * 5
    assert troupe.ran["lingered"] == 1
    assert await ensemble.memory.read_value("O/k", "total") == b"5"


@pytest.mark.parametrize("kind", ["service", "object", "workflow", "generic"])
async def test_a_delay_comes_first(ensemble: Ensemble, troupe: Troupe, kind: str) -> None:
    """Rounded up to milliseconds: never early."""
    begun_ms: list[int] = []
    service, thing, flow = Service("Late"), VirtualObject("LateObject"), Workflow("LateFlow")

    async def late(ctx: Any) -> None:
        begun_ms.append(ensemble.clock.now_ms())

    async def late_one(ctx: Any) -> None:
        await late(ctx)

    async def late_run(ctx: Any) -> None:
        await late(ctx)

    service.handler()(late)
    thing.handler()(late_one)
    flow.main()(late_run)
    delay = DAY + timedelta(microseconds=1)

    async def play(ctx: Context) -> None:
        match kind:
            case "service":
                ctx.service_send(late, None, delay)
            case "object":
                ctx.object_send(late_one, "k", None, delay)
            case "workflow":
                ctx.workflow_send(late_run, "k", None, delay)
            case _:
                ctx.generic_send("LateObject", "late_one", b"", "k", delay)

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(service, thing, flow, caller)
    story = await ensemble.act_out(handler)
    (sent,) = [entry for entry in story.entries if isinstance(entry, Send)]
    assert sent.not_before_ms == sent.at_ms + DAY_MS + 1
    assert begun_ms
    assert begun_ms[0] >= sent.not_before_ms


@pytest.mark.parametrize("delay", [None, timedelta(), timedelta(seconds=-5)])
async def test_no_delay_is_none(ensemble: Ensemble, troupe: Troupe, delay: timedelta | None) -> None:
    """Nothing, nought and the past begin at once."""

    async def play(ctx: Context) -> None:
        ctx.service_send(troupe.say, None, delay)

    story = await perform(ensemble, troupe, play)
    assert [entry.not_before_ms for entry in story.entries if isinstance(entry, Send)] == [0]
    assert troupe.ran["say"] == 1


async def test_handlers_are_called_by_name(ensemble: Ensemble, troupe: Troupe) -> None:
    """With the bytes of arguments and results, for services, objects and workflows."""

    async def play(ctx: Context) -> list[str]:
        results = [
            await ctx.generic_call("S", "turn", b"abc"),
            await ctx.generic_call("O", "add", b"4", "k"),
            await ctx.generic_call("W", "give", b"4", key="k"),
            await ctx.generic_call("W", "main", b"1", key="k"),
            await ctx.generic_call("S", "raise_by_one", b'{"number": 1}', idempotency_key="i", headers={"h": "1"}),
        ]
        return [result.decode() for result in results]

    assert (await perform(ensemble, troupe, play)).result == ["cba", "4", "null", "5", '{"number":2}']
    assert dict(troupe.requests[0].headers) == {"h": "1"}


async def test_a_call_by_name_without_a_key_fails(ensemble: Ensemble, troupe: Troupe) -> None:
    """Whoever has the object says so, as a failure 400."""

    async def play(ctx: Context) -> int:
        with pytest.raises(TerminalError, match="needs the key of its object") as caught:
            await ctx.generic_call("O", "add", b"4")
        return caught.value.status_code

    assert (await perform(ensemble, troupe, play)).result == 400


async def test_a_call_of_another_service_is_produced(ensemble: Ensemble, troupe: Troupe) -> None:
    """What does not run here goes to its topic, and the caller waits outside of memory."""

    async def play(ctx: Context) -> bytes:
        return await ctx.generic_call("Theirs", "h", b"1")

    story = await perform(ensemble, troupe, play)
    assert story.status == "suspended"
    assert [record.topic for record in ensemble.broker.produced] == ["ns.Theirs"]


async def test_calls_inside_tasks_are_told_apart(ensemble: Ensemble, troupe: Troupe) -> None:
    """A handler that calls from several tasks at once gets each its own answer."""

    async def play(ctx: Context) -> list[int]:
        async def one(number: int) -> int:
            return (await ctx.service_call(troupe.raise_by_one, Order(number=number))).number

        return list(await asyncio.gather(*(one(number) for number in range(4))))

    assert (await perform(ensemble, troupe, play)).result == [1, 2, 3, 4]
