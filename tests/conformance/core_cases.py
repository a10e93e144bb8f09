"""Handlers for single properties of the model: awaiting, combinators, cancellation.

Source: the properties are those that the unit tests of Restate's shared core show; handlers and tests are our own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from perdure.schemas.errors import TerminalError
from perdure.worker.combinators import first_success, gather, gather_results, select, with_timeout
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext
from perdure.worker.options import InvocationRetryPolicy
from perdure.worker.virtual_object import VirtualObject

from .contract_failures import FAR, MS
from .contract_objects import hold, list_object
from .contract_services import block_and_wait, echo, get_state, unblock

executions: Counter[str] = Counter()
"""What really happened in this process, by invocation and name."""

quickly = InvocationRetryPolicy(initial_interval=10 * MS, max_interval=20 * MS, max_attempts=4)

cases = VirtualObject("CoreCases", invocation_retry_policy=quickly)


def nth(ctx: Context, name: str) -> int:
    """Count this execution of that place, over all attempts of the invocation."""
    executions[f"{ctx.request().id} {name}"] += 1
    return executions[f"{ctx.request().id} {name}"]


@cases.handler("callNotAwaited")
async def call_not_awaited(ctx: ObjectContext) -> None:
    """Call and return."""
    ctx.object_call(list_object.append, ctx.key(), "called")


@cases.handler("awaitTwice")
async def await_twice(ctx: ObjectContext) -> list[str]:
    """Await one future twice, with something in between."""
    future = ctx.service_call(echo, "a")
    first = await future
    await ctx.sleep(5 * MS)
    return [first, await future]


@cases.handler("sharedFutures")
async def shared_futures(ctx: ObjectContext) -> list[str]:
    """Give one future to several combinators, and await it by itself."""
    called = ctx.service_call(echo, "a")
    step = ctx.run_typed("step", lambda: "b")
    slept = ctx.sleep(5 * MS)
    await gather(called, slept)
    return [await called, *(await gather_results(called, step)), await first_success(called), await step]


@cases.handler("partlyResolved")
async def partly_resolved(ctx: ObjectContext) -> list[str]:
    """Wait for two awakeables of which one comes long before the other."""
    names, futures = zip(*(ctx.awakeable(type_hint=str) for _ in range(2)), strict=True)
    for name in names:
        ctx.object_send(list_object.append, ctx.key(), name)
    return await gather_results(*futures)


@cases.handler("combinatorThenMore")
async def combinator_then_more(ctx: ObjectContext) -> list[str]:
    """A race, and commands after it that depend on who won."""
    name, answer = ctx.awakeable(type_hint=str)
    ctx.object_send(hold, ctx.key(), name)
    winner, _ = await select(answer=answer, never=ctx.sleep(FAR))
    after = await ctx.run_typed(f"after {winner}", lambda: str(winner))
    echoed = await ctx.service_call(echo, after)
    return [str(winner), after, echoed]


@cases.handler("nested")
async def nested(ctx: ObjectContext) -> list[Any]:
    """Combinators inside of asyncio's, and tasks of the handler's own."""
    slow, quick = ctx.sleep(FAR), ctx.sleep(5 * MS)

    async def raced() -> str:
        winner, _ = await select(slow=slow, quick=quick)
        return await ctx.run_typed(f"after {winner}", lambda: str(winner))

    async def echoed(text: str) -> str:
        return await ctx.service_call(echo, text)

    both = asyncio.gather(raced(), gather_results(*(ctx.service_call(echo, text) for text in "ab")))
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(echoed(text)) for text in "cd"]
    return [*await both, *(task.result() for task in made)]


@cases.handler("timedOut")
async def timed_out(ctx: ObjectContext) -> str:
    """Bound something that never comes, then go on."""
    _, never = ctx.awakeable(type_hint=str)
    try:
        await with_timeout(never, 10 * MS)
    except TimeoutError:
        return await ctx.run_typed("after", lambda: "timed out")
    return "it came"


@cases.handler("compensate")
async def compensate(ctx: ObjectContext) -> str:
    """Undo what was done when the wait is cancelled."""
    name, never = ctx.awakeable(type_hint=str)
    ctx.object_send(hold, ctx.key(), name)
    await ctx.run_typed("do", lambda: executions.update([f"{ctx.key()} do"]))
    try:
        return await never
    except TerminalError as error:
        await ctx.sleep(5 * MS)
        await ctx.run_typed("undo", lambda: executions.update([f"{ctx.key()} undo"]))
        return f"{error.status_code} compensated"


@cases.handler("awaitAfterCancel")
async def await_after_cancel(ctx: ObjectContext) -> str:
    """Await an interrupted future once more: the cancellation was not its result."""
    name, future = ctx.awakeable(type_hint=str)
    ctx.object_send(hold, ctx.key(), name)
    try:
        return await future
    except TerminalError as error:
        ctx.object_send(list_object.append, ctx.key(), f"cancelled {error.status_code}")
        return await future


@cases.handler("waitsForEver")
async def waits_for_ever(ctx: ObjectContext) -> None:
    """Wait for what nobody brings, after saying so."""
    name, never = ctx.awakeable(type_hint=str)
    ctx.object_send(hold, ctx.key(), name)
    await never


@cases.handler("sendsAndWaits")
async def sends_and_waits(ctx: ObjectContext, other: str) -> None:
    """Send to one that waits, and wait oneself."""
    await ctx.object_send(waits_for_ever, other, None).invocation_id()
    await waits_for_ever(ctx)


@cases.handler("cancelsItsCallee")
async def cancels_its_callee(ctx: ObjectContext, callee: str) -> str:
    """Cancel a call by its future, and see it fail."""
    future = ctx.object_call(waits_for_ever, callee, None)
    await ctx.run_typed("before", lambda: None)
    await future.cancel_invocation()
    try:
        await future
    except TerminalError as error:
        return f"{error.status_code} {await future.invocation_id()}"
    return "it returned"


@cases.handler("callsWorkflow")
async def calls_workflow(ctx: ObjectContext, workflow: str) -> list[str]:
    """Submit a workflow three times, in all ways, and resolve what it waits for: the results of the calls."""
    sent = await ctx.workflow_send(block_and_wait, workflow, "sent").invocation_id()
    called = ctx.workflow_call(block_and_wait, workflow, "called")
    assert await called.invocation_id() == sent, "a workflow has one run"
    named = ctx.generic_call("BlockAndWaitWorkflow", "run", b'"named"', key=workflow)
    while await ctx.workflow_call(get_state, workflow, None) is None:
        await ctx.sleep(5 * MS)
    await ctx.workflow_call(unblock, workflow, "unblocked")
    return [str(await ctx.workflow_call(get_state, workflow, None)), await called, (await named).decode()]


@cases.handler("waitsForWorkflow")
async def waits_for_workflow(ctx: ObjectContext, by_name: bool) -> None:
    """Call a workflow of this object's key, which waits for a promise."""
    if by_name:
        await ctx.generic_call("BlockAndWaitWorkflow", "run", b'"called"', key=ctx.key())
    else:
        await ctx.workflow_call(block_and_wait, ctx.key(), "called")


@cases.handler("attaches")
async def attaches(ctx: ObjectContext, invocation_id: str) -> str:
    """Wait for another invocation's outcome."""
    return await ctx.attach_invocation(invocation_id, type_hint=str)
