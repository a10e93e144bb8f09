"""The VirtualObjectCommandInterpreter: awaits whatever it is told to, in whatever combination, and keeps the results.

Its whole vocabulary: five awaitables, and commands that await one, several through each combinator, or complete one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from perdure.schemas.errors import TerminalError
from perdure.worker.combinators import as_completed, first_success, gather, gather_results, select, with_timeout
from perdure.worker.futures import DurableFuture
from perdure.worker.object_context import ObjectContext, ObjectSharedContext
from perdure.worker.virtual_object import VirtualObject

RESULTS = "results"
TIMED_OUT = "await-timeout"


@dataclass(frozen=True)
class CreateAwakeable:
    """An awakeable that others resolve by this key."""

    awakeable_key: str
    type: Literal["createAwakeable"] = "createAwakeable"


@dataclass(frozen=True)
class Sleep:
    """A sleep; its value is `sleep`."""

    timeout_ms: int
    type: Literal["sleep"] = "sleep"


@dataclass(frozen=True)
class RunReturns:
    """A step with this result."""

    value: str
    type: Literal["runReturns"] = "runReturns"


@dataclass(frozen=True)
class RunThrowTerminalException:
    """A step that fails for good."""

    reason: str
    type: Literal["runThrowTerminalException"] = "runThrowTerminalException"


@dataclass(frozen=True)
class CreateSignal:
    """The next signal of that name."""

    signal_name: str
    type: Literal["createSignal"] = "createSignal"


AwaitableCommand = Annotated[
    CreateAwakeable | Sleep | RunReturns | RunThrowTerminalException | CreateSignal, Field(discriminator="type")
]


@dataclass(frozen=True)
class AwaitOne:
    """Await it."""

    command: AwaitableCommand
    type: Literal["awaitOne"] = "awaitOne"


@dataclass(frozen=True)
class AwaitAny:
    """The first that is done, however it ends."""

    commands: list[AwaitableCommand]
    type: Literal["awaitAny"] = "awaitAny"


@dataclass(frozen=True)
class AwaitAnySuccessful:
    """The first that succeeds, looking at them in the order in which they are done."""

    commands: list[AwaitableCommand]
    type: Literal["awaitAnySuccessful"] = "awaitAnySuccessful"


@dataclass(frozen=True)
class AwaitAwakeableOrTimeout:
    """An awakeable, or a terminal failure after that time."""

    awakeable_key: str
    timeout_ms: int
    type: Literal["awaitAwakeableOrTimeout"] = "awaitAwakeableOrTimeout"


@dataclass(frozen=True)
class AwaitFirstSucceededOrAllFailed:
    """The first that succeeds, or the last failure."""

    commands: list[AwaitableCommand]
    type: Literal["awaitFirstSucceededOrAllFailed"] = "awaitFirstSucceededOrAllFailed"


@dataclass(frozen=True)
class AwaitFirstCompleted:
    """The first that is done, or its failure."""

    commands: list[AwaitableCommand]
    type: Literal["awaitFirstCompleted"] = "awaitFirstCompleted"


@dataclass(frozen=True)
class AwaitAllSucceededOrFirstFailed:
    """All values, or the first failure."""

    commands: list[AwaitableCommand]
    type: Literal["awaitAllSucceededOrFirstFailed"] = "awaitAllSucceededOrFirstFailed"


@dataclass(frozen=True)
class AwaitAllCompleted:
    """All of them: `ok:value` or `err:message`."""

    commands: list[AwaitableCommand]
    type: Literal["awaitAllCompleted"] = "awaitAllCompleted"


@dataclass(frozen=True)
class ResolveAwakeable:
    """Resolve an awakeable of this object."""

    awakeable_key: str
    value: str
    type: Literal["resolveAwakeable"] = "resolveAwakeable"


@dataclass(frozen=True)
class RejectAwakeable:
    """Reject an awakeable of this object."""

    awakeable_key: str
    reason: str
    type: Literal["rejectAwakeable"] = "rejectAwakeable"


@dataclass(frozen=True)
class GetEnvVariable:
    """A variable of the worker's environment, read in a step."""

    env_name: str
    type: Literal["getEnvVariable"] = "getEnvVariable"


Command = Annotated[
    AwaitOne
    | AwaitAny
    | AwaitAnySuccessful
    | AwaitAwakeableOrTimeout
    | AwaitFirstSucceededOrAllFailed
    | AwaitFirstCompleted
    | AwaitAllSucceededOrFirstFailed
    | AwaitAllCompleted
    | ResolveAwakeable
    | RejectAwakeable
    | GetEnvVariable,
    Field(discriminator="type"),
]


@dataclass(frozen=True)
class Program:
    """Commands, one after the other."""

    commands: list[Command]


Awaited = DurableFuture[Any]

interpreter = VirtualObject("VirtualObjectCommandInterpreter")


@interpreter.handler("interpretCommands")
async def interpret_commands(ctx: ObjectContext, program: Program) -> str:
    """Execute the commands, keep each result, and return the last one."""
    result = ""
    for command in program.commands:
        result = await _execute(ctx, command)
        ctx.set(RESULTS, [*(await ctx.get(RESULTS, type_hint=list[str]) or []), result])
    return result


@interpreter.handler("resolveAwakeable", kind="shared")
async def resolve_awakeable(ctx: ObjectSharedContext, command: ResolveAwakeable) -> None:
    """Resolve an awakeable that the object waits for."""
    ctx.resolve_awakeable(await _awakeable_of(ctx, command.awakeable_key), command.value)


@interpreter.handler("rejectAwakeable", kind="shared")
async def reject_awakeable(ctx: ObjectSharedContext, command: RejectAwakeable) -> None:
    """Reject an awakeable that the object waits for."""
    ctx.reject_awakeable(await _awakeable_of(ctx, command.awakeable_key), command.reason)


@interpreter.handler("hasAwakeable", kind="shared")
async def interpreter_has_awakeable(ctx: ObjectSharedContext, awakeable_key: str) -> bool:
    """Whether the object has made that awakeable."""
    return await ctx.get(f"awk-{awakeable_key}") is not None


@interpreter.handler("getResults", kind="shared")
async def get_results(ctx: ObjectSharedContext) -> list[str]:
    """The results so far."""
    return await ctx.get(RESULTS, type_hint=list[str]) or []


async def _execute(ctx: ObjectContext, command: Command) -> str:  # noqa: C901 # one line a command
    match command:
        case AwaitOne(one):
            return _shown(await _issue(ctx, one))
        case AwaitAny(several):
            async for future in as_completed(*_issue_all(ctx, several)):
                return _shown(await future)
        case AwaitAnySuccessful(several):
            return await _first_that_succeeds(_issue_all(ctx, several))
        case AwaitAwakeableOrTimeout(key, timeout_ms):
            try:
                awakeable = _issue(ctx, CreateAwakeable(key))
                return _shown(await with_timeout(awakeable, timedelta(milliseconds=timeout_ms)))
            except TimeoutError:
                raise TerminalError(TIMED_OUT) from None
        case AwaitFirstSucceededOrAllFailed(several):
            return _shown(await first_success(*_issue_all(ctx, several)))
        case AwaitFirstCompleted(several):
            named = {f"n{number}": future for number, future in enumerate(_issue_all(ctx, several))}
            return _shown((await select(**named))[1])
        case AwaitAllSucceededOrFirstFailed(several):
            return "|".join(map(_shown, await gather_results(*_issue_all(ctx, several))))
        case AwaitAllCompleted(several):
            return "|".join([await _described(future) for future in await gather(*_issue_all(ctx, several))])
        case ResolveAwakeable(key, value):
            ctx.resolve_awakeable(await _awakeable_of(ctx, key), value)
        case RejectAwakeable(key, reason):
            ctx.reject_awakeable(await _awakeable_of(ctx, key), reason)
        case GetEnvVariable(name):
            return await ctx.run_typed("get_env", lambda: os.environ.get(name, ""))
    return ""


def _issue_all(ctx: ObjectContext, commands: list[AwaitableCommand]) -> list[Awaited]:
    return [_issue(ctx, command) for command in commands]


def _issue(ctx: ObjectContext, command: AwaitableCommand) -> Awaited:
    match command:
        case CreateAwakeable(key):
            name, future = ctx.awakeable(type_hint=str)
            ctx.set(f"awk-{key}", name)
            return future
        case Sleep(timeout_ms):
            return ctx.sleep(timedelta(milliseconds=timeout_ms))
        case RunReturns(value):
            return ctx.run_typed("run", lambda: value)
        case RunThrowTerminalException(reason):
            return ctx.run_typed("run that fails", _failing, reason=reason)
        case CreateSignal(name):
            return ctx.signal(name, type_hint=str)


def _failing(*, reason: str) -> str:
    raise TerminalError(reason)


def _shown(value: str | None) -> str:
    return "sleep" if value is None else value


async def _first_that_succeeds(futures: list[Awaited]) -> str:
    failures: list[TerminalError] = []
    async for future in as_completed(*futures):
        try:
            return _shown(await future)
        except TerminalError as error:
            failures.append(error)
    raise failures[-1]


async def _described(future: Awaitable[Any]) -> str:
    try:
        return f"ok:{_shown(await future)}"
    except TerminalError as error:
        return f"err:{error.message}"


async def _awakeable_of(ctx: ObjectSharedContext, key: str) -> str:
    name: str | None = await ctx.get(f"awk-{key}", type_hint=str)
    if name is None:
        raise TerminalError(f"There is no awakeable {key}", 404)
    return name
