"""Fan-out and fan-in: an order is split into parts that other invocations make, and their results are joined.

Each part is an invocation of its own, on whichever worker has room, with retries of its own. Run it with
`perdure dev examples.fan_out:application`, and then `perdure call Orders/assemble '["wheel", "frame", "saddle"]'`.
"""

from __future__ import annotations

from datetime import timedelta

from perdure import Context, Service, TerminalError, app, gather_results

orders = Service("Orders")
workshop = Service("Workshop")


@orders.handler()
async def assemble(ctx: Context, parts: list[str]) -> list[str]:
    """Have all parts made at the same time; the first that cannot be made ends it."""
    # A call begins where it is written, not where it is awaited.
    calls = [ctx.service_call(make, part) for part in parts]
    try:
        return await gather_results(*calls)
    except TerminalError:
        # The others would go on for nothing.
        for call in calls:
            if not call.done():
                await call.cancel_invocation()
        raise


@workshop.handler()
async def make(ctx: Context, part: str) -> str:
    """Make one part."""
    if not part:
        raise TerminalError("Nobody can make nothing.", status_code=400)
    await ctx.sleep(timedelta(milliseconds=50), name="the paint dries")
    return await ctx.run("pack", lambda: f"{part} in a box")


application = app([orders, workshop])
