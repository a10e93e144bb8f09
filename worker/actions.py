"""What is known of a step's action: whether it is async, and what writes its result. PURE.

Both follow from the function's code and its return annotation, so they are worked out once for each place in the
program and not for each call: handlers define their actions anew in every attempt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from .options import RunOptions
from .serde import DEFAULT_SERDE, Serde

REMEMBERED_MAX = 2_000
"""Places in a program that are remembered: more than handlers have, so that only generated code begins anew."""


class ActionTraits(NamedTuple):
    """Whether calling the action gives a coroutine, and the serde of its result."""

    is_async: bool
    serde: Serde[Any]


class Actions:
    """Remembers traits. One for each worker; not thread-safe."""

    def __init__(self) -> None:
        self._known: dict[tuple[CodeType, object], ActionTraits] = {}

    def traits(self, action: Callable[..., Any], options: RunOptions[Any]) -> ActionTraits:
        """Return the traits of an action under these options.

        Raises:
            DefinitionError: The type that the result is declared to have is not known to pydantic.
        """
        if type(action) is not FunctionType or options.serde is not DEFAULT_SERDE or options.type_hint is not None:
            return _traits(action, options)
        if action.__dict__:
            # Such as what functools.wraps leaves: all that one decorator wraps has the decorator's code.
            return _traits(action, options)
        place = (action.__code__, action.__annotations__.get("return"))
        try:
            known = self._known.get(place)
        except TypeError:
            # The annotation cannot be hashed.
            return _traits(action, options)
        if known is None:
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            known = self._known[place] = _traits(action, options)
        return known


def _traits(action: Callable[..., Any], options: RunOptions[Any]) -> ActionTraits:
    fn = action
    while isinstance(fn, partial):
        fn = fn.func
    # Asks how an object is called, not whether it can be.
    called = getattr(fn, "__call__", None)  # noqa: B004
    is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(called)
    return ActionTraits(is_async, options.serde_of(action))
