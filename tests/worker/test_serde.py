"""Which serde a type gets, what it accepts, and what it says when it does not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar, Union
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from perdure.schemas.errors import DefinitionError, RetryableError, SerdeError, TerminalError
from perdure.worker.serde import (
    BYTES,
    JSON,
    BytesSerde,
    DefaultSerde,
    JsonSerde,
    PydanticJsonSerde,
    Serde,
    decode_value,
    encode_readable,
    encode_value,
    serde_for,
    serde_or_json,
    type_name,
)

T = TypeVar("T")


class Colour(Enum):
    """An enumeration."""

    RED = "red"


class Order(BaseModel):
    """A model with an alias, which is what stands in the JSON."""

    user_id: str = Field(alias="userId")
    price: Decimal = Decimal("9.50")
    note: str | None = None


class OtherOrder(BaseModel):
    """Another model that reads the same JSON as `Twin`."""

    name: str


class Twin(BaseModel):
    """See `OtherOrder`."""

    name: str


class Box(BaseModel, Generic[T]):
    """A generic model."""

    content: T


class Strict(BaseModel):
    """A model that takes no unknown fields."""

    model_config = ConfigDict(extra="forbid")
    sensor: float | None = None


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    y: float = 0.5


class Address(TypedDict):
    """A typed dictionary."""

    city: str


class Pair(NamedTuple):
    """A named tuple."""

    left: int
    right: str


ROUND_TRIPS: list[tuple[Any, Any]] = [
    (str, "héllo ☂"),
    (int, 10**40),
    (float, 0.1),
    (bool, False),
    (dict[str, int], {"a": 1}),
    (dict[int, str], {1: "a"}),
    (list[Point], [Point(1), Point(2, 3.5)]),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (Order, Order(userId="u")),
    (Order | None, None),
    (Optional[Order], Order(userId="u", note="n")),  # noqa: UP045  # the old spelling is what is tested
    (Union[int, str], "7"),  # noqa: UP007  # likewise
    (Point, Point(1)),
    (Address, {"city": "Bern"}),
    (Pair, Pair(1, "b")),
    (Colour, Colour.RED),
    (datetime, datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    (date, date(2030, 1, 2)),
    (timedelta, timedelta(days=3, microseconds=5)),
    (UUID, UUID(int=5)),
    (Decimal, Decimal("1.10")),
    (Literal["a", "b"], "b"),
    (Annotated[int, Field(gt=0)], 5),
    (Box[Point], Box[Point](content=Point(1))),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"\x00\xff")),
    (bytes | None, None),
    (bytes | None, b"\xff"),
    (Any, {"a": [1, None, "x", 2**70]}),
    (None, "whatever"),
]


@pytest.mark.parametrize(("hint", "value"), ROUND_TRIPS, ids=lambda value: str(value)[:30])
def test_every_kind_of_type_comes_back_as_it_was(hint: Any, value: Any) -> None:
    """A value of a declared type is equal, and of the same type, after having been bytes."""
    serde = serde_for(hint)
    raw, seen = encode_readable(serde, value, what="It")
    assert seen == value
    assert type(seen) is type(value)
    assert serde.deserialize(raw) == value


def test_fields_go_by_their_aliases() -> None:
    """The JSON of a model is what its own reader wants."""
    assert serde_for(Order).serialize(Order(userId="u")) == b'{"userId":"u","price":"9.50","note":null}'


def test_plain_types_have_plain_serdes() -> None:
    """Bytes travel as they are, and what has no type is JSON without a schema."""
    assert serde_for(bytes) is BYTES
    assert all(serde_for(hint) is JSON for hint in (None, type(None), Any, object))
    assert isinstance(serde_for(Order), PydanticJsonSerde)


def test_a_type_is_built_once() -> None:
    """Asking again gives the same serde. Unions of another order are other types: order decides between equals."""
    assert serde_for(Order) is serde_for(Order)
    assert serde_for(list[Order]) is serde_for(list[Order])
    first, second = serde_for(OtherOrder | Twin), serde_for(Twin | OtherOrder)
    assert isinstance(first.deserialize(b'{"name":"a"}'), OtherOrder)
    assert isinstance(second.deserialize(b'{"name":"a"}'), Twin)


def test_a_type_that_cannot_be_hashed_is_built_all_the_same() -> None:
    """Only the memory of it is lost."""
    assert serde_for(Annotated[int, ["metadata"]]).deserialize(b"5") == 5


class Plain:
    """A class that nothing knows how to read."""


@pytest.mark.parametrize("hint", [Plain, list[Plain], "Order", 5])
def test_types_that_nothing_reads_are_refused(hint: Any) -> None:
    """The definition fails, each time that it is asked for; a step's annotation falls back to JSON."""
    for _ in range(2):
        with pytest.raises(DefinitionError, match=r"type"):
            serde_for(hint)
        assert serde_or_json(hint) is JSON
    with pytest.raises(DefinitionError):
        DefaultSerde(hint)


def test_a_model_with_an_open_reference_is_refused_at_definition() -> None:
    """A field whose type is not there is found before any invocation is."""

    class Half(BaseModel):
        other: "Missing"  # type: ignore[name-defined]  # noqa: F821, UP037  # that it is missing is the point

    with pytest.raises(DefinitionError, match=r"Half.*Missing"):
        serde_for(Half)


@pytest.mark.parametrize("serde", [JSON, serde_for(str), serde_for(Order)])
def test_none_is_null(serde: Serde[Any]) -> None:
    """JSON has a word for nothing."""
    assert serde.serialize(None) == b"null"


def test_nothing_is_read_as_none_where_none_is_allowed() -> None:
    """A missing argument is None for types that take it, empty bytes for bytes, and refused by the rest."""
    assert JSON.deserialize(b"") is None
    assert serde_for(Order | None).deserialize(b"") is None
    assert serde_for(bytes | None).deserialize(b"") is None
    assert BYTES.deserialize(b"") == b""
    assert BYTES.serialize(None) == b""
    with pytest.raises(SerdeError, match="valid string"):
        serde_for(str).deserialize(b"")


def test_a_refusal_names_the_places_and_keeps_the_values_to_itself() -> None:
    """Failures are stored and shown; a credit card in a wrong field is not for them."""
    with pytest.raises(SerdeError) as caught:
        serde_for(list[Point]).deserialize(b'[{"x": "4242-4242"}, {"x": 1}, {"y": 1}]')
    assert str(caught.value) == (
        "0.x: Input should be a valid integer, unable to parse string as an integer; 2.x: Field required."
    )
    with pytest.raises(SerdeError, match="and 5 more"):
        serde_for(list[int]).deserialize(b'["a","a","a","a","a","a","a","a","a","a"]')
    with pytest.raises(SerdeError, match="Invalid JSON"):
        serde_for(Point).deserialize(b"{")


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (str, 5, b"5"),
        (str, Order(userId="u"), b'{"userId":"u","price":"9.50","note":null}'),
        (Order, {"userId": "x"}, b'{"userId":"x"}'),
        (Point, Twin(name="a"), b'{"name":"a"}'),
        (int, [1, {"a": None}], b'[1,{"a":null}]'),
    ],
)
def test_another_type_than_declared_goes_by_what_it_is(hint: Any, value: Any, expected: bytes) -> None:
    """No warning either: warnings are errors in this suite."""
    assert serde_for(hint).serialize(value) == expected


def test_a_value_that_could_not_be_read_back_never_becomes_bytes() -> None:
    """What a journal holds can be replayed: the declared type is asked before, and the message names the step."""
    with pytest.raises(SerdeError, match=r"Step 'charge' is of type NoneType, and PydanticJsonSerde\(Order\)"):
        encode_readable(serde_for(Order), None, what="Step 'charge'")
    with pytest.raises(SerdeError, match="greater than 0"):
        encode_readable(serde_for(Annotated[int, Field(gt=0)]), -1, what="Step 'count'")
    with pytest.raises(SerdeError, match="valid integer"):
        encode_readable(serde_for(int), math.nan, what="Step 'count'")
    assert encode_readable(serde_for(Order), {"userId": "x"}, what="It")[1] == Order(userId="x")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, math.nan),
        (float | None, math.inf),
        (dict[str, float], {"a": math.nan}),
        (Strict, Strict(sensor=math.nan)),
        (list[Strict], [Strict(), Strict(sensor=-math.inf)]),
        (Point, Point(1, math.nan)),
        (Any, math.nan),
    ],
)
def test_nan_is_refused_whatever_the_type(hint: Any, value: object) -> None:
    """It would come back as None, or as an error."""
    with pytest.raises(SerdeError, match="NaN or an infinity"):
        serde_for(hint).serialize(value)


def test_typed_values_are_held_to_the_same_limits() -> None:
    """Lone surrogates, endless integers, cycles and unknown objects are refused by name; deep nesting is read."""
    with pytest.raises(SerdeError, match="lone surrogate"):
        serde_for(str).serialize("\ud800")
    with pytest.raises(SerdeError, match="4300 digits"):
        serde_for(int).serialize(10**5000)
    with pytest.raises(SerdeError, match=r"unknown type.*Plain"):
        serde_for(dict[str, Any]).serialize({"a": Plain()})
    with pytest.raises(SerdeError, match="Bytes are declared, but the value is of type str"):
        serde_for(bytes).serialize("text")
    deep: list[Any] = []
    for _ in range(230):
        deep = [deep]
    assert serde_for(list[Any]).deserialize(serde_for(list[Any]).serialize(deep)) == deep
    with pytest.raises(SerdeError, match="valid dictionary"):
        serde_for(dict[str, Any]).deserialize(JSON.serialize(deep))


def test_the_default_serde_takes_the_hint_of_its_place() -> None:
    """A type of its own wins over the place's; without either it is JSON."""
    assert DefaultSerde().deserialize(b'{"x": 1}') == {"x": 1}
    assert DefaultSerde().with_hint(Point) is serde_for(Point)
    assert DefaultSerde(Point).with_hint(str).deserialize(b'{"x": 1}') == Point(1)
    typed: DefaultSerde[Point] = DefaultSerde(Point)
    assert typed.serialize(Point(1)) == b'{"x":1,"y":0.5}'


class Reversed(Serde[str]):
    """A serde of a user's own, which fails in the user's own way."""

    def serialize(self, obj: str | None) -> bytes:
        """Back to front."""
        return (obj or "")[::-1].encode()

    def deserialize(self, buf: bytes) -> str:
        """Likewise."""
        return buf.decode()[::-1]


def test_a_serde_of_ones_own_does_what_it_does() -> None:
    """Its errors are wrapped, with what it was that failed."""
    assert encode_readable(Reversed(), "abc", what="It") == (b"cba", "abc")
    with pytest.raises(SerdeError, match=r"The result of step 'x' is of type int and cannot be serialised. TypeError"):
        encode_value(Reversed(), 5, what="The result of step 'x'")
    with pytest.raises(SerdeError, match=r"The result of step 'x' \(1 bytes\) cannot be read. UnicodeDecodeError"):
        decode_value(Reversed(), b"\xff", what="The result of step 'x'")
    with pytest.raises(SerdeError, match="Mend the annotation"):
        encode_readable(Broken(UnicodeError("no")), "a", what="It")


class Broken(Serde[str]):
    """A serde that raises what it was given when it reads."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def serialize(self, obj: str | None) -> bytes:
        """Write nothing, or fail on request."""
        if obj == "fail":
            raise self.error
        return b""

    def deserialize(self, buf: bytes) -> str:
        """Fail."""
        raise self.error


@pytest.mark.parametrize("error", [TerminalError("gone", 410), RetryableError("later")])
@pytest.mark.parametrize(
    "use",
    [
        lambda serde: encode_value(serde, "fail", what="It"),
        lambda serde: decode_value(serde, b"", what="It"),
        lambda serde: encode_readable(serde, "a", what="It"),
    ],
)
def test_errors_that_mean_something_to_the_engine_pass(error: Exception, use: Callable[[Serde[str]], Any]) -> None:
    """A serde may decide that its failure is final, or worth another try later."""
    with pytest.raises(type(error)) as caught:
        use(Broken(error))
    assert caught.value is error


@pytest.mark.parametrize(
    ("hint", "name"), [(int, "int"), (Order, "Order"), (list[Order], "Order]"), (int | None, "int | None")]
)
def test_types_are_shown_as_people_write_them(hint: Any, name: str) -> None:
    """For messages."""
    assert type_name(hint).endswith(name)


@pytest.mark.parametrize("serde", [JsonSerde(), BytesSerde(), DefaultSerde(), DefaultSerde(int), serde_for(int)])
def test_serdes_say_what_they_are(serde: Serde[Any]) -> None:
    """The constructor call, for messages."""
    assert repr(serde).endswith(")")
    assert "object at" not in repr(serde)
