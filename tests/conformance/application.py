"""The application of the conformance tests: every contract service, and the handlers for single properties."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from perdure.worker.application import Application, app
from perdure.worker.handler import handler_of
from perdure.worker.subscriptions import Subscription

from .contract_failures import FAILURES
from .contract_objects import OBJECTS, awakeable_holder, counter, list_object
from .contract_services import SERVICES, block_and_wait, proxy_one_way_call, unblock, utilities
from .core_cases import cases
from .core_failures import plain_cases
from .core_records import keep, record_cases
from .core_state import promises
from .interpreter import interpreter

ALL: Final = (*OBJECTS, *FAILURES, *SERVICES, cases, plain_cases, promises, record_cases, interpreter)

# To each of these belongs a topic of somebody else's, whose records invoke it.
SUBSCRIBED: Final = (counter.add, list_object.append, proxy_one_way_call, block_and_wait, unblock, keep)


def application_in(namespace: str) -> Application:
    """Everything, with the subscriptions of one namespace, all of them in one group: a worker joins one more."""
    group = f"{namespace}-subscriptions"
    return app(
        ALL,
        subscriptions=[
            Subscription(topic=topic_for(namespace, handler), handler=handler, group=group) for handler in SUBSCRIBED
        ],
    )


def topic_for(namespace: str, handler: Callable[..., Awaitable[Any]]) -> str:
    """The topic whose records invoke a handler of `SUBSCRIBED`."""
    return f"{namespace}-{handler_of(handler).target.replace('/', '.')}"


# Fewer topics, for tests that start processes again and again.
small_application = app([counter.definition, awakeable_holder, utilities, cases])
