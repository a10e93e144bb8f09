"""Which context managers authors may give: `perdure.worker.context_managers`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.worker.context_managers import ContextManagerFactory, checked_factories


@contextlib.asynccontextmanager
async def connection(url: str = "") -> AsyncIterator[None]:
    """The usual kind."""
    yield


async def undecorated() -> AsyncIterator[None]:
    """Forgot its decorator."""
    yield


async def coroutine() -> None:
    """Returns no context manager."""


class Connection:
    """The other usual kind."""

    async def __aenter__(self) -> None:
        """Connect."""

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""


def test_functions_and_classes_are_taken_in_their_order() -> None:
    """Whatever can be called for a new context manager."""
    given: list[ContextManagerFactory] = [
        connection,
        Connection,
        functools.partial(connection, "url"),
        lambda: Connection(),
    ]
    assert checked_factories("option", given) == tuple(given)
    assert checked_factories("option", tuple(given)) == tuple(given)
    assert checked_factories("option", []) == ()
    assert checked_factories("option", None) == ()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (connection, "takes a list of functions"),
        ("connection", "takes a list of functions"),
        ([connection()], "entered once. Give the function that makes it, without calling it"),
        ([connection, Connection()], "entered once. Give the function that makes it, without calling it"),
        ([undecorated], r"undecorated .* Decorate it with @contextlib\.asynccontextmanager"),
        ([coroutine], r"coroutine .* Decorate it with @contextlib\.asynccontextmanager"),
        ([5], "5 is no function that returns an async context manager"),
    ],
)
def test_what_makes_no_context_manager_is_refused(given: Any, why: str) -> None:
    """Where it is defined, and not in every attempt."""
    with pytest.raises(DefinitionError, match=rf"option=\.\.\..*{why}"):
        checked_factories("option", given)
