"""Context managers that authors give to be entered around attempts, and around the whole application. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from perdure.schemas.errors import DefinitionError

ContextManagerFactory = Callable[[], AbstractAsyncContextManager[None]]
"""Called at the beginning of each attempt: what it returns is entered around the handler's call."""


def checked_factories(option: str, given: Sequence[ContextManagerFactory] | None) -> tuple[ContextManagerFactory, ...]:
    """Return what was given for `option`, in its order.

    Raises:
        DefinitionError: It is not a list, or one of it is not a function that returns an async context manager, as far
            as can be seen without calling it.
    """
    if given is None:
        return ()
    if not isinstance(given, list | tuple):
        raise DefinitionError(
            f"{option}=... takes a list of functions that each return an async context manager, not {given!r}."
        )
    for factory in given:
        check_factory(option, factory)
    return tuple(given)


def check_factory(option: str, factory: object) -> None:
    """Refuse what cannot be a function that returns an async context manager.

    Raises:
        DefinitionError: It is one already, is an undecorated generator or coroutine function, or cannot be called.
    """
    # First, since what @asynccontextmanager makes can be called, too: as a decorator, which is not what is meant.
    if hasattr(type(factory), "__aenter__"):
        why = "a context manager, which can be entered once. Give the function that makes it, without calling it."
    elif inspect.isasyncgenfunction(factory) or inspect.iscoroutinefunction(factory):
        why = "no function that returns an async context manager. Decorate it with @contextlib.asynccontextmanager."
    elif not callable(factory):
        why = "no function that returns an async context manager."
    else:
        return
    raise DefinitionError(f"{option}=...: {factory!r} is {why}")
