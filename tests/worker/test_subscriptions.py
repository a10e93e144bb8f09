"""What a subscription says, and what is wrong with it: `perdure.worker.subscriptions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.worker.application import Application, app
from perdure.worker.context import Context
from perdure.worker.service import Service
from perdure.worker.subscriptions import Subscription, by_group
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

shop = Service("Shop")
basket = VirtualObject("Basket")
signup = Workflow("Signup")


@shop.handler()
async def order(ctx: Context, number: int) -> None:
    """Of a service."""


@basket.handler()
async def add(ctx: Any, number: int) -> None:
    """Of an object, exclusive."""


@basket.handler(kind="shared")
async def look(ctx: Any) -> None:
    """Of an object, shared."""


@signup.main()
async def run(ctx: Any) -> None:
    """Of a workflow."""


async def foreign(ctx: Context) -> None:
    """Of nothing."""


def application(*subscriptions: Subscription) -> Application:
    """An application of all three kinds."""
    return app([shop, basket, signup], subscriptions=subscriptions)


def test_a_handler_is_named_by_its_function_or_its_target() -> None:
    """Either way it is the same."""
    (by_function,) = application(Subscription(topic="orders", handler=order)).subscriptions
    (by_name,) = application(Subscription(topic="orders", handler="Shop/order")).subscriptions
    assert by_function == by_name
    assert by_function.target == "Shop/order"


def test_each_subscription_has_a_group_of_its_own() -> None:
    """Named by namespace, handler and topic; or as it is given."""
    first, second = Subscription(topic="orders", handler=order), Subscription(topic="orders", handler=add, group="g")
    groups = by_group(application(first, second).subscriptions, "ns")
    assert [(group, [each.target for each in several]) for group, several in groups.items()] == [
        ("ns.Shop.order.orders", ["Shop/order"]),
        ("g", ["Basket/add"]),
    ]


def test_a_group_may_read_several_topics() -> None:
    """One consumer for all of them."""
    several = [Subscription(topic=topic, handler=order, group="g") for topic in ("a", "b")]
    (group,) = by_group(application(*several).subscriptions, "ns").values()
    assert [each.topic for each in group] == ["a", "b"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"topic": ""}, "no topic of Kafka's"),
    ({"topic": "no topic"}, "no topic of Kafka's"),
    ({"topic": ".."}, "no topic of Kafka's"),
    ({"topic": "x" * 250}, "no topic of Kafka's"),
    ({"topic": 7}, "no topic of Kafka's"),
    ({"group": "no group"}, "Groups are"),
    ({"group": ""}, "Groups are"),
    ({"start": "middle"}, "'earliest', 'latest' or a datetime"),
    ({"start": datetime.fromisoformat("2030-01-01")}, "Give it a zone"),
    ({"ordering": "topic"}, "'none', 'key' or 'partition'"),
    ({"on_terminal_failure": "retry"}, "'keep' or 'dead-letter'"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_what_cannot_be_is_refused_where_it_is_written(wrong: dict[str, Any], said: str) -> None:
    """The message names the field and what it may be."""
    right: dict[str, Any] = {"topic": "orders", "handler": order}
    with pytest.raises(DefinitionError, match=said):
        Subscription(**(right | wrong))


UNFIT: list[tuple[list[Any], str]] = [
    ([Subscription(topic="orders", handler="Shop/other")], "no handler of this application.*Shop/order"),
    ([Subscription(topic="orders", handler="order")], "no handler of this application"),
    ([Subscription(topic="orders", handler=foreign)], "is not a handler"),
    ([Subscription(topic="o", handler=add, ordering="partition")], "in the order of their keys already"),
    ([Subscription(topic="o", handler=look, ordering="key")], "run at any time"),
    ([Subscription(topic="o", handler=run, ordering="key")], "run once for each key"),
    ([Subscription(topic="o", handler=order), Subscription(topic="o", handler=order)], "Two subscriptions"),
    ([Subscription(topic="o", handler=each, group="g") for each in (order, add)], "Shop/order and Basket/add"),
    (["orders"], "takes Subscription"),
]


@pytest.mark.parametrize(("subscriptions", "said"), UNFIT)
def test_what_does_not_fit_the_application_is_refused(subscriptions: list[Any], said: str) -> None:
    """Before anything is read."""
    with pytest.raises(DefinitionError, match=said):
        application(*subscriptions)


def test_app_takes_a_list() -> None:
    """One by itself is a slip."""
    with pytest.raises(DefinitionError, match="a list of subscriptions"):
        app([shop], subscriptions=Subscription(topic="o", handler=order))  # type: ignore[arg-type] # the slip


def test_a_handler_of_another_definition_is_another() -> None:
    """Of the same name, and not what this application runs."""
    other = Service("Shop")

    @other.handler(name="order")
    async def order(ctx: Context) -> None:
        """The namesake."""

    with pytest.raises(DefinitionError, match="no handler of this application"):
        application(Subscription(topic="orders", handler=order))


def test_groups_are_checked_against_the_namespace() -> None:
    """Its own group reads its own topics; and one that is given may be what another's would be."""
    with pytest.raises(DefinitionError, match="namespace's own topics"):
        by_group(application(Subscription(topic="orders", handler=order, group="ns")).subscriptions, "ns")
    named = Subscription(topic="orders", handler=add, group="ns.Shop.order.orders")
    both = application(Subscription(topic="orders", handler=order), named)
    with pytest.raises(DefinitionError, match="give one another group"):
        by_group(both.subscriptions, "ns")
    assert len(by_group(both.subscriptions, "other")) == 2


def test_exclusive_handlers_are_in_the_order_of_their_keys_whatever_is_said() -> None:
    """Both ways of saying it are right."""
    several = [
        Subscription(topic="a", handler=add, ordering="key", start=datetime(2030, 1, 1, tzinfo=UTC)),
        Subscription(topic="b", handler=add, start="latest", on_terminal_failure="dead-letter"),
    ]
    assert application(*several).subscriptions[0].ordering == "key"
