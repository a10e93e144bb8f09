"""JSON that comes back as it was, or is refused when it is written."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from perdure.schemas.errors import SerdeError
from perdure.worker.lossless_json import INTEGER_DIGITS_MAX, dump, load, load_deep

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Reading(BaseModel):
    """A model that may hold a NaN."""

    celsius: float | None = None


class LooseReading(BaseModel):
    """A model that writes NaN as a constant, on its author's request."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    celsius: float


class Colour(Enum):
    """An enumeration."""

    RED = "red"


@given(ANY_JSON)
def test_what_was_written_is_read_back(value: object) -> None:
    """Every value that JSON has comes back equal, integers of any size among them, and orjson reads it too."""
    out = dump(value)
    assert load(out) == value
    assert load_deep(out) == value
    orjson.loads(out)


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**100, int("9" * INTEGER_DIGITS_MAX)])
def test_large_integers_keep_every_digit(number: int) -> None:
    """An integer never becomes a float on the way, alone or inside of other values."""
    assert load(dump(number)) == number
    assert load(dump({"a": [None, number]})) == {"a": [None, number]}


@pytest.mark.parametrize("position", range(0, 4400, 397))
def test_integers_that_nobody_reads_are_refused(position: int) -> None:
    """Wherever in the bytes the integer stands, it is found before it is written; a string of digits is none."""
    padding = "x" * position
    with pytest.raises(SerdeError, match="more than 4300 digits"):
        dump([padding, 10**INTEGER_DIGITS_MAX])
    digits = "7" * (INTEGER_DIGITS_MAX + position + 1)
    assert load(dump([padding, digits, 2**70])) == [padding, digits, 2**70]


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        [1, {"a": math.nan}],
        [None, math.inf],
        {"big": 2**70, "x": math.nan},
        Reading(celsius=math.nan),
        [Reading(celsius=None), Reading(celsius=-math.inf)],
        LooseReading(celsius=math.nan),
    ],
)
def test_nan_and_infinity_are_refused(value: object) -> None:
    """What would be written as null, or as a constant that JSON lacks, is refused with what to use instead."""
    with pytest.raises(SerdeError, match="NaN or an infinity"):
        dump(value)


@pytest.mark.parametrize("value", ["NaN", "null", ["Infinity", None], {"null": 2**70, "NaN": None}])
def test_their_names_in_strings_are_not(value: object) -> None:
    """The second look tells a string from a number."""
    assert load(dump(value)) == value


@pytest.mark.parametrize("value", ["\ud800", ["a\udfffb"], {"\ud800": 1}, {"a": {"b": "\udc00"}}])
def test_a_lone_surrogate_is_refused_by_name(value: object) -> None:
    """Half a character is neither replaced nor escaped."""
    with pytest.raises(SerdeError, match="lone surrogate"):
        dump(value)


def test_types_that_json_lacks_are_written_by_what_they_are() -> None:
    """Without a type, dates, ids, decimals, enumerations, sets and models become the JSON that pydantic gives them."""
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert load(dump([moment, UUID(int=1), Decimal("1.10"), Colour.RED, (1, 2), {3}, Reading(celsius=1.5)])) == [
        "2030-01-02T03:04:05Z",
        "00000000-0000-0000-0000-000000000001",
        "1.10",
        "red",
        [1, 2],
        [3],
        {"celsius": 1.5},
    ]


@pytest.mark.parametrize("raw", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_bytes_are_refused_with_advice(raw: object) -> None:
    """They would come back as text."""
    with pytest.raises(SerdeError, match="annotate the type as bytes"):
        dump(raw)


def test_unknown_objects_and_cycles_are_refused() -> None:
    """The message names the type, or the cycle."""
    with pytest.raises(SerdeError, match=r"unknown type.*object"):
        dump([object()])
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(SerdeError, match="Circular reference"):
        dump(cycle)


@pytest.mark.parametrize("depth", [199, 202, 250])
def test_deep_nesting_is_read_as_far_as_it_is_written(depth: int) -> None:
    """Pydantic's reader gives up at 200 levels, its writer and orjson at 255: no depth lies between."""
    value: object = 2**70
    for _ in range(depth):
        value = [value]
    assert load(dump(value)) == value


def test_nesting_beyond_that_is_refused_both_ways() -> None:
    """A hostile depth is an error, not a crash."""
    value: object = 1
    for _ in range(400):
        value = [value]
    with pytest.raises(SerdeError, match="depth"):
        dump(value)
    with pytest.raises(SerdeError, match="too deep"):
        load(b"[" * 100_000)


@pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b'{"a":Infinity}', b"'a'", b'"\\ud800"', b"\xff", b"1 2"])
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    """Broken JSON is an error that says so, and constants are broken JSON."""
    with pytest.raises(SerdeError, match="Not JSON"):
        load(raw)
    with pytest.raises(SerdeError, match="Not JSON"):
        load(b"[" * 201 + b"NaN" + b"]" * 201)
