"""What signatures are taken for, and which annotations are evaluated."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.worker.signature import describe, read_handler, result_hint, source_of

if TYPE_CHECKING:
    from collections.abc import Sequence as OnlyForCheckers


async def no_argument(ctx: OnlyForCheckers[int]) -> None:
    """Its context is imported for type checkers only."""


async def with_argument(ctx: Any, order: dict[str, Decimal] | None) -> list[Decimal]:
    """An argument and a result."""
    return [Decimal(1)]


async def with_default(ctx: Any, name: str = "world", *, database: object = None) -> str:
    """A default, and a keyword for tests."""
    return name


def logged(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A decorator that keeps the signature."""

    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


def test_a_handler_takes_a_context_and_perhaps_an_argument() -> None:
    """Both forms are read, with types, default and place; the context's own annotation is never evaluated."""
    alone = read_handler(no_argument, local_names={})
    assert (alone.takes_argument, alone.argument_hint, alone.result_hint) == (False, Any, type(None))
    both = read_handler(with_argument, local_names={})
    assert (both.takes_argument, both.argument_hint) == (True, dict[str, Decimal] | None)
    assert both.result_hint == list[Decimal]
    assert both.default is inspect.Parameter.empty
    assert read_handler(with_default, local_names={}).default == "world"
    file, _, line = both.source.rpartition(":")
    assert file == __file__
    assert int(line) > 1


def test_a_decorated_function_is_read_through_its_wrapper() -> None:
    """`functools.wraps` is enough for a decorator to be seen through."""
    assert read_handler(logged(with_argument), local_names={})[:4] == read_handler(with_argument, local_names={})[:4]
    assert source_of(logged(with_argument)) == source_of(with_argument)


def test_annotations_may_name_what_is_local_to_the_definition() -> None:
    """A model that is defined beside its handler, inside a function, is found in that scope."""

    class Local:
        pass

    async def handler(ctx: Any, argument: Local) -> Local:
        return argument

    assert read_handler(handler, local_names=locals()).argument_hint is Local
    with pytest.raises(DefinitionError, match=rf"'Local' of .*handler .*{__file__}.*cannot be resolved"):
        read_handler(handler, local_names={})


def test_metadata_in_annotations_is_kept() -> None:
    """`Annotated[...]` carries constraints."""

    async def handler(ctx: Any, argument: Annotated[int, "positive"]) -> int:
        return argument

    assert read_handler(handler, local_names={}).argument_hint == Annotated[int, "positive"]


@pytest.mark.parametrize(
    "text", ["Missing", "Missing[int]", "int[", "int[str]", "inspect.Missing", "list['Missing']", "1 +"]
)
def test_an_annotation_that_cannot_be_resolved_is_named(text: str) -> None:
    """For handlers as for steps, the text and the function are told, and what to do."""

    async def action(ctx: Any) -> Any:
        return None

    action.__annotations__["return"] = text
    for read in (lambda: read_handler(action, local_names={}), lambda: result_hint(action)):
        with pytest.raises(
            DefinitionError, match=r"cannot be resolved.*Import the type where the program runs"
        ) as error:
            read()
        assert repr(text) in str(error.value)


class Actions:
    """What else can be called."""

    def method(self) -> Decimal:
        """A method."""
        return Decimal(1)

    def __call__(self) -> list[Decimal]:
        """The object itself."""
        return []


async def fetch(url: str) -> Decimal:
    """An async step."""
    return Decimal(url)


def deferred() -> Coroutine[Any, Any, Decimal]:
    """A function that is not async, and returns what is."""
    return fetch("1")


def promised() -> Awaitable[dict[str, int]]:
    """Likewise."""
    raise NotImplementedError


def nothing() -> None:
    """A step for its effect."""


def bare():  # type: ignore[no-untyped-def]  # that it has no annotation is what is tested
    """No annotation."""


@pytest.mark.parametrize(
    ("action", "hint"),
    [
        (fetch, Decimal),
        (nothing, None),
        (bare, Any),
        (lambda: 1, Any),
        (functools.partial(fetch, "1"), Decimal),
        (functools.partial(functools.partial(fetch), "1"), Decimal),
        (Actions().method, Decimal),
        (Actions(), list[Decimal]),
        (deferred, Decimal),
        (promised, dict[str, int]),
        (logged(fetch), Decimal),
        (len, Any),
        (Decimal, Any),
        (str.upper, Any),
    ],
)
def test_a_step_returns_what_its_annotation_says(action: Callable[..., Any], hint: Any) -> None:
    """Partials, methods, objects and coroutines are looked through; what says nothing is anything."""
    assert result_hint(action) == hint


def test_text_within_text_is_resolved_too() -> None:
    """A quoted name in an annotation that is text itself."""

    def action() -> list["Decimal"]:  # noqa: UP037  # the quotes are what is tested
        return []

    assert result_hint(action) == list[Decimal]


def test_anything_can_be_described() -> None:
    """For messages: a name, and a place where there is one."""
    assert describe(with_argument) == f"with_argument ({source_of(with_argument)})"
    assert describe(len) == "len (<unknown>)"
    assert describe(5) == "5"
