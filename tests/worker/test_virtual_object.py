"""Virtual objects: `perdure.worker.virtual_object`. What all kinds of definitions share: `test_definitions.py`."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.schemas.limits import QUEUE_MAX
from perdure.worker.handler import HandlerMode, ServiceKind, handler_of
from perdure.worker.virtual_object import VirtualObject


def test_handlers_are_exclusive_unless_they_are_shared() -> None:
    """The mode tells what an invocation may do with its object."""
    counter = VirtualObject("Counter", queue_max=5)

    @counter.handler()
    async def add(ctx: object, amount: int) -> int:
        return amount

    @counter.handler("total", "shared")
    async def get(ctx: object) -> int:
        return 0

    adding, getting = handler_of(add), handler_of(get)
    assert (adding.name, adding.mode, adding.kind) == ("add", HandlerMode.EXCLUSIVE, ServiceKind.OBJECT)
    assert (getting.name, getting.mode, getting.kind) == ("total", HandlerMode.SHARED, ServiceKind.OBJECT)
    assert adding.keyed
    assert getting.keyed
    assert (adding.queue_max, getting.queue_max, counter.queue_max) == (5, 5, 5)
    assert adding.options.workflow_retention is None


@pytest.mark.parametrize("kind", ["main", "", "Shared", None, True])
def test_another_kind_of_handler_is_refused(kind: Any) -> None:
    """By name, before there is a function."""
    with pytest.raises(
        DefinitionError, match=r'VirtualObject\(\'Counter\'\)\.handler\(kind=\.\.\.\) is "exclusive" or'
    ):
        VirtualObject("Counter").handler(kind=kind)


@pytest.mark.parametrize("queue_max", [0, -1, QUEUE_MAX + 1, 1.0, True, "5"])
def test_a_queue_has_bounds(queue_max: Any) -> None:
    """At least one place, or the object could never be entered; at most what Redis is meant to hold."""
    with pytest.raises(
        DefinitionError, match=r"VirtualObject\('Counter'\): queue_max=\.\.\. is an integer from 1 to 10"
    ):
        VirtualObject("Counter", queue_max=queue_max)


@pytest.mark.parametrize("queue_max", [None, 1, QUEUE_MAX])
def test_a_queue_may_be_bounded(queue_max: int | None) -> None:
    """Within the limit; `None` is the limit."""
    assert VirtualObject("Counter", queue_max=queue_max).queue_max == queue_max
