"""A delayed reminder: sent now, delivered later, and cancelled before that if nobody needs it any more.

Nothing waits in a worker meanwhile; a year is as good as a second. Run it with
`perdure dev examples.reminder:application`, and then `perdure call Reminders/remind '{"of": "the soup", "in_s": 2}'`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from examples.ledger import Ledger
from perdure import Context, Service, app, current_step

reminders = Service("Reminders")


class Reminder(BaseModel):
    """Of what, and in how many seconds."""

    of: str
    in_s: float


@reminders.handler()
async def remind(ctx: Context, reminder: Reminder) -> str:
    """Plan a reminder; returns the id with which to cancel it."""
    sent = ctx.service_send(deliver, reminder.of, send_delay=timedelta(seconds=reminder.in_s))
    return await sent.invocation_id()


@reminders.handler()
async def deliver(ctx: Context, of: str) -> None:
    """Called when it is time."""
    await ctx.run_typed("tell", tell, of=of)


@reminders.handler()
async def forget(ctx: Context, invocation_id: str) -> None:
    """Cancel a reminder. One that has not begun ends without a trace of what it would have done."""
    ctx.cancel_invocation(invocation_id)


def tell(of: str) -> None:
    """Tell whoever wanted to be told."""
    step = current_step()
    assert step is not None, "called as a step"
    Ledger().record(step.invocation_id, f"remember {of}", key=step.idempotency_key)


application = app([reminders])
