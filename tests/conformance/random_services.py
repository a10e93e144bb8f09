"""What random programs use beside their own objects: a tally, a helper, a workflow, steps that leave traces."""

from __future__ import annotations

import functools
import itertools
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from perdure import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    ObjectSharedContext,
    RetryableError,
    RunOptions,
    Service,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    current_step,
)
from perdure.worker.clock import SystemClock
from tests.process.effects import DIRECTORY_VARIABLE, Effect, Effects

from .random_model import FAILED
from .random_programs import Command

# Soon, because tests wait for it; often, because a worker that is killed counts as a failure.
RETRY: Final = InvocationRetryPolicy(
    initial_interval=timedelta(milliseconds=10), max_interval=timedelta(milliseconds=200), max_attempts=1_000
)

VIOLATED: Final = 599
"""The code of a failure that no program has on purpose: something that must hold does not."""

_counter = itertools.count()
_clock = SystemClock()


def effects() -> Effects:
    """Where the steps of this process leave their traces."""
    return Effects(Path(os.environ[DIRECTORY_VARIABLE]))


@dataclass(frozen=True)
class Look:
    """What a shared handler sees of its object: the counter, and whose program is inside."""

    count: int
    inside: str | None


async def count_of(ctx: ObjectSharedContext) -> int:
    """The counter of an object."""
    return await ctx.get("count", type_hint=int) or 0


tally = VirtualObject("Tally", invocation_retry_policy=RETRY)


@tally.handler()
async def count(ctx: ObjectContext, amount: int) -> int:
    """Count, without any wait between reading and writing."""
    ctx.set("count", await count_of(ctx) + amount)
    return amount


@dataclass(frozen=True)
class Completion:
    """What the helper is to complete: an awakeable, or a signal `name` of the invocation `id`."""

    id: str
    how: str
    name: str = ""
    ms: int = 0


helper = Service("Helper", invocation_retry_policy=RETRY)


@helper.handler()
async def complete(ctx: Context, wanted: Completion) -> None:
    """Resolve, reject, or resolve twice: of the two the first counts."""
    if wanted.ms:
        await ctx.sleep(timedelta(milliseconds=wanted.ms))
    values = ("resolved", "resolved") if wanted.how == "both" else ("resolved",)
    if wanted.how == "reject":
        if wanted.name:
            ctx.reject_signal(wanted.id, wanted.name, "rejected", FAILED)
        else:
            ctx.reject_awakeable(wanted.id, "rejected", FAILED)
        return
    for value in values:
        if wanted.name:
            ctx.resolve_signal(wanted.id, wanted.name, value)
        else:
            ctx.resolve_awakeable(wanted.id, value)


@helper.handler()
async def doom(ctx: Context) -> None:
    """Fail for good."""
    raise TerminalError("doomed", FAILED, {"why": "on purpose"})


@helper.handler()
async def eventual(ctx: Context, times: int) -> str:
    """Fail so many attempts, then succeed."""
    if fails_again(ctx.request().id, times):
        raise RetryableError("not yet", retry_after=timedelta(milliseconds=5))
    return "in the end"


@helper.handler()
async def block(ctx: Context) -> None:
    """Wait until somebody cancels it."""
    _, never = ctx.awakeable(type_hint=str)
    await never


ritual = Workflow("Ritual", invocation_retry_policy=RETRY)


@ritual.main()
async def main(ctx: WorkflowContext, tally_key: str) -> str:
    """Wait for a blessing, count, and return it."""
    blessing = await ctx.promise("blessing", type_hint=str)
    await ctx.object_call(count, tally_key, 1)
    return blessing


@ritual.handler()
async def bless(ctx: WorkflowSharedContext, blessing: str) -> None:
    """Let the run go on."""
    await ctx.promise("blessing", type_hint=str).resolve(blessing)


def step_of(ctx: Context, command: Command) -> tuple[str, Any, RunOptions[str]]:
    """Name, action and options of a step: it leaves a trace of each execution."""
    attempt = ctx.request().attempt
    retried = RunOptions[str](
        initial_retry_interval=timedelta(milliseconds=5),
        max_retry_interval=timedelta(milliseconds=20),
        max_attempts=command.times if command.kind == "broken" else None,
    )
    if command.kind == "step" and command.name == "thread":
        return command.kind, functools.partial(_execute, attempt, command), retried

    async def execute() -> str:
        return _execute(attempt, command)

    return command.kind, execute, retried


def _execute(attempt: int, command: Command) -> str:
    step = current_step()
    assert step is not None, "it is called inside steps only"
    key = step.idempotency_key
    failing = command.kind == "broken" or (command.kind == "flaky" and fails_again(key, command.times))
    execution = f"{os.getpid()}/{next(_counter)}"
    effects().append(
        Effect(step.invocation_id, step.name, attempt, execution, key, os.getpid(), int(_clock.monotonic_ms()), failing)
    )
    if failing:
        raise RuntimeError("fails on purpose")
    if command.kind == "raising":
        raise TerminalError("raised in a step", FAILED)
    return command.kind


def fails_again(what: str, times: int) -> bool:
    """Whether this has not failed so often yet, in any process; then it does now."""
    return any(effects().first_time(f"{what}-{number}") for number in range(times))
