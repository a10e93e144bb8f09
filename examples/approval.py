"""A human approves, or does not answer in time: an awakeable with a timeout.

The id of the awakeable goes to the human, and whoever has it can answer: a handler, a client, the command. Run it with
`perdure dev examples.approval:application`, and then
`perdure call Approvals/ask '{"what": "a new chair", "patience_s": 2}'`, which nobody answers.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from examples.ledger import Ledger
from perdure import Context, Service, app, current_step, with_timeout

approvals = Service("Approvals")


class Question(BaseModel):
    """What somebody wants, and how many seconds they wait for an answer: two days, unless they say otherwise."""

    what: str
    patience_s: float = 172_800


class Answer(BaseModel):
    """What the human says to which question."""

    awakeable_id: str
    yes: bool


@approvals.handler()
async def ask(ctx: Context, question: Question) -> str:
    """Return what came of it."""
    awakeable_id, answer = ctx.awakeable(type_hint=bool)
    # A step: the human is asked once, and the id that they have is the one that is waited for.
    await ctx.run_typed("ask the human", notify, what=question.what, awakeable_id=awakeable_id)
    try:
        # A timer in the journal: it goes on while no worker does.
        yes = await with_timeout(answer, timedelta(seconds=question.patience_s))
    except TimeoutError:
        return f"{question.what}: nobody answered"
    return f"{question.what}: {'yes' if yes else 'no'}"


@approvals.handler()
async def answer(ctx: Context, given: Answer) -> None:
    """What the buttons lead to. The first answer counts, and one that comes too late changes nothing."""
    ctx.resolve_awakeable(given.awakeable_id, given.yes)


def notify(what: str, awakeable_id: str) -> None:
    """Send the question to the human."""
    step = current_step()
    assert step is not None, "called as a step"
    Ledger().record(step.invocation_id, f"{what}? {awakeable_id}", key=step.idempotency_key)


application = app([approvals])
