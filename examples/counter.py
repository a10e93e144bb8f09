"""A virtual object: one counter for each key, whose value is kept between calls.

Run it with `perdure dev examples.counter:application`, and then `perdure call Counter/add 3 --key ada`, and
`perdure call Counter/value --key ada`.
"""

from __future__ import annotations

from perdure import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject, app

counter = VirtualObject("Counter")


@counter.handler()
async def add(ctx: ObjectContext, amount: int) -> int:
    """Add to the counter. Calls of one key come one after the other: none is lost between reading and writing."""
    value = (await ctx.get("value", type_hint=int) or 0) + amount
    if value < 0:
        # Before `set`: what is written stays written, also where the handler fails afterwards.
        raise TerminalError(f"The counter {ctx.key()} does not go below zero.", status_code=409)
    ctx.set("value", value)
    return value


@counter.handler(kind="shared")
async def value(ctx: ObjectSharedContext) -> int:
    """Read the counter, at any time: shared handlers do not queue behind `add`, and cannot write."""
    return await ctx.get("value", type_hint=int) or 0


@counter.handler()
async def reset(ctx: ObjectContext) -> None:
    """Forget the counter: an object without state takes no memory."""
    ctx.clear_all()


application = app([counter])
