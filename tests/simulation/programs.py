"""What the simulated workers run: handlers that do what their argument says, and what their results must be.

An argument is a program, a list of moves:

```
["step", fails]     a step that fails so often first       -> its number
["sleep", ms]       a durable sleep                         -> null
["both", ms]        a step and a sleep at once              -> its number; without a sleep likewise
["call", program]   a call of another invocation            -> its result
["send", program]   a send, for which nobody waits          -> null
["add", key, n]     a call of an object's exclusive handler -> the object's total, which depends on the order
["post", key, n]    likewise, sent                          -> null
["awakeable"]       what somebody outside completes, twice  -> what the first one brought
["signal", name]    waits for a signal                      -> what it brings
["fail"]            a terminal failure
```

That of an object's `nest` is a list of programs, which it calls all at once, and `add` of its own object with them: it
waits for what waits for it, and ends only when somebody kills it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from perdure.journal.store import Claim
from perdure.schemas.entries import Run
from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import InvocationId
from perdure.worker.application import Application, app
from perdure.worker.combinators import gather
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext, WorkflowContext, WorkflowSharedContext
from perdure.worker.options import InvocationRetryPolicy
from perdure.worker.scope import SCOPE
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

from .versions import Change, moves_of

Move = tuple[Any, ...]
Program = tuple[Move, ...]

WORK, BOX, FLOW = "Work", "Box", "Flow"
SIGNAL = "go"
PROMISE = "word"
FAILED = 418
"""The code of a program that fails on purpose."""

NEST = f"{BOX}/nest"
"""Whose invocations nothing but a kill ends."""

ANY = "*"
"""In what is expected: any value."""


class Outside(Protocol):
    """The world beside the store, as handlers see it: what they do to it is counted."""

    def executes(self, invocation_id: InvocationId, step: str, claim: Claim) -> int:
        """A step begins; how often it did before."""

    def tells(self, awakeable: str) -> None:
        """Somebody outside learns the name of an awakeable."""


class _Machine(Protocol):
    outside: Outside
    change: Change | None


def _machine() -> _Machine:
    machine: Any = asyncio.get_running_loop()
    found: _Machine = machine
    return found


def _step(ctx: Context, name: str, *, fails: int, value: Any) -> Any:
    scope: Any = SCOPE.get()
    invocation_id, claim, outside = ctx.request().id, scope.claim, _machine().outside

    async def act() -> Any:
        before = outside.executes(invocation_id, name, claim)
        # In the middle of an effect, too, a worker may end.
        await asyncio.sleep(0.001)
        if before < fails:
            raise RuntimeError(f"{name} fails")
        return value

    return ctx.run(name, act)


async def _move(ctx: Context, at: Any, move: Sequence[Any]) -> Any:
    match move:
        case ["step", fails]:
            return await _step(ctx, f"s{at}", fails=fails, value=at)
        case ["sleep", ms]:
            return await ctx.sleep(timedelta(milliseconds=ms))
        case ["both", *sleeps]:
            step = _step(ctx, f"s{at}", fails=0, value=at)
            await gather(step, *(ctx.sleep(timedelta(milliseconds=ms)) for ms in sleeps))
            return await step
        case ["call", program]:
            return await ctx.service_call(play, program)
        case ["send", program]:
            ctx.service_send(play, program)
            return None
        case ["add", key, amount]:
            return await ctx.object_call(add, key, amount)
        case ["post", key, amount]:
            ctx.object_send(add, key, amount)
            return None
        case ["awakeable"]:
            name, awaited = ctx.awakeable()
            outside = _machine().outside

            async def tell() -> None:
                outside.tells(name)

            await ctx.run(f"s{at}", tell)
            return await awaited
        case ["signal", name]:
            return await ctx.signal(name)
        case ["fail"]:
            raise TerminalError("as asked", FAILED)
        case _:
            raise TerminalError(f"no such move: {move}", 400)


_work = Service(WORK)
_box = VirtualObject(BOX)
_flow = Workflow(FLOW)


@_work.handler()
async def play(ctx: Context, program: list[Any]) -> list[Any]:
    """Do one move after the other."""
    return [await _move(ctx, label, move) for label, move in moves_of(program, _machine().change)]


@_box.handler()
async def add(ctx: ObjectContext, amount: int) -> int:
    """Add to the object's total, slowly."""
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    for label, move in moves_of([["step", 0]], _machine().change):
        await _move(ctx, label, move)
    ctx.set("total", total)
    if amount % 2:
        await ctx.sleep(timedelta(milliseconds=amount))
    return total


@_box.handler()
async def nest(ctx: ObjectContext, programs: list[Any]) -> None:
    """Call what wants this object, too, directly or not: none of it may have a turn before this ends."""
    await _step(ctx, "s0", fails=0, value=0)
    await gather(
        ctx.object_call(add, ctx.key(), 2),
        *(ctx.service_call(play, program) for program in programs),
    )


@_flow.main()
async def run(ctx: WorkflowContext, program: list[Any]) -> Any:
    """Do the moves, then wait for a promise that somebody else keeps."""
    for label, move in moves_of(program, _machine().change):
        await _move(ctx, label, move)
    return await ctx.promise(PROMISE, type_hint=int)


@_flow.handler()
async def give(ctx: WorkflowSharedContext, word: int) -> None:
    """Keep the promise; the first word counts."""
    try:
        await ctx.promise(PROMISE, type_hint=int).resolve(word)
    except TerminalError as error:
        if error.status_code != 409:
            raise


def application() -> Application:
    """The application of all simulated workers."""
    return app(
        [_work, _box, _flow],
        journal_retention=timedelta(days=1),
        idempotency_retention=timedelta(days=1),
        invocation_retry_policy=InvocationRetryPolicy(
            initial_interval=timedelta(milliseconds=50), max_interval=timedelta(milliseconds=400)
        ),
    )


def expected(program: Program, change: Change | None = None, *, versions: bool = False) -> Any:
    """What `play` returns; `ANY` for what depends on others. `None` where it fails, or what it calls does.

    Args:
        program: Its argument.
        change: Of its code.
        versions: What it calls may run in any version, and so may end in any way.
    """
    results: list[Any] = []
    for at, move in moves_of(program, change):
        match move:
            case ("step", _) | ("both", *_):
                results.append(at)
            case ("call", _) if versions:
                results.append(ANY)
            case ("sleep", _) | ("send", _) | ("post", *_):
                results.append(None)
            case ("call", called):
                inner = expected(called)
                if inner is None:
                    return None
                results.append(inner)
            case ("fail",):
                return None
            case _:
                results.append(ANY)
    return results


def may_fail(program: Program) -> bool:
    """Whether it fails on purpose, or what it calls does."""
    return any(move[0] == "fail" or (move[0] == "call" and may_fail(move[1])) for move in program)


def agrees(wanted: Any, found: Any) -> bool:
    """Whether a result is what was expected."""
    if wanted == ANY:
        return True
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return all(map(agrees, wanted, found))
    return bool(wanted == found)


def known_steps(claim: Claim) -> frozenset[str]:
    """The steps whose results an attempt began with."""
    return frozenset(row.entry.name for row in claim.entries if isinstance(row.entry, Run))
