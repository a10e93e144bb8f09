"""What handler authors call: `perdure.worker.context`."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from perdure.schemas.entries import Sleep
from perdure.schemas.errors import UsageError
from perdure.worker.context import AttemptFinishedEvent, Context
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from tests.worker.attempt_stage import Stage, handler_from, paused_reason

MS = timedelta(milliseconds=1)
ONCE = InvocationRetryPolicy(max_attempts=1)


class Receipt(BaseModel):
    """A step's result."""

    total: int


def add(one: int, two: int = 10) -> int:
    """A plain function."""
    return one + two


async def add_async(one: int, two: int = 10) -> int:
    """An async function."""
    await asyncio.sleep(0)
    return one + two


class Adder:
    """Callable objects, plain and async."""

    def method(self, one: int) -> int:
        """A method."""
        return one + 10

    async def async_method(self, one: int) -> int:
        """An async method."""
        return one + 10

    async def __call__(self, one: int) -> int:
        """The object itself."""
        return one + 10


ACTIONS: dict[str, Any] = {
    "function": add,
    "async function": add_async,
    "partial": partial(add, two=10),
    "async partial": partial(add_async, two=10),
    "lambda": lambda one: one + 10,
    "lambda with a coroutine": lambda one: add_async(one),
    "method": Adder().method,
    "async method": Adder().async_method,
    "async callable": Adder(),
}


@pytest.mark.parametrize("kind", ACTIONS)
async def test_every_kind_of_action_runs(stage: Stage, kind: str) -> None:
    """Functions, lambdas, partials, methods and callables, plain or async, through `run` and `run_typed`."""

    async def play(ctx: Context) -> list[Any]:
        action = ACTIONS[kind]
        return [
            await ctx.run("run", action, args=(1,)),
            await ctx.run_typed("run_typed", action, RunOptions(), 2),
        ]

    assert (await stage.play(play)).result == [11, 12]


async def test_values_keep_their_types(stage: Stage) -> None:
    """A step's value is of the annotated type, in the attempt that made it as in every replay."""
    seen: list[Any] = []

    async def play(ctx: Context) -> int:
        def step() -> Receipt:
            return Receipt(total=7)

        hinted: Any = await ctx.run("hinted", lambda: {"total": 8}, type_hint=Receipt)
        receipt = await ctx.run("annotated", step)
        seen.extend((hinted, receipt))
        await ctx.run("last", lambda: None)
        return int(hinted.total + receipt.total)

    assert (await stage.play(play)).result == 15
    assert {type(value) for value in seen} == {Receipt}


async def test_chance_and_time_are_the_same_in_every_replay(stage: Stage) -> None:
    """UUIDs and random numbers follow from the invocation, and the time is read once."""
    seen: list[tuple[Any, ...]] = []

    async def play(ctx: Context) -> str:
        values = (ctx.uuid(), ctx.random().random(), ctx.uuid(), ctx.random().choice("abc"), await ctx.time())
        seen.append(values)
        await ctx.run("step", lambda: None)
        if len(seen) < 4:
            raise ValueError("so that there is a replay")
        assert values[0] != values[2]
        return str(values[0])

    handler = handler_from(play)
    story = await stage.play(handler)
    assert len(set(seen)) == 1
    assert (await stage.play(handler)).result != story.result


async def test_the_request_tells_what_was_asked(plain_stage: Stage) -> None:
    """Id, headers (also as they arrived), the attempt's number, the raw body, the idempotency key."""
    plain_stage.headers = (("traceparent", b"00-abc"), ("null", None), ("twice", b"1"), ("twice", b"\xff"))
    plain_stage.idempotency_key = "order-7"
    attempts: Counter[str] = Counter()

    async def play(ctx: Context, argument: Any) -> list[Any]:
        attempts["n"] += 1
        if attempts["n"] == 1:
            raise ValueError("so that there is another attempt")
        request = ctx.request()
        assert request.raw_headers == plain_stage.headers
        assert request.step_idempotency_key is None
        return [request.id, dict(request.headers), request.attempt, request.body.decode(), request.idempotency_key]

    story = await plain_stage.play(play, raw=b' {"a" :1}')
    headers = {"traceparent": "00-abc", "twice": "\ufffd"}
    assert story.result == [story.invocation_id, headers, 2, ' {"a" :1}', "order-7"]


async def test_step_idempotency_keys_stay_the_same(stage: Stage) -> None:
    """A step can ask for a key that no other step has and that each of its executions is given again."""
    keys: dict[str, list[str | None]] = {"a": [], "b": []}

    async def play(ctx: Context) -> None:
        async def step(name: str) -> None:
            keys[name].append(ctx.request().step_idempotency_key)
            if len(keys[name]) < 3:
                raise ValueError("not yet")

        await ctx.run_typed("a", step, RunOptions(initial_retry_interval=MS), "a")
        await ctx.run_typed("b", step, RunOptions(), "b")

    assert (await stage.play(play)).status == "completed"
    assert [len(set(keys[name])) for name in "ab"] == [1, 1]
    assert len(keys["a"]) == len(keys["b"]) == 3
    assert None not in keys["a"]
    assert keys["a"] != keys["b"]


USES: dict[str, Any] = {
    "run": lambda ctx: ctx.run("inner", lambda: None),
    "run_typed": lambda ctx: ctx.run_typed("inner", lambda: None),
    "sleep": lambda ctx: ctx.sleep(MS),
    "uuid": lambda ctx: ctx.uuid(),
    "random": lambda ctx: ctx.random(),
    "time": lambda ctx: ctx.time(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("where", ["thread", "loop", "task"])
async def test_ctx_inside_a_step_is_refused_at_once(plain_stage: Stage, use: str, where: str) -> None:
    """The message names the step; nothing of it reaches the journal."""

    async def play(ctx: Context) -> None:
        async def on_the_loop() -> None:
            USES[use](ctx)

        async def in_a_task() -> None:
            await asyncio.create_task(on_the_loop())

        actions: dict[str, Any] = {"thread": lambda: USES[use](ctx), "loop": on_the_loop, "task": in_a_task}
        await ctx.run("outer", actions[where])

    story = await plain_stage.play(handler_from(play, invocation_retry_policy=ONCE))
    assert "UsageError" in paused_reason(story)
    assert "inside the step 'outer'" in paused_reason(story)
    assert story.steps == []


async def test_ctx_after_the_end_is_refused(plain_stage: Stage) -> None:
    """A context that was kept beyond its attempt does nothing more."""
    kept: list[Context] = []

    async def play(ctx: Context) -> None:
        kept.append(ctx)

    await plain_stage.play(play)
    for use in USES.values():
        with pytest.raises(asyncio.CancelledError):
            use(kept[0])


WRONG: dict[str, Any] = {
    "not a function": (lambda ctx: ctx.run("step", 7), "takes a function"),
    "nothing": (lambda ctx: ctx.run("step", None), "takes a function"),
    "a name that is too long": (lambda ctx: ctx.run("x" * 201, lambda: None), "at most 200 characters"),
    "a sleep without a unit": (lambda ctx: ctx.sleep(5), "takes a timedelta"),
    "an option out of bounds": (lambda ctx: ctx.run("step", lambda: None, max_attempts=0), "from 1 on"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_wrong_calls_are_refused_by_name(plain_stage: Stage, mistake: str) -> None:
    """At the call, with a message that says what is taken."""
    use, message = WRONG[mistake]
    said: list[str] = []

    async def play(ctx: Context) -> None:
        try:
            await use(ctx)
        except (UsageError, ValueError) as error:
            said.append(str(error))

    assert (await plain_stage.play(play)).status == "completed"
    assert message in said[0]


async def test_a_sleep_may_be_as_long_as_can_be_said(plain_stage: Stage) -> None:
    """It is recorded, and the invocation waits outside of memory."""

    async def play(ctx: Context) -> None:
        await ctx.sleep(timedelta.max)

    story, claim = plain_stage.begin(play)
    story.ends.append(await plain_stage.run(story.handler, claim))
    story = await plain_stage.look(story)
    assert story.status == "suspended"
    assert [entry.duration_ms for entry in story.entries if isinstance(entry, Sleep)] == [86_400_000_000_000_000]


async def test_what_belongs_to_an_attempt_learns_of_its_end(stage: Stage) -> None:
    """The event of each attempt is set once that attempt has ended, and not before."""
    events: list[AttemptFinishedEvent] = []

    async def play(ctx: Context) -> bool:
        event = ctx.request().attempt_finished_event
        assert ctx.request().attempt_finished_event is event
        if event not in events:
            events.append(event)
        await ctx.run("step", lambda: None)
        return event.is_set()

    assert (await stage.play(play)).result is False
    assert events
    for event in events:
        await event.wait()
