"""Idempotent payments: an account that pays each bill once, however often it is told to, for as long as it exists.

An idempotency key of a request is remembered for its retention, a day. What must never happen twice is remembered in
the account's state. Run it with `perdure dev examples.payments:application`, and then, as often as you like,
`perdure call Account/pay '{"bill": "2026-11", "cents": 990}' --key ada`.
"""

from __future__ import annotations

from pydantic import BaseModel

from examples.ledger import Ledger
from perdure import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject, app, current_step

account = VirtualObject("Account")


class Bill(BaseModel):
    """What is to be paid. `bill` is its number, at the one who sent it."""

    bill: str
    cents: int


class Receipt(BaseModel):
    """What was paid, and the bank's reference."""

    bill: str
    cents: int
    reference: str


@account.handler()
async def pay(ctx: ObjectContext, bill: Bill) -> Receipt:
    """Pay a bill, or return the receipt of the time when it was paid."""
    # One payment of an account at a time: between this look and the `set` below nobody else pays.
    known = await ctx.get(f"bill {bill.bill}", type_hint=Receipt)
    if known is not None:
        if known.cents != bill.cents:
            raise TerminalError(f"The bill {bill.bill} was paid with another amount.", status_code=409)
        return known
    reference = await ctx.run_typed("transfer", transfer, cents=bill.cents)
    receipt = Receipt(bill=bill.bill, cents=bill.cents, reference=reference)
    ctx.set(f"bill {bill.bill}", receipt)
    ctx.set("paid_cents", (await ctx.get("paid_cents", type_hint=int) or 0) + bill.cents)
    return receipt


@account.handler(kind="shared")
async def paid_cents(ctx: ObjectSharedContext) -> int:
    """All that was paid so far."""
    return await ctx.get("paid_cents", type_hint=int) or 0


def transfer(cents: int) -> str:
    """Move the money. A worker that dies between this and the journal's entry has the next one do it again ..."""
    step = current_step()
    assert step is not None, "called as a step"
    # ... with the same key, by which a bank tells a repeat from a second payment.
    Ledger().record(step.invocation_id, f"transfer {cents} cents", key=step.idempotency_key)
    return step.idempotency_key


application = app([account])
