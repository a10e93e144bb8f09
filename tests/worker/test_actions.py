"""What is known of a step's action: `perdure.worker.actions`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from perdure.worker import actions as actions_module
from perdure.worker.actions import Actions
from perdure.worker.options import RunOptions
from perdure.worker.serde import BytesSerde

PLAIN: RunOptions[Any] = RunOptions()


class Hat(BaseModel):
    """A result."""

    size: int


class Bag(BaseModel):
    """Another."""

    litres: int


def logged(action: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: all that it wraps share its code."""

    @functools.wraps(action)
    def wrapper(*args: Any) -> Any:
        return action(*args)

    return wrapper


def make(kind: str) -> Callable[..., Any]:
    """A new function at each call, from one place in the program."""

    def hat() -> Hat:
        return Hat(size=1)

    async def bag() -> Bag:
        return Bag(litres=1)

    return {"hat": hat, "bag": bag}[kind]


def test_one_place_is_worked_out_once() -> None:
    """Functions that are defined anew in every attempt share what is known of their code."""
    actions = Actions()
    first, again = actions.traits(make("hat"), PLAIN), actions.traits(make("hat"), PLAIN)
    assert first is again
    assert not first.is_async
    assert actions.traits(make("bag"), PLAIN).is_async


def test_decorated_functions_keep_their_own_types() -> None:
    """What one decorator wraps has one code and several types."""
    actions = Actions()
    hat, bag = (actions.traits(logged(make(kind)), PLAIN).serde for kind in ("hat", "bag"))
    assert hat.deserialize(b'{"size": 7}') == Hat(size=7)
    assert bag.deserialize(b'{"litres": 7}') == Bag(litres=7)


def test_options_come_before_what_is_remembered() -> None:
    """A serde or a type that is given at the call counts for that call only."""
    actions = Actions()
    raw: RunOptions[Any] = RunOptions(serde=BytesSerde())
    hinted: RunOptions[Any] = RunOptions(type_hint=Bag)
    action = make("hat")
    assert isinstance(actions.traits(action, raw).serde, BytesSerde)
    assert actions.traits(action, hinted).serde.deserialize(b'{"litres": 7}') == Bag(litres=7)
    assert actions.traits(action, PLAIN).serde.deserialize(b'{"size": 7}') == Hat(size=7)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated code begins anew instead of being remembered for ever."""
    monkeypatch.setattr(actions_module, "REMEMBERED_MAX", 3)
    actions = Actions()
    for number in range(10):
        scope: dict[str, Any] = {}
        exec(f"def step():\n    return {number}", scope)
        assert not actions.traits(scope["step"], PLAIN).is_async
    assert len(actions._known) <= 3
