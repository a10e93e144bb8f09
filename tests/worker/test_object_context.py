"""What handlers of objects and workflows can do: `perdure.worker.object_context`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from perdure.schemas.commands import ClearAll, ClearState, SetState
from perdure.schemas.errors import SerdeError, TerminalError, UsageError
from perdure.schemas.limits import NAME_LENGTH_MAX, PAYLOAD_BYTES_MAX
from perdure.worker.context import Context
from perdure.worker.handler import handler_of
from perdure.worker.object_context import (
    ObjectContext,
    ObjectSharedContext,
    ReadingContext,
    WorkflowContext,
    WorkflowSharedContext,
    context_class,
)
from perdure.worker.options import InvocationRetryPolicy
from perdure.worker.serde import BytesSerde
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow
from tests.worker.attempt_stage import Story, paused_reason
from tests.worker.ensemble import Ensemble

ONCE = InvocationRetryPolicy(max_attempts=1)
HALF = "half a character: \ud83d"


class Basket(BaseModel):
    """A value of the state."""

    items: list[str]


async def play_object(
    ensemble: Ensemble, play: Any, *, before: dict[str, bytes] | None = None, **options: Any
) -> Story:
    """Play an exclusive handler of the object `O/k`, with a state that was there before."""
    thing = VirtualObject("O", **options)
    handler = thing.handler("play")(play)
    ensemble.cast(thing)
    if before:
        await ensemble.memory.edit_state("O/k", list(before.items()))
    return await ensemble.act_out(handler, key="k")


async def play_workflow(ensemble: Ensemble, main: Any, **shared: Any) -> Story:
    """Play the run of the workflow `W/k`, which may invoke the shared handlers."""
    flow = Workflow("W")
    handler = flow.main("main")(main)
    for name, fn in shared.items():
        flow.handler(name)(fn)
    ensemble.cast(flow)
    return await ensemble.act_out(handler, key="k")


PRELOADS = pytest.mark.parametrize("preload", [True, False, ["a", "absent"]], ids=["all", "nothing", "a part"])


@PRELOADS
async def test_a_handler_reads_what_it_wrote(ensemble: Ensemble, preload: Any) -> None:
    """Over what was there before, however much of it came with the claim, and in every replay."""

    async def play(ctx: ObjectContext) -> list[Any]:
        seen = [await ctx.get("a"), await ctx.get("b"), await ctx.get("absent"), await ctx.state_keys()]
        ctx.set("a", 10)
        ctx.set("new", 1)
        seen += [await ctx.get("a"), await ctx.get("new"), await ctx.state_keys()]
        await ctx.run("step", lambda: None)
        ctx.clear("a")
        seen += [await ctx.get("a"), await ctx.get("b"), await ctx.state_keys()]
        ctx.clear_all()
        seen += [await ctx.get("b"), await ctx.get("new"), await ctx.state_keys()]
        ctx.set("b", "last")
        await ctx.run("another", lambda: None)
        return [*seen, await ctx.get("b"), await ctx.state_keys()]

    story = await play_object(ensemble, play, before={"a": b"1", "b": b"2"}, state_preload=preload)
    before, written = [1, 2, None, ["a", "b"]], [10, 1, ["a", "b", "new"]]
    assert story.result == [*before, *written, None, 2, ["b", "new"], None, None, [], "last", ["b"]]
    assert await ensemble.memory.read_state("O/k") == {"b": b'"last"'}


async def test_values_are_read_as_they_are_asked_for(ensemble: Ensemble) -> None:
    """By a type, by a serde, or as JSON; `None` where there is no value, whatever the type."""

    async def play(ctx: ObjectContext) -> None:
        ctx.set("basket", Basket(items=["egg"]))
        ctx.set("raw", b"\xff", BytesSerde())
        basket = await ctx.get("basket", type_hint=Basket)
        assert basket == Basket(items=["egg"])
        assert await ctx.get("basket") == {"items": ["egg"]}
        assert await ctx.get("raw", BytesSerde()) == b"\xff"
        assert await ctx.get("absent", type_hint=Basket) is None
        assert await ctx.get("absent", BytesSerde()) is None

    assert (await play_object(ensemble, play)).status == "completed"


async def test_a_value_of_another_type_is_an_error(ensemble: Ensemble) -> None:
    """It names the state, and is raised where it is awaited."""

    async def play(ctx: ObjectContext) -> str:
        with pytest.raises(SerdeError) as caught:
            await ctx.get("a", type_hint=Basket)
        return str(caught.value)

    story = await play_object(ensemble, play, before={"a": b'"text"'})
    assert story.result.startswith("The recorded result of state 'a'")


async def test_what_was_written_stays_when_a_handler_fails(ensemble: Ensemble) -> None:
    """State is committed with the journal, and not with the outcome."""

    async def play(ctx: ObjectContext) -> None:
        ctx.set("a", 1)
        raise TerminalError("no")

    assert (await play_object(ensemble, play)).failure.message == "no"
    assert await ensemble.memory.read_state("O/k") == {"a": b"1"}


async def test_a_failed_attempt_reads_and_writes_the_same(ensemble: Ensemble) -> None:
    """A retry sees the state as its first attempt did, although that has written since."""
    seen: list[Any] = []

    async def play(ctx: ObjectContext) -> int:
        value = await ctx.get("a", type_hint=int)
        seen.append(value)
        assert value is not None
        ctx.set("a", value + 1)
        await ctx.run("step", lambda: None)
        if len(seen) < 3:
            raise ValueError("so that there is a replay")
        return value

    assert (await play_object(ensemble, play, before={"a": b"1"})).result == 1
    assert len(seen) >= 3
    assert set(seen) == {1}
    assert await ensemble.memory.read_value("O/k", "a") == b"2"


async def test_a_key_is_told(ensemble: Ensemble) -> None:
    """To handlers of all kinds."""
    thing, flow, asking = VirtualObject("O"), Workflow("W"), Service("S")

    @thing.handler()
    async def exclusive(ctx: ObjectContext) -> str:
        return ctx.key()

    @thing.handler(kind="shared")
    async def shared(ctx: ObjectSharedContext) -> str:
        return ctx.key()

    @flow.main()
    async def main(ctx: WorkflowContext) -> str:
        return ctx.key()

    @flow.handler()
    async def beside(ctx: WorkflowSharedContext) -> str:
        return ctx.key()

    @asking.handler()
    async def ask(ctx: Context) -> list[str]:
        calls = [ctx.object_call(exclusive, "é 1", None), ctx.object_call(shared, "é 2", None)]
        calls += [ctx.workflow_call(main, "é 3", None), ctx.workflow_call(beside, "é 4", None)]
        return [await call for call in calls]

    ensemble.cast(thing, flow, asking)
    assert (await ensemble.act_out(ask)).result == ["é 1", "é 2", "é 3", "é 4"]
    kinds = [context_class(handler_of(fn)) for fn in (exclusive, shared, main, beside, ask)]
    assert kinds == [ObjectContext, ReadingContext, WorkflowContext, ReadingContext, Context]


WRITES: dict[str, Any] = {
    "set('a')": lambda ctx: ctx.set("a", 1),
    "set('a') with a serde": lambda ctx: ctx.set("a", b"", serde=BytesSerde()),
    "clear('a')": lambda ctx: ctx.clear("a"),
    "clear_all()": lambda ctx: ctx.clear_all(),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("of", ["object", "workflow"])
async def test_shared_handlers_write_nothing(ensemble: Ensemble, write: str, of: str) -> None:
    """They are told which call it was and what to do; nothing of it is recorded."""
    definition: VirtualObject | Workflow = VirtualObject("O") if of == "object" else Workflow("W")

    async def play(ctx: Any) -> str:
        with pytest.raises(UsageError) as caught:
            WRITES[write](ctx)
        return str(caught.value)

    async def main(ctx: WorkflowContext) -> None:
        raise AssertionError("not called")

    if isinstance(definition, VirtualObject):
        handler = definition.handler("play", kind="shared")(play)
    else:
        definition.main()(main)
        handler = definition.handler("play")(play)
    ensemble.cast(definition)
    story = await ensemble.act_out(handler, key="k")
    assert story.result.startswith(f"ctx.{write.partition(' with')[0]} was called by a shared handler: only exclusive")
    assert not any(isinstance(entry, SetState | ClearState | ClearAll) for entry in story.entries)


async def test_shared_handlers_read_what_was_committed(ensemble: Ensemble) -> None:
    """Beside one that holds the object, and a replay reads the same again."""
    thing = VirtualObject("O")

    @thing.handler(kind="shared")
    async def look(ctx: ObjectSharedContext) -> list[Any]:
        return [await ctx.get("a"), await ctx.get("b"), await ctx.state_keys()]

    @thing.handler()
    async def change(ctx: ObjectContext) -> list[Any]:
        ctx.set("a", 1)
        before = await ctx.object_call(look, "k", None)
        ctx.clear("a")
        ctx.set("b", 2)
        return [before, await ctx.object_call(look, "k", None)]

    ensemble.cast(thing)
    story = await ensemble.act_out(change, key="k")
    assert story.result == [[1, None, ["a"]], [None, 2, ["b"]]]


USES: dict[str, Any] = {
    "get": lambda ctx: ctx.get("a"),
    "state_keys": lambda ctx: ctx.state_keys(),
    "set": lambda ctx: ctx.set("a", 1),
    "clear": lambda ctx: ctx.clear("a"),
    "clear_all": lambda ctx: ctx.clear_all(),
    "promise": lambda ctx: ctx.promise("p").value(),
    "peek": lambda ctx: ctx.promise("p").peek(),
    "resolve": lambda ctx: ctx.promise("p").resolve(1),
    "reject": lambda ctx: ctx.promise("p").reject("no"),
}


@pytest.mark.parametrize("use", USES)
async def test_none_of_it_is_done_inside_a_step(ensemble: Ensemble, use: str) -> None:
    """Neither reading nor writing; the message names the step, and nothing is written."""

    async def main(ctx: WorkflowContext) -> None:
        async def step() -> None:
            USES[use](ctx)

        await ctx.run("outer", step)

    flow = Workflow("W")
    handler = flow.main("main", invocation_retry_policy=ONCE)(main)
    ensemble.cast(flow)
    story = await ensemble.act_out(handler, key="k")
    assert "inside the step 'outer'" in paused_reason(story)
    assert await ensemble.memory.read_state("W/k") == {}
    assert await ensemble.memory.peek_promise("W/k", "p") is None


NAMES: dict[str, Any] = {
    "get": lambda ctx, name: ctx.get(name),
    "set": lambda ctx, name: ctx.set(name, 1),
    "clear": lambda ctx, name: ctx.clear(name),
    "promise": lambda ctx, name: ctx.promise(name).value(),
    "peek": lambda ctx, name: ctx.promise(name).peek(),
    "resolve": lambda ctx, name: ctx.promise(name).resolve(1),
    "reject": lambda ctx, name: ctx.promise(name).reject("no"),
}


@pytest.mark.parametrize("use", NAMES)
async def test_names_have_bounds(ensemble: Ensemble, use: str) -> None:
    """Nothing, too much and what is no text are refused at the call, and take no place in the journal."""

    async def main(ctx: WorkflowContext) -> int:
        wrong: tuple[Any, ...] = ("", "x" * (NAME_LENGTH_MAX + 1), HALF, 7)
        for name in wrong:
            with pytest.raises(UsageError, match="name of a"):
                NAMES[use](ctx, name)
        NAMES["set"](ctx, "x" * NAME_LENGTH_MAX)
        return 1

    story = await play_workflow(ensemble, main)
    assert story.result == 1
    assert [type(entry) for entry in story.entries[1:-1]] == [SetState]


LARGE = "x" * PAYLOAD_BYTES_MAX
VALUES: dict[str, Any] = {
    "state": (lambda ctx, value: ctx.set("a", value), "The state 'a'"),
    "promise": (lambda ctx, value: ctx.promise("p").resolve(value), "The value of promise 'p'"),
}


@pytest.mark.parametrize("use", VALUES)
async def test_values_have_bounds(ensemble: Ensemble, use: str) -> None:
    """What is too large or cannot be written is refused at the call, by name; what just fits is kept."""
    put, what = VALUES[use]

    async def main(ctx: WorkflowContext) -> None:
        with pytest.raises(SerdeError, match=f"{what} has 1000002 bytes; at most 1000000 are allowed"):
            put(ctx, LARGE)
        with pytest.raises(SerdeError, match=what):
            put(ctx, object())
        put(ctx, LARGE[:-2])

    assert (await play_workflow(ensemble, main)).status == "completed"


async def test_promises_are_awaited_and_completed(ensemble: Ensemble) -> None:
    """By shared handlers, before, while and after somebody waits; each await of it has the value."""

    async def main(ctx: WorkflowContext) -> list[Any]:
        promise = ctx.promise("p", type_hint=Basket)
        assert await promise.peek() is None
        ctx.workflow_send(resolve, "k", ["egg"])
        first, second = await promise, await promise
        assert first == second == await promise.value() == await promise.peek() == Basket(items=["egg"])
        again = await ctx.promise("p")
        return [first.items, again["items"], (await ctx.promise("p", BytesSerde())).decode()]

    async def resolve(ctx: WorkflowSharedContext, items: list[str]) -> None:
        await ctx.promise("p", type_hint=Basket).resolve(Basket(items=items))

    story = await play_workflow(ensemble, main, resolve=resolve)
    assert story.result == [["egg"], ["egg"], '{"items":["egg"]}']


async def test_promises_are_rejected(ensemble: Ensemble) -> None:
    """Who waits and who peeks sees a TerminalError, with a code of 500 unless another one was given."""

    async def main(ctx: WorkflowContext) -> list[Any]:
        await ctx.promise("a").reject("no", 418)
        await ctx.promise("b").reject("x" * 10_000)
        seen: list[Any] = []
        for waiting in (ctx.promise("a"), ctx.promise("a").peek(), ctx.promise("b")):
            with pytest.raises(TerminalError) as caught:
                await waiting
            seen.append([caught.value.status_code, len(caught.value.message)])
        return seen

    one, two, three = (await play_workflow(ensemble, main)).result
    assert one == two == [418, 2]
    assert three[0] == 500
    assert 8_000 < three[1] < 8_100


@pytest.mark.parametrize("how", ["resolve", "reject"])
async def test_a_promise_is_completed_once(ensemble: Ensemble, how: str) -> None:
    """Whoever comes second is told 409, in every replay; who came first is not, however often it is replayed."""

    async def main(ctx: WorkflowContext) -> list[Any]:
        promise = ctx.promise("p")
        await promise.resolve(1)
        await ctx.run("step", lambda: None)
        second = promise.resolve(2) if how == "resolve" else promise.reject("no")
        with pytest.raises(TerminalError, match="promise was already completed") as caught:
            await second
        await ctx.run("another", lambda: None)
        return [caught.value.status_code, await promise]

    assert (await play_workflow(ensemble, main)).result == [409, 1]


async def test_a_promise_may_be_completed_before_the_run(ensemble: Ensemble) -> None:
    """It is kept for the run that comes later."""
    flow, caller = Workflow("W"), Service("S")

    @flow.main()
    async def main(ctx: WorkflowContext) -> int:
        return await ctx.promise("p", type_hint=int)

    @flow.handler()
    async def resolve(ctx: WorkflowSharedContext) -> int | None:
        await ctx.promise("p", type_hint=int).resolve(7)
        return await ctx.promise("p", type_hint=int).peek()

    @caller.handler()
    async def call(ctx: Context) -> list[int | None]:
        return [await ctx.workflow_call(resolve, "k", None), await ctx.workflow_call(main, "k", None)]

    ensemble.cast(flow, caller)
    assert (await ensemble.act_out(call)).result == [7, 7]
