"""Definitions of every kind: what becomes a handler, and what is refused, by name and place."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from perdure.schemas.errors import DefinitionError
from perdure.schemas.limits import NAME_LENGTH_MAX
from perdure.worker.handler import Handler, handler_of
from perdure.worker.serde import BYTES, JSON, DefaultSerde, JsonSerde, serde_for
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

KINDS = [Service, VirtualObject, Workflow]
each_kind = pytest.mark.parametrize("kind", KINDS)

DECORATORS = [
    pytest.param(Service, "handler", id="service"),
    pytest.param(VirtualObject, "handler", id="object"),
    pytest.param(Workflow, "main", id="main"),
    pytest.param(Workflow, "handler", id="workflow"),
]
each_decorator = pytest.mark.parametrize(("kind", "decorator"), DECORATORS)


class Context:
    """A stand-in: definitions never look at the context."""


class Order(BaseModel):
    """An argument."""

    user_id: str
    cents: int


@each_decorator
def test_a_handler_is_registered_and_the_function_returned(kind: Any, decorator: str) -> None:
    """The function stays what it was; its record tells all that the engine needs."""
    shop = kind("Shop", description="Sells.", metadata={"team": "a"})

    async def buy(ctx: Context, order: Order) -> bytes:
        """Buy something."""
        return order.user_id.encode()

    assert getattr(shop, decorator)(metadata={"tier": "1"})(buy) is buy
    handler = handler_of(buy)
    assert shop.handlers == {"buy": handler}
    assert (handler.service, handler.name, handler.target) == ("Shop", "buy", "Shop/buy")
    assert (handler.kind, handler.fn, handler.takes_argument) == (kind.kind, buy, True)
    assert (handler.input_type, handler.output_type) == (Order, bytes)
    assert (handler.input_serde, handler.output_serde) == (serde_for(Order), BYTES)
    assert (handler.accept, handler.content_type) == ("application/json", "application/json")
    assert (handler.description, handler.metadata) == ("Buy something.", {"tier": "1"})
    assert handler.source == f"{__file__}:{buy.__code__.co_firstlineno}"
    assert (shop.description, shop.metadata, repr(shop)) == ("Sells.", {"team": "a"}, f"{kind.__name__}('Shop')")
    with pytest.raises(dataclasses.FrozenInstanceError):
        handler.name = "other"  # type: ignore[misc]  # that it is refused is what is tested


@each_decorator
async def test_a_handler_can_be_called_in_a_unit_test(kind: Any, decorator: str) -> None:
    """The decorator leaves no wrapper behind."""
    shop = kind("Shop")

    @getattr(shop, decorator)(name="Renamed.name-1")  # type: ignore[untyped-decorator]  # one of four, all alike
    async def double(ctx: Context, number: int) -> int:
        return number * 2

    assert await double(Context(), 4) == 8
    assert list(shop.handlers) == ["Renamed.name-1"]
    assert handler_of(double).description is None


@each_decorator
def test_serdes_may_be_given(kind: Any, decorator: str) -> None:
    """An instance wins over the annotation; a default serde takes the annotation, or has a type of its own."""

    def define(fn: Callable[..., Awaitable[Any]], **options: Any) -> Handler:
        return handler_of(getattr(kind("Shop"), decorator)(**options)(fn))

    async def handler(ctx: Context, order: Order) -> Order:
        return order

    given = define(handler, input_serde=BYTES, output_serde=JSON, accept="text/plain", content_type="text/csv")
    assert (given.input_serde, given.output_serde) == (BYTES, JSON)
    assert (given.accept, given.content_type) == ("text/plain", "text/csv")

    async def other(ctx: Context, order: Order) -> Order:
        return order

    assert define(other, input_serde=DefaultSerde(dict)).input_serde is serde_for(dict)


async def good(ctx: Context, argument: int) -> None:
    """A function that could be a handler."""


def blocking(ctx: Context) -> None:
    """Not async."""


async def generator(ctx: Context) -> AsyncIterator[int]:
    """Not a coroutine."""
    yield 1


async def nothing() -> None:
    """Takes no context."""


async def three(ctx: Context, a: int, b: int) -> None:
    """Takes too much."""


async def three_with_default(ctx: Context, a: int, b: int = 1) -> None:
    """Takes what would never be given."""


async def starred(ctx: Context, *args: int) -> None:
    """Takes any number."""


async def keywords(ctx: Context, **kwargs: int) -> None:
    """Takes any names."""


async def keyword_only(ctx: Context, *, argument: int) -> None:
    """Takes its argument by name."""


async def method(self: Any, ctx: Context) -> None:
    """Was cut out of a class."""


async def opaque(ctx: Context, argument: Service) -> None:
    """Takes what nothing reads."""


async def opaque_result(ctx: Context) -> Service:
    """Returns what nothing reads."""
    raise NotImplementedError


class Callables:
    """Things that can be called, and are not functions."""

    async def bound(self, ctx: Context) -> None:
        """A method."""

    async def __call__(self, ctx: Context) -> None:
        """An object."""


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (blocking, "blocking .*is not async"),
        (lambda ctx: None, "<lambda> .*is not async"),
        (generator, "generator .*async generator"),
        (nothing, r"nothing .*it takes \(\).*\(ctx\) or \(ctx, argument\)"),
        (three, r"three .*it takes \(ctx, a, b\)"),
        (three_with_default, r"three_with_default .*it takes \(ctx, a, b=1\)"),
        (starred, r"starred .*it takes \(ctx, \*args\)"),
        (keywords, r"keywords .*it takes \(ctx, \*\*kwargs\)"),
        (keyword_only, r"keyword_only .*it takes \(ctx, argument\)"),
        (method, "method .*first parameter is self"),
        (Callables().bound, "Callables.bound .*bound method"),
        (Callables(), "type Callables"),
        (functools.partial(good, argument=1), "functools.partial"),
        (len, "type builtin_function_or_method"),
        (Callables, "type type"),
        (5, "type int"),
        (opaque, "opaque .*input_serde: Nothing can read and write the type"),
        (opaque_result, "opaque_result .*output_serde: Nothing can read and write the type"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_by_name_and_place(fn: Any, why: str) -> None:
    """Definition fails, and the message names the function, its file and line, and what to do."""
    service = Service("Shop")
    with pytest.raises(DefinitionError, match=why) as caught:
        service.handler()(fn)
    if inspect.isroutine(fn) and fn is not len:
        assert f"{__file__}:" in str(caught.value)
    assert service.handlers == {}


def test_a_static_method_can_be_a_handler() -> None:
    """With the handler decorator inside."""
    shop = Service("Shop")

    class Group:
        @staticmethod
        @shop.handler()
        async def buy(ctx: Context, cents: int) -> int:
            return cents

    assert handler_of(Group.buy) is shop.handlers["buy"]


@each_kind
def test_annotations_may_name_what_is_local(kind: Any) -> None:
    """Text that annotates is looked up where the function is defined, whichever the decorator."""

    class Local(BaseModel):
        cents: int

    shop = kind("Shop")

    @shop.handler()  # type: ignore[untyped-decorator]  # one of three, all alike
    async def buy(ctx: Context, local: Local) -> None: ...

    assert handler_of(buy).input_type is Local


@each_kind
def test_two_handlers_of_one_name_are_refused(kind: Any) -> None:
    """The message tells where the first one is, and the first one stays."""
    shop = kind("Shop")

    @shop.handler()  # type: ignore[untyped-decorator]  # one of three, all alike
    async def buy(ctx: Context) -> None: ...

    first = handler_of(buy)

    async def other(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match=f"handler 'buy' already, defined at {first.source}"):
        shop.handler(name="buy")(other)
    assert shop.handlers == {"buy": first}
    with pytest.raises(DefinitionError, match="not a handler"):
        handler_of(other)


def test_one_function_is_one_handler() -> None:
    """Otherwise a call by function would not know which is meant; a decorated copy is a function of its own."""
    shop, store = Service("Shop"), Service("Store")

    @shop.handler()
    async def buy(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="is the handler Shop/buy already"):
        store.handler()(buy)

    @functools.wraps(buy)
    async def logged(ctx: Context) -> None:
        await buy(ctx)

    store.handler()(logged)
    assert (handler_of(buy).target, handler_of(logged).target) == ("Shop/buy", "Store/buy")


BAD_NAMES = ["", " ", "a b", "a/b", "ä", "a\n", "-flag", ".hidden", "{slot}", "x" * (NAME_LENGTH_MAX + 1), None, 5]


@each_kind
@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(kind: Any, name: Any) -> None:
    """Names become parts of topics and keys."""
    with pytest.raises(DefinitionError, match="is not a name"):
        kind(name)
    if name is not None:
        with pytest.raises(DefinitionError, match=r"good .*is not a name"):
            kind("Shop").handler(name=name)(good)


@each_kind
@pytest.mark.parametrize("name", ["dead", "Shop.resume"])
def test_names_of_our_own_topics_are_refused(kind: Any, name: str) -> None:
    """A service of that name would read what is not for it."""
    with pytest.raises(DefinitionError, match="Choose another name"):
        kind(name)


@pytest.mark.parametrize("name", ["S", "a.b-c_D9", "_x", "0", "resume", "x" * NAME_LENGTH_MAX])
def test_good_names_are_taken(name: str) -> None:
    """Kafka's letters, and all of them."""
    assert Service(name).name == name


def test_a_serde_class_is_refused() -> None:
    """An instance is meant."""
    with pytest.raises(DefinitionError, match=r"good .*input_serde=\.\.\. takes a Serde instance"):
        Service("Shop").handler(input_serde=JsonSerde)(good)  # type: ignore[arg-type]  # that is what is tested


@each_kind
def test_what_is_sealed_takes_no_more_handlers(kind: Any) -> None:
    """A handler that no application has would never run."""
    shop = kind("Shop")
    shop.seal()
    with pytest.raises(DefinitionError, match=r"good .*comes after app"):
        shop.handler()(good)


@each_kind
def test_what_has_no_handlers_is_not_complete(kind: Any) -> None:
    """An application of it would do nothing; the message says how to go on."""
    shop = kind("Shop")
    with pytest.raises(DefinitionError, match=rf"{kind.__name__}\('Shop'\) has no .* Decorate .* before app"):
        shop.check()

    async def buy(ctx: Context) -> None: ...

    getattr(shop, "main" if kind is Workflow else "handler")()(buy)
    shop.check()
