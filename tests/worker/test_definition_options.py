"""Options of definitions and decorators: how they fall back, and what is refused, by name and place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.worker.handler import handler_of
from perdure.worker.options import InvocationRetryPolicy
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

each_kind = pytest.mark.parametrize("kind", [Service, VirtualObject, Workflow])


class Context:
    """A stand-in: definitions never look at the context."""


async def good(ctx: Context, argument: int) -> None:
    """A function that can be a handler."""


@each_kind
def test_options_fall_back_from_handler_to_service(kind: Any) -> None:
    """Each option by itself, the retry policy field by field."""
    shop = kind(
        "Shop",
        inactivity_timeout=timedelta(seconds=1),
        journal_retention=timedelta(seconds=2),
        invocation_retry_policy=InvocationRetryPolicy(max_attempts=5, on_max_attempts="kill"),
    )

    @shop.handler(
        inactivity_timeout=timedelta(0),
        idempotency_retention=timedelta(seconds=3),
        invocation_retry_policy=InvocationRetryPolicy(max_attempts=2),
    )  # type: ignore[untyped-decorator]  # one of three, all alike
    async def buy(ctx: Context) -> None: ...

    options = handler_of(buy).options
    assert options.inactivity_timeout_ms == 0
    assert options.journal_retention_ms == 2000
    assert options.idempotency_retention_ms == 3000
    assert options.retry().policy.attempts_max == 2
    assert options.retry().on_max_attempts == "kill"


@each_kind
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"abort_timeout": timedelta(1)}, "abort_timeout is not supported yet"),
        ({"ingress_private": False}, "ingress_private is not supported yet"),
        ({"invocation_context_managers": [1]}, "invocation_context_managers=...: 1 is no function"),
        ({"inactivity_timeout": 5}, "inactivity_timeout"),
        ({"journal_retention": timedelta(-1)}, "journal_retention"),
        ({"idempotency_retention": "1 day"}, "idempotency_retention"),
        ({"invocation_retry_policy": 3}, "invocation_retry_policy"),
        ({"metadata": {"a": 1}}, "metadata maps strings"),
    ],
)
def test_wrong_options_are_refused_by_name(kind: Any, options: Mapping[str, Any], why: str) -> None:
    """For definitions and handlers alike; what has no meaning yet is never silently ignored."""
    with pytest.raises(DefinitionError, match=rf"{kind.__name__}\('Shop'\): .*{why}"):
        kind("Shop", **options)
    with pytest.raises(DefinitionError, match=rf"good \({__file__}:\d+\) of {kind.__name__}\('Shop'\): .*{why}"):
        kind("Shop").handler(**options)(good)


def test_options_that_contradict_the_services_are_refused() -> None:
    """The handler is named, though each of the two is right by itself."""
    shop = Service("Shop", invocation_retry_policy=InvocationRetryPolicy(max_interval=timedelta(seconds=1)))
    policy = InvocationRetryPolicy(initial_interval=timedelta(seconds=2))
    with pytest.raises(DefinitionError, match=r"good .*with the options of its service: .*exceeds"):
        shop.handler(invocation_retry_policy=policy)(good)


@asynccontextmanager
async def outer() -> AsyncIterator[None]:
    """Entered first."""
    yield


@asynccontextmanager
async def inner() -> AsyncIterator[None]:
    """Entered inside of the other."""
    yield


@each_kind
def test_context_managers_of_the_handler_come_after_those_of_the_service(kind: Any) -> None:
    """All of them, in the order given: they do not replace each other, as other options do."""
    shop = kind("Shop", invocation_context_managers=[outer])

    async def buy(ctx: Context) -> None: ...

    async def sell(ctx: Context) -> None: ...

    shop.handler(invocation_context_managers=(inner, outer))(buy)
    shop.handler()(sell)
    assert handler_of(buy).context_managers == (outer, inner, outer)
    assert handler_of(sell).context_managers == (outer,)


KEYED = [
    pytest.param(VirtualObject, "handler", id="object"),
    pytest.param(Workflow, "main", id="main"),
    pytest.param(Workflow, "handler", id="workflow"),
]


@pytest.mark.parametrize(("kind", "decorator"), KEYED)
@pytest.mark.parametrize(
    ("service", "handler", "resolved"),
    [
        ({}, {}, True),
        ({"state_preload": False}, {}, False),
        ({"state_preload": False}, {"state_preload": True}, True),
        ({"state_preload": ["a"]}, {}, ("a",)),
        ({"state_preload": ["a"]}, {"state_preload": ["b", "c"]}, ("b", "c")),
        ({"state_preload": True}, {"state_preload": []}, ()),
        ({"enable_lazy_state": True}, {}, False),
        ({"enable_lazy_state": False}, {"enable_lazy_state": True}, False),
        ({"state_preload": False}, {"enable_lazy_state": False}, True),
    ],
)
def test_state_is_preloaded_unless_somebody_says_otherwise(
    kind: Any, decorator: str, service: Mapping[str, Any], handler: Mapping[str, Any], resolved: object
) -> None:
    """The handler's word over that of its object or workflow; the old name means the opposite."""

    async def buy(ctx: Context) -> None: ...

    getattr(kind("Shop", **service), decorator)(**handler)(buy)
    assert handler_of(buy).state_preload == resolved


@pytest.mark.parametrize(("kind", "decorator"), KEYED)
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"state_preload": True, "enable_lazy_state": True}, "state_preload and enable_lazy_state are one option"),
        ({"state_preload": False, "enable_lazy_state": False}, "state_preload and enable_lazy_state are one option"),
        ({"state_preload": "name"}, "state_preload=... is True, False or a list"),
        ({"state_preload": [""]}, "state_preload=... is True, False or a list"),
        ({"state_preload": [1]}, "state_preload=... is True, False or a list"),
        ({"state_preload": 1}, "state_preload=... is True, False or a list"),
        ({"enable_lazy_state": "no"}, "enable_lazy_state=... is True or False"),
    ],
)
def test_what_state_preload_cannot_be_is_refused(
    kind: Any, decorator: str, options: Mapping[str, Any], why: str
) -> None:
    """For objects, workflows and their handlers; saying it twice is refused even where both mean the same."""
    with pytest.raises(DefinitionError, match=rf"{kind.__name__}\('Shop'\): {why}"):
        kind("Shop", **options)
    with pytest.raises(DefinitionError, match=rf"good .*of {kind.__name__}\('Shop'\): {why}"):
        getattr(kind("Shop"), decorator)(**options)(good)
