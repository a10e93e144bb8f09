"""Charge a card once, then start one subscription after the other, some of whose providers fail at first.

Run it with `perdure dev examples.subscriptions:application`, or let `make demo` kill its worker in the middle. Try
`perdure call SubscriptionService/add '{"user_id": "ada", "credit_card": "4111", "subscriptions": ["news"]}'`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field

from examples.ledger import Ledger
from perdure import Context, RunOptions, Service, TerminalError, app, current_step

subscription_service = Service("SubscriptionService")


class AddRequest(BaseModel):
    """What a customer ordered. `refusals` says how often a subscription's provider fails before it accepts."""

    user_id: str
    credit_card: str
    subscriptions: list[str]
    refusals: dict[str, int] = Field(default_factory=dict)


class Added(BaseModel):
    """What the customer has now."""

    payment: str
    subscriptions: list[str]


class ProviderError(Exception):
    """A provider did not accept; it may the next time."""


# Without this option the whole attempt would fail and be retried, which is as durable, but slower.
PATIENTLY = RunOptions[str](initial_retry_interval=timedelta(milliseconds=400), max_retry_interval=timedelta(seconds=5))


@subscription_service.handler()
async def add(ctx: Context, request: AddRequest) -> Added:
    """Charge the card, then add every subscription; what is done stays done, wherever the worker dies."""
    payment = str(ctx.uuid())
    await ctx.run_typed("recurring payment", charge, RunOptions(), request.credit_card, payment)
    added = []
    for name in request.subscriptions:
        step = f"subscription {name}"
        added.append(await ctx.run_typed(step, subscribe, PATIENTLY, name, request.refusals.get(name, 0)))
    return Added(payment=payment, subscriptions=added)


def charge(credit_card: str, payment: str) -> str:
    """Start the recurring payment; returns its reference."""
    if credit_card.endswith("0000"):
        raise TerminalError("The card was declined.", status_code=402)
    _record("charge", refusals=0)
    return payment


def subscribe(name: str, refusals: int) -> str:
    """Start one subscription; returns its name."""
    if not _record(f"subscribe {name}", refusals=refusals):
        raise ProviderError(f"the provider of {name} does not answer")
    return name


def _record(effect: str, *, refusals: int) -> bool:
    step = current_step()
    assert step is not None, "called as a step"
    # The key is the same in every execution of this step: what a real provider tells repeats by.
    return Ledger().record(step.invocation_id, effect, key=step.idempotency_key, refusals=refusals).done


application = app([subscription_service])
