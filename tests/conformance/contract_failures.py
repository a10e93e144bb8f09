"""Contract services that fail, are cancelled or killed, or do not do the same thing twice.

What must change between two attempts is remembered in this process, as the contract asks: journals must not know of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from perdure.schemas.errors import TerminalError
from perdure.worker.object_context import ObjectContext
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from perdure.worker.virtual_object import VirtualObject

from .contract_objects import counter, hold

MS = timedelta(milliseconds=1)
FAR = timedelta(days=1024)
EVENTUAL_SUCCESS_AFTER = 4

BlockingOperation = Literal["CALL", "SLEEP", "AWAKEABLE"]

_executions: Counter[str] = Counter()
_quickly = InvocationRetryPolicy(initial_interval=10 * MS, max_interval=50 * MS)


@dataclass(frozen=True)
class FailureToPropagate:
    """A terminal failure to end with."""

    message: str
    metadata: dict[str, str] = field(default_factory=dict)


failing = VirtualObject("Failing", invocation_retry_policy=_quickly)


@failing.handler("terminallyFailingCall")
async def terminally_failing_call(ctx: ObjectContext, failure: FailureToPropagate) -> None:
    """Fail for good."""
    raise TerminalError(failure.message, metadata=failure.metadata)


@failing.handler("callTerminallyFailingCall")
async def call_terminally_failing_call(ctx: ObjectContext, failure: FailureToPropagate) -> str:
    """Fail for good because of a callee."""
    await ctx.object_call(terminally_failing_call, f"{ctx.key()}-{ctx.uuid()}", failure)
    return "This is never reached"


@failing.handler("failingCallWithEventualSuccess")
async def failing_call_with_eventual_success(ctx: ObjectContext) -> int:
    """Fail in a way that may pass, three times."""
    name = f"eventual {ctx.request().id}"
    _executions[name] += 1
    if _executions[name] < EVENTUAL_SUCCESS_AFTER:
        raise ValueError(f"Failed at attempt {_executions[name]}")
    return _executions.pop(name)


@failing.handler("terminallyFailingSideEffect")
async def terminally_failing_side_effect(ctx: ObjectContext, failure: FailureToPropagate) -> None:
    """Fail for good because of a step."""

    def effect() -> None:
        raise TerminalError(failure.message, metadata=failure.metadata)

    await ctx.run_typed("sideEffect", effect)
    raise ValueError("This is never reached")


@failing.handler("sideEffectSucceedsAfterGivenAttempts")
async def side_effect_succeeds_after_given_attempts(ctx: ObjectContext, minimum_attempts: int) -> int:
    """Execute a step until it succeeds; the number of executions."""
    name = f"succeeds {ctx.request().id}"

    def effect() -> int:
        _executions[name] += 1
        if _executions[name] < minimum_attempts:
            raise ValueError(f"Failed at execution {_executions[name]}")
        return _executions[name]

    options = RunOptions[int](max_attempts=minimum_attempts + 1, initial_retry_interval=MS, retry_interval_factor=1.0)
    return await ctx.run_typed("failing_side_effect", effect, options)


@failing.handler("sideEffectFailsAfterGivenAttempts")
async def side_effect_fails_after_given_attempts(ctx: ObjectContext, retry_policy_max_attempts: int) -> int:
    """Execute a step that never succeeds; the number of executions before its TerminalError."""
    name = f"fails {ctx.request().id}"

    def effect() -> None:
        _executions[name] += 1
        raise ValueError(f"Failed at execution {_executions[name]}")

    options = RunOptions[None](
        max_attempts=retry_policy_max_attempts, initial_retry_interval=MS, retry_interval_factor=1.0
    )
    try:
        await ctx.run_typed("failing_side_effect", effect, options)
    except TerminalError:
        return await ctx.run_typed("count", lambda: _executions[name])
    raise ValueError("This is never reached")


cancel_test_runner = VirtualObject("CancelTestRunner")
cancel_test_blocking_service = VirtualObject("CancelTestBlockingService")
CANCELED = "state"


@cancel_test_runner.handler("startTest")
async def start_test(ctx: ObjectContext, operation: BlockingOperation) -> None:
    """Wait for something that ends by cancellation only, and remember that it did."""
    try:
        await ctx.object_call(block, ctx.key(), operation)
    except TerminalError as error:
        if error.status_code != 409:
            raise
        ctx.set(CANCELED, True)


@cancel_test_runner.handler("verifyTest")
async def verify_test(ctx: ObjectContext) -> bool:
    """Whether it ended so."""
    return await ctx.get(CANCELED, type_hint=bool) or False


@cancel_test_blocking_service.handler("block")
async def block(ctx: ObjectContext, operation: BlockingOperation) -> None:
    """Wait for ever, holding the object, after saying so through an awakeable."""
    name, released = ctx.awakeable(type_hint=str)
    await ctx.object_call(hold, ctx.key(), name)
    await released
    match operation:
        case "CALL":
            # Of this very object, which this invocation holds.
            await ctx.object_call(block, ctx.key(), operation)
        case "SLEEP":
            await ctx.sleep(FAR)
        case "AWAKEABLE":
            _, never = ctx.awakeable(type_hint=str)
            await never


@cancel_test_blocking_service.handler("isUnlocked")
async def is_unlocked(ctx: ObjectContext) -> None:
    """Answer, once the object is free."""


kill_test_runner = VirtualObject("KillTestRunner")
kill_test_singleton = VirtualObject("KillTestSingleton")


@kill_test_runner.handler("startCallTree")
async def start_call_tree(ctx: ObjectContext) -> None:
    """Call something that never returns."""
    await ctx.object_call(recursive_call, ctx.key(), None)


@kill_test_singleton.handler("recursiveCall")
async def recursive_call(ctx: ObjectContext, nothing: None) -> None:
    """Wait for somebody to say go, then call the object that this invocation holds."""
    name, released = ctx.awakeable(type_hint=str)
    ctx.object_send(hold, ctx.key(), name)
    await released
    await ctx.object_call(recursive_call, ctx.key(), None)


@kill_test_singleton.handler("isUnlocked")
async def singleton_is_unlocked(ctx: ObjectContext) -> None:
    """Answer, once the object is free."""


non_deterministic = VirtualObject("NonDeterministic")


def _goes_left(ctx: ObjectContext, handler: str) -> bool:
    name = f"{handler} {ctx.request().id}"
    _executions[name] += 1
    return _executions[name] % 2 == 1


async def _then_count(ctx: ObjectContext) -> None:
    await ctx.sleep(100 * MS)
    ctx.object_send(counter.add, ctx.key(), 1)


@non_deterministic.handler("eitherSleepOrCall")
async def either_sleep_or_call(ctx: ObjectContext) -> None:
    """Sleep in one attempt, call in the next."""
    if _goes_left(ctx, "eitherSleepOrCall"):
        await ctx.sleep(100 * MS)
    else:
        await ctx.object_call(counter.get, "abc", None)
    await _then_count(ctx)


@non_deterministic.handler("callDifferentMethod")
async def call_different_method(ctx: ObjectContext) -> None:
    """Call one handler in one attempt, another in the next."""
    if _goes_left(ctx, "callDifferentMethod"):
        await ctx.object_call(counter.get, "abc", None)
    else:
        await ctx.object_call(counter.reset, "abc", None)
    await _then_count(ctx)


@non_deterministic.handler("backgroundInvokeWithDifferentTargets")
async def background_invoke_with_different_targets(ctx: ObjectContext) -> None:
    """Send to one handler in one attempt, to another in the next."""
    if _goes_left(ctx, "backgroundInvokeWithDifferentTargets"):
        ctx.object_send(counter.get, "abc", None)
    else:
        ctx.object_send(counter.reset, "abc", None)
    await _then_count(ctx)


@non_deterministic.handler("setDifferentKey")
async def set_different_key(ctx: ObjectContext) -> None:
    """Write one name in one attempt, another in the next."""
    if _goes_left(ctx, "setDifferentKey"):
        ctx.set("a", "my-state")
    else:
        ctx.set("b", "my-state")
    await _then_count(ctx)


FAILURES = (
    failing,
    cancel_test_runner,
    cancel_test_blocking_service,
    kill_test_runner,
    kill_test_singleton,
    non_deterministic,
)
