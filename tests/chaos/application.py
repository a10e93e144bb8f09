"""The application under chaos: plans of steps, accounts that add up, couriers that call both and wait for a person.

Beside them: desks whose visitors are signalled, cancelled, killed and paused (`visits`), workflows (`flow`), and what a
subscription brings (`feed`).

Steps leave their lines as those of `tests.process.application`, whose service it has, too. Every outcome names the
executions that its handler saw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from perdure import Context, ObjectContext, Service, Subscription, VirtualObject, app
from tests.process.application import Act, Plan, Report, perform, work

from .feed import FEED_GROUP, FEED_TOPIC, feed, take
from .flow import flow
from .steps import RETENTION, RETRY, ask, step
from .visits import desk

TARGET: Final = "tests.chaos.application:application"


@dataclass(frozen=True)
class Order:
    """What is added to an account.

    Attributes:
        tag: Of this order and no other.
        amount: How much.
        ms: How long its steps take, and the durable wait between them.
    """

    tag: str
    amount: int
    ms: int = 0


@dataclass(frozen=True)
class Receipt:
    """The outcome of an order.

    Attributes:
        tag: The order's.
        executions: The steps that its handler saw, in program order.
        place: Which addition to the account it was, from 1.
        total: What is in the account after it.
    """

    tag: str
    executions: list[str]
    place: int
    total: int


@dataclass(frozen=True)
class Parcel:
    """What a courier does: adds to one account and waits for it, adds to another one and does not, has a plan done.

    Attributes:
        tag: The parcel's; those of what it calls begin with it.
        account: Added to by a call.
        other: Added to by a send.
        amount: How much.
        ms: How long its steps take.
        acts: Of the plan.
        asks: Whether it waits for a person at the end.
    """

    tag: str
    account: str
    other: str
    amount: int
    ms: int = 0
    acts: list[Act] = field(default_factory=list)
    asks: bool = False


account = VirtualObject("Account", invocation_retry_policy=RETRY)
courier = Service("Courier", invocation_retry_policy=RETRY)


@account.handler()
async def add(ctx: ObjectContext, order: Order) -> Receipt:
    """Count, add, and sometimes wait in between."""
    seen = [await step(ctx, "enter", order.ms)]
    place = (await ctx.get("count", type_hint=int) or 0) + 1
    ctx.set("count", place)
    if order.ms:
        await ctx.sleep(timedelta(milliseconds=order.ms))
    total = (await ctx.get("total", type_hint=int) or 0) + order.amount
    ctx.set("total", total)
    seen.append(await step(ctx, "leave", order.ms))
    return Receipt(order.tag, seen, place, total)


@courier.handler()
async def deliver(ctx: Context, parcel: Parcel) -> Report:
    """Call, send, call, and ask."""
    seen = [await step(ctx, "pack", parcel.ms)]
    called = await ctx.object_call(add, parcel.account, Order(f"{parcel.tag}/called", parcel.amount, parcel.ms))
    ctx.object_send(add, parcel.other, Order(f"{parcel.tag}/sent", parcel.amount))
    done = await ctx.service_call(perform, Plan(f"{parcel.tag}/planned", parcel.acts))
    if called.tag != f"{parcel.tag}/called" or done.tag != f"{parcel.tag}/planned":
        raise ValueError(f"{parcel.tag} was answered {called} and {done}")
    if parcel.asks:
        name, answer = ctx.awakeable(type_hint=str)
        seen.append(await ask(ctx, name))
        if await answer != name:
            raise ValueError(f"{parcel.tag} was given another one's answer")
    seen.append(await step(ctx, "deliver", parcel.ms))
    return Report(parcel.tag, seen)


application = app(
    [work, account, courier, desk, flow, feed],
    journal_retention=RETENTION,
    idempotency_retention=RETENTION,
    subscriptions=[Subscription(topic=FEED_TOPIC, handler=take, group=FEED_GROUP, ordering="key")],
)
