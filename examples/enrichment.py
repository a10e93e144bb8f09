"""Enrich the orders of a topic that another team produces: each record once, those of one customer in their order.

Nobody has to change how the topic is written. Run it with `perdure dev examples.enrichment:application`, make the topic
`orders`, and produce records such as `{"item": "tea", "quantity": 2}` with the customer as their key.
"""

from __future__ import annotations

from pydantic import BaseModel

from examples.ledger import Ledger
from perdure import Context, Service, Subscription, TerminalError, app, current_step

PRICES = {"tea": 4, "coffee": 6}

enrichment = Service("Enrichment")


class Order(BaseModel):
    """What stands in the topic."""

    item: str
    quantity: int


class PricedOrder(BaseModel):
    """What this makes of it. `place` says which record it was."""

    customer: str
    item: str
    total: int
    place: str


@enrichment.handler()
async def price(ctx: Context, order: Order) -> PricedOrder:
    """Look up the price and store the order with it."""
    source = ctx.request().source
    if source is None or not source.key:
        raise TerminalError("An order needs its customer, as the key of its record.", status_code=400)
    each = await ctx.run_typed("look up the price", look_up, item=order.item)
    priced = PricedOrder(
        customer=source.key.decode(errors="replace"),
        item=order.item,
        total=each * order.quantity,
        place=source.place,
    )
    await ctx.run_typed("store", store, order=priced)
    return priced


def look_up(item: str) -> int:
    """Ask what an item costs."""
    if item not in PRICES:
        raise TerminalError(f"Nobody sells {item}.", status_code=404)
    return PRICES[item]


def store(order: PricedOrder) -> None:
    """Write the order to where it is needed; a real database would be told the step's idempotency key."""
    step = current_step()
    assert step is not None, "called as a step"
    Ledger().record(step.invocation_id, f"{order.customer}: {order.item} for {order.total}", key=step.idempotency_key)


# A customer's orders run one after the other. What cannot be priced is kept for people, with the reason.
application = app(
    [enrichment],
    subscriptions=[Subscription(topic="orders", handler=price, ordering="key", on_terminal_failure="dead-letter")],
)
