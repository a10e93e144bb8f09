"""A job that runs every so often: an object that sends itself a delayed message, as cron would.

Run it with `perdure dev examples.schedule:application`, and then
`perdure call Job/start '{"every_s": 1}' --key cleanup`, `perdure call Job/runs --key cleanup`, and
`perdure call Job/stop --key cleanup`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from perdure import ObjectContext, ObjectSharedContext, VirtualObject, app

job = VirtualObject("Job")


class Plan(BaseModel):
    """How often."""

    every_s: float


class Tick(BaseModel):
    """One run: of which start, and when it should be, in seconds since the epoch."""

    start: int
    at: float


@job.handler()
async def start(ctx: ObjectContext, plan: Plan) -> None:
    """Begin, or go on with another plan."""
    # Ticks of earlier starts are on their way still; by this number they are told apart.
    start = (await ctx.get("start", type_hint=int) or 0) + 1
    ctx.set("start", start)
    ctx.set("plan", plan)
    _plan_next(ctx, plan, Tick(start=start, at=await ctx.time()), now=await ctx.time())


@job.handler()
async def tick(ctx: ObjectContext, due: Tick) -> None:
    """Run once, and plan the next time. Runs never overlap: an object does one thing at a time."""
    plan = await ctx.get("plan", type_hint=Plan)
    if plan is None or due.start != await ctx.get("start", type_hint=int):
        return
    # Planned first: a run that fails for good does not end the job.
    _plan_next(ctx, plan, due, now=await ctx.time())
    number = (await ctx.get("runs", type_hint=int) or 0) + 1
    await ctx.run("work", lambda: f"run number {number}")
    ctx.set("runs", number)


@job.handler()
async def stop(ctx: ObjectContext) -> None:
    """End it: the tick that is on its way finds no plan."""
    ctx.clear("plan")


@job.handler(kind="shared")
async def runs(ctx: ObjectSharedContext) -> int:
    """How often it ran."""
    return await ctx.get("runs", type_hint=int) or 0


def _plan_next(ctx: ObjectContext, plan: Plan, last: Tick, *, now: float) -> None:
    # From when it should have been, so that delays do not add up; runs that were missed meanwhile are left out.
    at = max(last.at + plan.every_s, now)
    # A message and not a loop: a journal grows with what one invocation does, and code can change between two runs.
    ctx.object_send(tick, ctx.key(), Tick(start=last.start, at=at), send_delay=timedelta(seconds=at - now))


application = app([job])
