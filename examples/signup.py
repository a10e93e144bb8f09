"""A workflow: somebody signs up, and is a member once the link in a mail was clicked. The link may wait for weeks.

Run it with `perdure dev examples.signup:application`, and then `perdure send SignUp/run '"ada@example.org"' --key ada`,
`perdure call SignUp/status --key ada`, and `perdure call SignUp/click '"the secret of the mail"' --key ada`.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from examples.ledger import Ledger
from perdure import TerminalError, Workflow, WorkflowContext, WorkflowSharedContext, app, current_step, select

sign_up = Workflow("SignUp")

PATIENCE = timedelta(days=14)


@sign_up.main()
async def run(ctx: WorkflowContext, address: str) -> bool:
    """Return whether they became a member. The key is their name: whoever signs up twice gets the same run."""
    # The same in every replay, so that the secret of the mail is the one that is compared with.
    secret = str(ctx.uuid())
    ctx.set("secret", secret)
    ctx.set("status", "waiting for the click")
    await ctx.run_typed("mail the link", mail, address=address, text=secret)
    first, _ = await select(clicked=ctx.promise("clicked", type_hint=bool), too_late=ctx.sleep(PATIENCE))
    if first == "too_late":
        ctx.set("status", "gone")
        return False
    await ctx.run_typed("mail the welcome", mail, address=address, text="welcome")
    ctx.set("status", "member")
    return True


@sign_up.handler()
async def click(ctx: WorkflowSharedContext, secret: str) -> bool:
    """What the link leads to; returns whether it was right. It may be clicked again and again."""
    if secret != await ctx.get("secret", type_hint=str):
        return False
    # A promise is completed once; a second click is a TerminalError, and no harm.
    with suppress(TerminalError):
        await ctx.promise("clicked", type_hint=bool).resolve(True)
    return True


@sign_up.handler()
async def status(ctx: WorkflowSharedContext) -> str:
    """How far it is, while the run waits and until its retention ends."""
    return await ctx.get("status", type_hint=str) or "unknown"


def mail(address: str, text: str) -> None:
    """Send a mail."""
    step = current_step()
    assert step is not None, "called as a step"
    Ledger().record(step.invocation_id, f"mail to {address}: {text}", key=step.idempotency_key)


application = app([sign_up])
