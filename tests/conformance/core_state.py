"""Handlers for single properties of state and of durable promises."""

from __future__ import annotations

from typing import Any

from perdure.schemas.errors import TerminalError
from perdure.worker.object_context import ObjectContext, ObjectSharedContext, WorkflowContext, WorkflowSharedContext
from perdure.worker.workflow import Workflow

from .contract_failures import MS
from .core_cases import cases


@cases.handler("fillState")
async def fill_state(ctx: ObjectContext, values: dict[str, Any]) -> None:
    """Write all of these."""
    for name, value in values.items():
        ctx.set(name, value)


async def _walk_through_state(ctx: ObjectContext) -> list[Any]:
    seen: list[Any] = [await ctx.get("a"), await ctx.get("missing"), await ctx.state_keys()]
    ctx.set("a", "new")
    ctx.clear("b")
    seen += [await ctx.get("a"), await ctx.get("b"), await ctx.state_keys()]
    await ctx.sleep(MS)
    ctx.set("c", None)
    seen += [await ctx.get("a"), await ctx.get("b"), await ctx.get("c"), await ctx.state_keys()]
    ctx.clear_all()
    seen += [await ctx.get("a"), await ctx.state_keys()]
    ctx.set("d", {"nested": [1, 2.5, "three"]})
    return [*seen, await ctx.get("d"), await ctx.state_keys()]


@cases.handler("walkThroughState")
async def walk_through_state(ctx: ObjectContext) -> list[Any]:
    """Read, write, clear and read again, with the state at hand."""
    return await _walk_through_state(ctx)


@cases.handler("walkThroughLazyState", state_preload=False)
async def walk_through_lazy_state(ctx: ObjectContext) -> list[Any]:
    """The same, reading each name when it is asked for."""
    return await _walk_through_state(ctx)


@cases.handler("walkThroughPartialState", state_preload=["a"])
async def walk_through_partial_state(ctx: ObjectContext) -> list[Any]:
    """The same, with one name at hand."""
    return await _walk_through_state(ctx)


@cases.handler("readState", kind="shared")
async def read_state(ctx: ObjectSharedContext) -> dict[str, Any]:
    """The whole state."""
    return {name: await ctx.get(name) for name in await ctx.state_keys()}


@cases.handler("writesShared", kind="shared")
async def writes_shared(ctx: ObjectSharedContext) -> str:
    """Write where only reading is allowed."""
    try:
        ctx.set("a", 1)  # type: ignore[attr-defined] # what is shown is that it is refused when it is done anyway
    except Exception as error:
        return type(error).__name__
    return "it was written"


promises = Workflow("PromiseCases")


@promises.main()
async def run(ctx: WorkflowContext) -> list[Any]:
    """Wait for three promises: what each came to."""
    seen: list[Any] = []
    for name in ("value", "null", "failure"):
        try:
            seen.append(await ctx.promise(name))
        except TerminalError as error:
            seen.append(f"{error.status_code} {error.message}")
    return seen


@promises.handler("peek")
async def peek(ctx: WorkflowSharedContext, name: str) -> Any:
    """Look at a promise without waiting."""
    try:
        return await ctx.promise(name).peek()
    except TerminalError as error:
        return f"{error.status_code} {error.message}"


@promises.handler("resolve")
async def resolve(ctx: WorkflowSharedContext, named: dict[str, Any]) -> str:
    """Resolve a promise."""
    ((name, value),) = named.items()
    try:
        await ctx.promise(name).resolve(value)
    except TerminalError as error:
        return f"{error.status_code} {error.message}"
    return "resolved"


@promises.handler("reject")
async def reject(ctx: WorkflowSharedContext, name: str) -> str:
    """Reject a promise."""
    try:
        await ctx.promise(name).reject("rejected by hand", 418)
    except TerminalError as error:
        return f"{error.status_code} {error.message}"
    return "rejected"
