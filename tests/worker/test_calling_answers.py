"""Attaching, cancelling, awakeables and signals between invocations: `perdure.worker.calling`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import is_invocation_id
from perdure.worker.context import Context
from perdure.worker.serde import BytesSerde
from perdure.worker.service import Service
from tests.worker.ensemble import Ensemble
from tests.worker.troupe import DAY, Order, Troupe, perform


async def test_an_invocation_is_attached_to(ensemble: Ensemble, troupe: Troupe) -> None:
    """While it runs and when it has ended; the value is read as it is asked for."""

    async def play(ctx: Context) -> list[Any]:
        handle = ctx.service_send(troupe.linger, "text")
        order = ctx.service_send(troupe.raise_by_one, Order(number=1))
        found = [
            await ctx.attach_invocation(await order.invocation_id(), type_hint=Order),
            await ctx.attach_invocation(await order.invocation_id(), BytesSerde()),
            await ctx.attach_invocation(await handle.invocation_id()),
        ]
        assert isinstance(found[0], Order)
        assert found[1] == b'{"number":2}'
        return [found[0].number, found[2]]

    assert (await perform(ensemble, troupe, play)).result == [2, "text"]


async def test_an_unknown_invocation_cannot_be_attached_to(ensemble: Ensemble, troupe: Troupe) -> None:
    """It is a failure 404, and not a wait without an end."""
    nobody = "inv_" + "0" * 27

    async def play(ctx: Context) -> int:
        with pytest.raises(TerminalError, match=f"there is no invocation {nobody}") as caught:
            await ctx.attach_invocation(nobody)
        return caught.value.status_code

    assert (await perform(ensemble, troupe, play)).result == 404


CANCELLING: dict[str, Any] = {
    "the context": lambda ctx, call, handle: ctx.cancel_invocation(call._invocation_id),
    "the future of a call": lambda ctx, call, handle: call.cancel_invocation(),
    "the handle of a send": lambda ctx, call, handle: handle.cancel_invocation(),
}


@pytest.mark.parametrize("by", CANCELLING)
async def test_an_invocation_is_cancelled(ensemble: Ensemble, troupe: Troupe, by: str) -> None:
    """It sees a TerminalError 409 where it waits, and ends as it will."""

    async def play(ctx: Context) -> list[Any]:
        handle = ctx.service_send(troupe.linger, "text", idempotency_key="same")
        call = ctx.service_call(troupe.linger, "text", idempotency_key="same")
        # So that it has begun.
        await ctx.sleep(timedelta(hours=1))
        done = CANCELLING[by](ctx, call, handle)
        if done is not None:
            await done
        with pytest.raises(TerminalError) as caught:
            await call
        return [caught.value.status_code, caught.value.message]

    assert (await perform(ensemble, troupe, play)).result == [409, "text: cancelled"]
    assert troupe.ran["cancelled"] >= 1
    assert troupe.ran["lingered"] == 0


async def test_a_cancellation_goes_on_to_callees(ensemble: Ensemble, troupe: Troupe) -> None:
    """Who is cancelled cancels whom it called and has no answer of, and not whom it sent."""
    middle = Service("Middle")

    @middle.handler()
    async def wait(ctx: Context) -> str:
        ctx.service_send(troupe.linger, "sent")
        return await ctx.service_call(troupe.linger, "called")

    async def play(ctx: Context) -> str:
        call = ctx.service_call(wait, None)
        await ctx.sleep(timedelta(hours=1))
        await call.cancel_invocation()
        with pytest.raises(TerminalError) as caught:
            await call
        return caught.value.message

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(*troupe.definitions, middle, caller)
    story = await ensemble.act_out(handler)
    assert story.result == "cancelled"
    assert (troupe.ran["cancelled"], troupe.ran["lingered"]) == (1, 1)


async def test_awakeables_are_completed_by_others(ensemble: Ensemble, troupe: Troupe) -> None:
    """With a value or a failure, by whoever is told the id; the first completion counts."""
    completer = Service("Completer")

    @completer.handler()
    async def complete(ctx: Context, names: list[str]) -> None:
        ctx.resolve_awakeable(names[0], Order(number=7))
        ctx.resolve_awakeable(names[0], Order(number=8))
        ctx.reject_awakeable(names[1], "no", 418)
        ctx.reject_awakeable(names[2], "no")
        ctx.resolve_awakeable(names[3], b"raw", BytesSerde())

    async def play(ctx: Context) -> list[Any]:
        typed, order = ctx.awakeable(type_hint=Order)
        rejected, refusal = ctx.awakeable()
        plain, plainly = ctx.awakeable()
        raw, bare = ctx.awakeable(BytesSerde())
        ctx.service_send(complete, [typed, rejected, plain, raw])
        with pytest.raises(TerminalError) as caught:
            await refusal
        with pytest.raises(TerminalError) as by_default:
            await plainly
        assert await bare == b"raw"
        return [(await order).number, caught.value.status_code, caught.value.message, by_default.value.status_code]

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(completer, caller)
    assert (await ensemble.act_out(handler)).result == [7, 418, "no", 500]


async def test_signals_are_sent_to_invocations(ensemble: Ensemble, troupe: Troupe) -> None:
    """By name, in order; one that comes before it is waited for is kept."""
    receiver = Service("Receiver")

    @receiver.handler()
    async def receive(ctx: Context) -> list[Any]:
        await ctx.sleep(DAY)
        first: Any = await ctx.signal("go", type_hint=Order)
        second = await ctx.signal("go")
        with pytest.raises(TerminalError) as caught:
            await ctx.signal("stop")
        with pytest.raises(TerminalError) as by_default:
            await ctx.signal("stop")
        raw = await ctx.signal("raw", BytesSerde())
        codes = [caught.value.status_code, by_default.value.status_code]
        return [first.number, second, caught.value.message, *codes, raw.decode()]

    async def play(ctx: Context) -> list[Any]:
        call = ctx.service_call(receive, None)
        to = await call.invocation_id()
        assert is_invocation_id(to)
        ctx.resolve_signal(to, "go", Order(number=1))
        ctx.resolve_signal(to, "go", "two")
        ctx.reject_signal(to, "stop", "halt", 418)
        ctx.reject_signal(to, "stop", "halt")
        ctx.resolve_signal(to, "raw", b"bytes", BytesSerde())
        return await call

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(receiver, caller)
    assert (await ensemble.act_out(handler)).result == [1, "two", "halt", 418, 500, "bytes"]


async def test_long_failures_are_shortened(ensemble: Ensemble, troupe: Troupe) -> None:
    """A rejection's message has the bound that every failure has."""

    async def play(ctx: Context) -> list[int]:
        name, future = ctx.awakeable()
        ctx.reject_awakeable(name, "x" * 10_000)
        ctx.reject_signal(ctx.request().id, "s", "x" * 10_000)
        lengths = []
        for waiting in (future, ctx.signal("s")):
            with pytest.raises(TerminalError) as caught:
                await waiting
            lengths.append(len(caught.value.message))
        return lengths

    lengths = (await perform(ensemble, troupe, play)).result
    assert all(8_000 < length < 8_100 for length in lengths)
