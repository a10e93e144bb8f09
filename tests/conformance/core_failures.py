"""Handlers for single properties of failures: divergence, retries of steps and attempts, limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal

from perdure.schemas.errors import TerminalError
from perdure.schemas.limits import PAYLOAD_BYTES_MAX
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext
from perdure.worker.options import RunOptions
from perdure.worker.service import Service

from .contract_failures import FAR, MS, FailureToPropagate, terminally_failing_call
from .contract_objects import counter
from .contract_services import echo
from .core_cases import cases, executions, nth, quickly

Divergence = Literal[
    "state_keys",
    "clear_all",
    "run",
    "sleep",
    "call",
    "send",
    "awakeable",
    "signal",
    "get",
    "set",
    "clear",
    "resolve",
    "cancel",
    "attach",
    "fewer",
]


@cases.handler("diverge")
async def diverge(ctx: ObjectContext, what: Divergence) -> str:
    """Issue one command in the first attempt and another in the second, in the same place."""
    if nth(ctx, "diverge") == 1:
        await _first_command(ctx, what)
        raise ValueError("the next attempt does something else")
    if what != "fewer":
        await ctx.run_typed("something else", lambda: None)
    return "it went on"


async def _first_command(ctx: ObjectContext, what: Divergence) -> None:
    # Typed by hand: one statement for each kind, that is all there is to it.
    commands: dict[str, Callable[[], Any]] = {
        "run": lambda: ctx.run_typed("first", lambda: None),
        "sleep": lambda: ctx.sleep(MS),
        "call": lambda: ctx.service_call(echo, "a"),
        "send": lambda: ctx.service_send(echo, "a"),
        "awakeable": lambda: ctx.awakeable(),
        "signal": lambda: ctx.signal("s"),
        "get": lambda: ctx.get("nothing"),
        "state_keys": lambda: ctx.state_keys(),
        "clear_all": lambda: ctx.clear_all(),
        "set": lambda: ctx.set("a", 1),
        "clear": lambda: ctx.clear("a"),
        "resolve": lambda: ctx.resolve_signal(ctx.request().id, "nobody", 1),
        "cancel": lambda: ctx.cancel_invocation(_of_nobody(ctx)),
        "attach": lambda: ctx.attach_invocation(_of_nobody(ctx)),
        "fewer": lambda: ctx.run_typed("first", lambda: None),
    }
    commands[what]()
    # What is recorded before this step's result is recorded with it at the latest.
    await ctx.run_typed("recorded", lambda: None)


def _of_nobody(ctx: Context) -> str:
    return ctx.request().id[:-12] + "0" * 12


@cases.handler("unstablePayload")
async def unstable_payload(ctx: ObjectContext) -> int:
    """Commands whose payloads differ in each attempt; what they are stays the same."""
    attempt = nth(ctx, "payload")
    ctx.set("a", f"written by {attempt}")
    ctx.service_send(echo, f"sent by {attempt}")
    echoed = await ctx.service_call(echo, f"called by {attempt}")
    ctx.sleep(attempt * MS)
    if attempt == 1:
        raise ValueError("the next attempt sends something else")
    assert echoed == "called by 1", "the callee was called once"
    return attempt


@cases.handler("awaitAdded")
async def await_added(ctx: ObjectContext, what: Literal["run", "sleep", "awakeable", "resolved"]) -> str:
    """Await in the second attempt what the first one only issued."""
    made: dict[str, Callable[[], Awaitable[Any]]] = {
        "run": lambda: ctx.run_typed("added", lambda: "value"),
        "sleep": lambda: ctx.sleep(FAR),
        "awakeable": lambda: ctx.awakeable()[1],
        "resolved": lambda: _resolved(ctx),
    }
    future = made[what]()
    if what == "resolved":
        # Its completion is in the journal before what follows is.
        await ctx.sleep(100 * MS)
    if nth(ctx, "added") == 1:
        await ctx.run_typed("recorded", lambda: None)
        raise ValueError("the next attempt awaits one more")
    value = await future
    await ctx.run_typed("recorded", lambda: None)
    return str(value)


def _resolved(ctx: Context) -> Awaitable[str]:
    name, future = ctx.awakeable(type_hint=str)
    ctx.resolve_awakeable(name, "value")
    return future


StepPolicy = Literal["none", "fixed", "exponential", "attempts 1", "attempts 3", "duration"]

OPTIONS: dict[StepPolicy, RunOptions[None]] = {
    "none": RunOptions(),
    "fixed": RunOptions(initial_retry_interval=MS, retry_interval_factor=1.0),
    "exponential": RunOptions(initial_retry_interval=MS, retry_interval_factor=2.0, max_retry_interval=4 * MS),
    "attempts 1": RunOptions(max_attempts=1),
    "attempts 3": RunOptions(max_attempts=3, initial_retry_interval=MS),
    "duration": RunOptions(max_duration=30 * MS, initial_retry_interval=20 * MS),
}


@cases.handler("failingStep")
async def failing_step(ctx: ObjectContext, policy: StepPolicy) -> int:
    """A step that fails three times; the number of its executions."""
    name = f"{ctx.request().id} step"

    def step() -> None:
        executions[name] += 1
        if executions[name] <= 3:
            raise ValueError(f"execution {executions[name]}")

    try:
        await ctx.run_typed("step", step, OPTIONS[policy])
    except TerminalError:
        return -await ctx.run_typed("count", lambda: executions[name])
    return await ctx.run_typed("count", lambda: executions[name])


@cases.handler("tooLarge")
async def too_large(ctx: ObjectContext, what: Literal["step", "state"]) -> None:
    """Have a step return, or write into the state, more than is allowed."""
    value = "x" * (PAYLOAD_BYTES_MAX + 1)
    if what == "state":
        ctx.set("large", value)
    else:
        await ctx.run_typed("large", lambda: value)


@cases.handler("failsAroundProgress")
async def fails_around_progress(ctx: ObjectContext) -> int:
    """Fail three times before each of three steps: more often than allowed in all, and never in a row."""
    for number in range(3):
        if nth(ctx, f"before {number}") <= 3:
            raise ValueError(f"before step {number}")
        await ctx.run_typed(f"step {number}", lambda: None)
    return sum(executions[f"{ctx.request().id} before {number}"] for number in range(3))


@cases.handler("interruptedStep")
async def interrupted_step(ctx: ObjectContext) -> int:
    """Fail while a step runs beside: what was recorded is not executed again."""
    name = f"{ctx.request().id} beside"

    def beside() -> int:
        executions[name] += 1
        return executions[name]

    first = await ctx.run_typed("recorded", beside)
    if nth(ctx, "interrupted") == 1:
        raise ValueError("after the step")
    await ctx.run_typed("after", lambda: None)
    return first * 10 + executions[name]


plain_cases = Service("PlainCases", invocation_retry_policy=quickly)


@plain_cases.handler("failsAfterAttempts")
async def fails_after_attempts(ctx: Context, name: str) -> int:
    """Fail until the test has mended it, by that name."""
    await ctx.run_typed("once", lambda: executions.update([f"{name} once"]))
    if not executions[f"{name} mended"]:
        raise ValueError("nobody has mended this")
    return executions[f"{name} once"]


@plain_cases.handler("failsForGood")
async def fails_for_good(ctx: Context, name: str) -> int:
    """Fail terminally until the test has mended it, by that name."""
    once = await ctx.run_typed("once", lambda: _counted(name))
    if not executions[f"{name} mended"]:
        raise TerminalError("nobody has mended this")
    return once


def _counted(name: str) -> int:
    executions[name] += 1
    return executions[name]


@plain_cases.handler("sleepOnce")
async def sleep_once(ctx: Context) -> str:
    """Sleep and return."""
    await ctx.sleep(5 * MS)
    return "slept"


@plain_cases.handler("callAndFail")
async def call_and_fail(ctx: Context, key: str) -> str:
    """Catch a callee's failure and tell what is known of it."""
    failure = FailureToPropagate("the callee failed", {"a": "b"})
    try:
        await ctx.object_call(terminally_failing_call, key, failure)
    except TerminalError as error:
        return f"{error.status_code} {error.message} {error.metadata}"
    return "it returned"


@plain_cases.handler("delayedAdds")
async def delayed_adds(ctx: Context, key: str) -> list[str]:
    """Ten delayed additions to one counter; their ids."""
    handles = [ctx.object_send(counter.add, key, 1, send_delay=timedelta(milliseconds=1_500)) for _ in range(10)]
    return [await handle.invocation_id() for handle in handles]
