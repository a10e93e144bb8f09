"""One handler: its argument and its result, from bytes and to bytes, and the stand-in for one that is not here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from perdure.schemas.errors import HandlerNotFoundError, RetryableError, SerdeError, TerminalError
from perdure.worker.handler import (
    Handler,
    HandlerMode,
    ServiceKind,
    decode_argument,
    encode_result,
    handler_of,
    unknown_handler,
)
from perdure.worker.serde import JSON, Serde
from perdure.worker.service import Service


class Context:
    """A stand-in: definitions never look at the context."""


class Order(BaseModel):
    """An argument."""

    user_id: str
    cents: int


def define(fn: Callable[..., Awaitable[Any]], **options: Any) -> Handler:
    """The handler that a fresh service makes of `fn`."""
    service = Service("Shop")
    service.handler(**options)(fn)
    return next(iter(service.handlers.values()))


def test_an_argument_is_read_by_its_type() -> None:
    """Bytes in, value out."""

    async def buy(ctx: Context, order: Order) -> None: ...

    assert decode_argument(define(buy), b'{"user_id":"u","cents":5}') == Order(user_id="u", cents=5)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "Shop/buy takes an argument of type Order, and none was sent."),
        (b"{", "Shop/buy takes an argument of type Order. Invalid JSON: EOF while parsing an object"),
        (b"null", "Shop/buy takes an argument of type Order. Input should be an object."),
        (b'{"user_id":"u"}', "Shop/buy takes an argument of type Order. cents: Field required."),
        (b'{"user_id":"u","cents":"4242"}x', "Shop/buy takes an argument of type Order. Invalid JSON: trailing"),
    ],
)
def test_an_argument_that_its_type_refuses_ends_with_400(raw: bytes, message: str) -> None:
    """Sending it again would not help, so the failure is terminal."""

    async def buy(ctx: Context, order: Order) -> None: ...

    with pytest.raises(TerminalError) as caught:
        decode_argument(define(buy), raw)
    assert caught.value.status_code == 400
    assert caught.value.message.startswith(message)


def test_a_missing_argument_is_none_or_the_default() -> None:
    """Where the type allows it, where there is a default, and where there is no parameter."""

    async def optional(ctx: Context, order: Order | None) -> None: ...

    async def defaulted(ctx: Context, name: str = "world") -> None: ...

    async def untyped(ctx: Context, anything) -> None: ...  # type: ignore[no-untyped-def]  # is what is tested

    async def none(ctx: Context) -> None: ...

    assert decode_argument(define(optional), b"") is None
    handler = define(defaulted)
    assert decode_argument(handler, b"") == "world"
    assert decode_argument(handler, b'"Ada"') == "Ada"
    assert decode_argument(define(untyped), b"") is None
    assert handler_of(untyped).input_serde is JSON
    assert decode_argument(define(none), b'"ignored"') is None


class Fails(Serde[Any]):
    """A serde of a user's own that raises what it was given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def serialize(self, obj: Any) -> bytes:
        """Fail."""
        raise self.error

    def deserialize(self, buf: bytes) -> Any:
        """Fail."""
        raise self.error


def test_a_serde_of_ones_own_that_fails_is_a_400_too() -> None:
    """Unless it says itself what its failure means."""

    async def first(ctx: Context, order: Order) -> None: ...

    with pytest.raises(TerminalError, match="KeyError: 'x'") as caught:
        decode_argument(define(first, input_serde=Fails(KeyError("x"))), b"5")
    assert caught.value.status_code == 400

    async def second(ctx: Context, order: Order) -> None: ...

    with pytest.raises(RetryableError, match="later"):
        decode_argument(define(second, input_serde=Fails(RetryableError("later"))), b"5")


def test_a_result_is_written_by_its_type_or_by_what_it_is() -> None:
    """A wrong annotation does not lose a result."""

    async def price(ctx: Context) -> Order:
        raise NotImplementedError

    handler = define(price)
    assert encode_result(handler, Order(user_id="u", cents=5)) == b'{"user_id":"u","cents":5}'
    assert encode_result(handler, [1, "a"]) == b'[1,"a"]'
    assert encode_result(handler, None) == b"null"


def test_a_result_that_cannot_be_written_names_the_handler_and_the_type() -> None:
    """It is a failure of the attempt, which new code can mend."""

    async def leak(ctx: Context) -> Any:
        raise NotImplementedError

    with pytest.raises(SerdeError, match=r"The result of Shop/leak is of type Context and cannot be serialised"):
        encode_result(define(leak), Context())


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        (ServiceKind.SERVICE, HandlerMode.PLAIN),
        (ServiceKind.OBJECT, HandlerMode.EXCLUSIVE),
        (ServiceKind.WORKFLOW, HandlerMode.EXCLUSIVE),
    ],
)
async def test_an_unknown_handler_has_a_stand_in(kind: ServiceKind, mode: HandlerMode) -> None:
    """It fails by name, and holds its object meanwhile: the one that it stands for might write there."""
    stand_in = unknown_handler("Shop", "buy", kind=kind)
    assert (stand_in.target, stand_in.kind, stand_in.mode) == ("Shop/buy", kind, mode)
    assert stand_in.keyed == (kind is not ServiceKind.SERVICE)
    with pytest.raises(HandlerNotFoundError, match="No worker here has a handler Shop/buy"):
        await stand_in.fn(Context())
