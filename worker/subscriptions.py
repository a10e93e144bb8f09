"""Subscriptions: an existing topic whose records invoke a handler. What one says, checked where it is said. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, get_args

from perdure.schemas.errors import DefinitionError
from perdure.schemas.limits import NAME_LENGTH_MAX

from .handler import Handler, HandlerMode, handler_of
from .topics import is_topic_name

Ordering = Literal["none", "key", "partition"]
OnTerminalFailure = Literal["keep", "dead-letter"]

# Kafka takes any text; this is what its tools and access rules can be told without quoting.
_GROUP: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_LENGTH_MAX}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Each record of a topic invokes a handler, once.

    The record's value is the argument's bytes, for the handler's serde; a null value is no argument. Its key is the key
    of the object or workflow, where the handler has one; a record without a key in UTF-8 is a dead letter there. Its
    headers are the request's, and where it stands is `ctx.request().source`.

    Args:
        topic: An existing topic; it is never created.
        handler: A handler function, or `"Service/handler"`.
        group: The consumer group; without it `<namespace>.<Service>.<handler>.<topic>`. Another one reads anew.
        start: Where the group begins in a partition of which it has committed no offset: at its first record, behind
            the last one of the moment when a worker first had this subscription, or with the first record that has this
            timestamp (with a zone) or a later one.
        ordering: What runs one after the other, in the order of the topic: nothing, the records of one key (those
            without a key run at any time), or all records of one partition. One that waits, is retried or is paused
            holds up those behind it. An object's exclusive handlers are in the order of their keys always.
        on_terminal_failure: `keep`: the outcome is recorded, and that is all. `dead-letter`: the record also goes to
            the dead-letter topic, with the failure in its headers.

    Raises:
        DefinitionError: One of them is not what it should be.
    """

    topic: str
    handler: str | Callable[..., Any]
    group: str | None = None
    start: Literal["earliest", "latest"] | datetime = "earliest"
    ordering: Ordering = "none"
    on_terminal_failure: OnTerminalFailure = "keep"

    def __post_init__(self) -> None:
        if not is_topic_name(self.topic):
            raise DefinitionError(
                f"Subscription(topic={self.topic!r:.300}): that is no topic of Kafka's, whose names are 1 to 249 "
                "letters, digits, '.', '_' or '-'."
            )
        if self.group is not None and not _is_group(self.group):
            raise self._wrong(f"group={self.group!r:.300}", "Groups are 1 to 200 letters, digits, '.', '_' or '-'")
        if self.ordering not in get_args(Ordering):
            raise self._wrong(f"ordering={self.ordering!r}", "It is 'none', 'key' or 'partition'")
        if self.on_terminal_failure not in get_args(OnTerminalFailure):
            raise self._wrong(f"on_terminal_failure={self.on_terminal_failure!r}", "It is 'keep' or 'dead-letter'")
        if isinstance(self.start, datetime):
            if self.start.tzinfo is None:
                raise self._wrong(f"start={self.start!r}", "Give it a zone: datetime(..., tzinfo=UTC)")
        elif self.start not in ("earliest", "latest"):
            raise self._wrong(f"start={self.start!r}", "It is 'earliest', 'latest' or a datetime with a zone")

    @property
    def target(self) -> str:
        """`Service/handler`."""
        if isinstance(self.handler, str):
            return self.handler
        return handler_of(self.handler).target

    def group_in(self, namespace: str) -> str:
        """The consumer group."""
        return self.group or f"{namespace}.{self.target.replace('/', '.')}.{self.topic}"

    def _wrong(self, what: str, right: str) -> DefinitionError:
        return DefinitionError(f"Subscription(topic={self.topic!r}, {what}) is not possible. {right}.")


def checked_subscriptions(
    subscriptions: Iterable[Subscription], handlers: Mapping[tuple[str, str], Handler]
) -> tuple[Subscription, ...]:
    """Return the subscriptions of an application, their handlers by name.

    Raises:
        DefinitionError: One is of a handler that is not there, asks for an order that there is not, or would read the
            same as another.
    """
    if isinstance(subscriptions, Subscription):
        raise DefinitionError(f"app(...) takes a list of subscriptions: subscriptions=[{subscriptions!r}].")
    found: dict[tuple[str, str], Subscription] = {}
    for each in subscriptions:
        if not isinstance(each, Subscription):
            raise DefinitionError(f"subscriptions=[...] takes Subscription(...), not {each!r:.200}.")
        subscription = replace(each, handler=each.target)
        _check_ordering(subscription, _handler_of(each, handlers))
        # The namespace is not known yet; no group that is given looks like this.
        place = (subscription.group_in(""), subscription.topic)
        if place in found:
            raise DefinitionError(
                f"Two subscriptions read {subscription.topic} as the same group, for {found[place].target} and "
                f"{subscription.target}: each record would come to one of them. Give them different groups."
            )
        found[place] = subscription
    return tuple(found.values())


def by_group(subscriptions: Iterable[Subscription], namespace: str) -> dict[str, tuple[Subscription, ...]]:
    """The subscriptions of each consumer group.

    Raises:
        DefinitionError: A group is the one that reads the namespace's own topics, or two read a topic as one group.
    """
    groups: dict[str, tuple[Subscription, ...]] = {}
    for each in subscriptions:
        group = each.group_in(namespace)
        if group == namespace:
            raise DefinitionError(
                f"The subscription of {each.target} to {each.topic} cannot be in the group {group!r}, which reads the "
                "namespace's own topics. Give it another one, or none."
            )
        others = groups.get(group, ())
        if any(other.topic == each.topic for other in others):
            raise DefinitionError(
                f"Two subscriptions read {each.topic} as the group {group!r}: give one another group."
            )
        groups[group] = (*others, each)
    return groups


def _is_group(group: object) -> bool:
    return isinstance(group, str) and _GROUP.fullmatch(group) is not None


def _handler_of(subscription: Subscription, handlers: Mapping[tuple[str, str], Handler]) -> Handler:
    service, _, name = subscription.target.partition("/")
    handler = handlers.get((service, name))
    same = handler is not None and (isinstance(subscription.handler, str) or handler.fn is subscription.handler)
    if handler is None or not same:
        known = ", ".join(sorted(each.target for each in handlers.values()))
        raise DefinitionError(
            f"The subscription to {subscription.topic} is for {subscription.target}, which is no handler of this "
            f"application. Its handlers are: {known}."
        )
    return handler


def _check_ordering(subscription: Subscription, handler: Handler) -> None:
    if subscription.ordering == "none" or not handler.keyed:
        return
    if subscription.ordering == "key" and handler.mode is HandlerMode.EXCLUSIVE:
        return
    why = (
        "are in the order of their keys already"
        if handler.mode is HandlerMode.EXCLUSIVE
        else "run once for each key"
        if handler.mode is HandlerMode.MAIN
        else "run at any time"
    )
    raise DefinitionError(
        f"The subscription to {subscription.topic} asks for ordering={subscription.ordering!r}, and invocations of "
        f"{handler.target} {why}. Leave it out, or subscribe a handler of a Service that calls it."
    )
