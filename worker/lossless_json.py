"""JSON that loses nothing: what was written is read back with the same value, or refused when it is written.

No JSON library does that alone. orjson is the fastest, but writes NaN as `null` and reads integers beyond 64 bits as
floats; pydantic writes them all, more than its own reader takes, and NaN as `null` wherever a model says nothing else.
So: orjson writes the builtins, pydantic the rest, pydantic reads, and cheap looks at the bytes tell when to look twice.
(`find`, not `in`: the latter tries its operand as an integer first and takes twice as long.)
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import orjson
from pydantic_core import PydanticSerializationError, SchemaSerializer, core_schema, from_json

from perdure.schemas.errors import SerdeError, text_of

# Python's own limit on reading an integer (sys.int_info.default_max_str_digits), which pydantic's reader shares.
INTEGER_DIGITS_MAX: Final = 4_300

# What serialising raises: pydantic's own, orjson's TypeError, and whatever a user's serializer or property does.
WRITE_ERRORS: Final = (PydanticSerializationError, ValueError, TypeError, AttributeError, RecursionError)

# Types that orjson would write in another way than pydantic go to pydantic: a datetime looks the same everywhere.
_BUILTINS_ONLY: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)

# Knows every type that pydantic can tell from the value alone; writes NaN as a constant, so that it shows.
_ANY: Final = SchemaSerializer(core_schema.any_schema(), core_schema.CoreConfig(ser_json_inf_nan="constants"))

# A run of more than 4,300 digits covers at least 100 bytes that lie 43 apart: a sample of 1/43 of the bytes tells, and
# the few false alarms are read back.
_SAMPLE: Final = 43
_SAMPLED_LONG_INTEGER: Final = re.compile(rb"[0-9]{100}")


def dump(value: object) -> bytes:
    """Return `value` as JSON, by what it is.

    Raises:
        SerdeError: It holds NaN, an infinity, a lone surrogate, an integer of more than `INTEGER_DIGITS_MAX` digits,
            itself, or an object that pydantic does not know; or it is bytes, which would be read as text.
    """
    try:
        out = orjson.dumps(value, option=_BUILTINS_ONLY)
    except (TypeError, RecursionError):
        return _dump_others(value)
    # Where there is a null, the slower writer tells whether it was None or NaN.
    if out.find(b"null") >= 0 and value is not None:
        refuse_unreadable(_ANY.to_json(value, warnings=False))
    return out


def load(buf: bytes) -> Any:
    """Return the value of JSON; every integer exactly.

    Raises:
        SerdeError: It is not JSON.
    """
    try:
        return from_json(buf, allow_inf_nan=False)
    except ValueError as error:
        if is_too_deep(error):
            return load_deep(buf)
        raise SerdeError(f"Not JSON: {error}.") from error


def load_deep(buf: bytes) -> Any:
    """Return the value of JSON nested deeper than pydantic's reader goes (200), as its writer allows (255).

    Raises:
        SerdeError: It is not JSON, or deeper still.
    """
    try:
        return json.loads(buf, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SerdeError(f"Not JSON, or nested too deep: {error}.") from error


def is_too_deep(error: ValueError) -> bool:
    """Whether pydantic's reader gave up on the nesting, and `load_deep` should be asked."""
    return "recursion limit exceeded" in str(error)


def refuse_null_for_nan(plain: object) -> None:
    """Refuse a NaN that a schema would write as `null`.

    Args:
        plain: The value as dicts, lists and numbers, as a serializer's `to_python(mode="json")` gives it.

    Raises:
        SerdeError: It holds NaN or an infinity.
    """
    refuse_unreadable(_ANY.to_json(plain, warnings=False))


def refuse_unreadable(out: bytes) -> None:
    """Refuse JSON that no reader of ours takes: NaN or Infinity outside of its strings, an integer that is too long.

    Raises:
        SerdeError: It has one.
    """
    if (out.find(b"NaN") >= 0 or out.find(b"Infinity") >= 0) and _reader_refuses(out, inf_nan=False):
        raise SerdeError("The value holds NaN or an infinity, which JSON does not have; use None or a string.")
    if len(out) > INTEGER_DIGITS_MAX and _SAMPLED_LONG_INTEGER.search(out[::_SAMPLE]) and _reader_refuses(out):
        raise SerdeError(f"The value holds an integer of more than {INTEGER_DIGITS_MAX} digits; use a string.")


def refusal(value: object, error: Exception) -> SerdeError:
    """Return what to raise for one of `WRITE_ERRORS`."""
    text = text_of(error)
    if "surrogates not allowed" in text:
        return SerdeError("The value holds a lone surrogate (half a character), which is not valid Unicode text.")
    text = text.removeprefix("Error serializing to JSON: ").removeprefix("ValueError: ")
    return SerdeError(
        f"{text[:1].upper()}{text[1:]}." if text else f"{type(error).__name__} in {type(value).__name__}."
    )


def _dump_others(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        raise SerdeError("JSON has no bytes: annotate the type as bytes, or give BytesSerde().")
    try:
        out = _ANY.to_json(value, warnings=False)
        plain = _ANY.to_python(value, mode="json", warnings=False) if out.find(b"null") >= 0 else None
    except WRITE_ERRORS as error:
        raise refusal(value, error) from error
    if plain is not None:
        refuse_null_for_nan(plain)
    refuse_unreadable(out)
    return out


def _reader_refuses(out: bytes, *, inf_nan: bool = True) -> bool:
    try:
        from_json(out, allow_inf_nan=inf_nan)
    except ValueError as error:
        return not is_too_deep(error)
    return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
