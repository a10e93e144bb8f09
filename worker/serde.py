"""Values to bytes and back: what an argument, a result and a step's value look like in Kafka and in Redis.

The law: what stands in a journal can be read. What JSON cannot carry (NaN, lone surrogates, integers of more than 4,300
digits) is refused by name when it is written, and never changed silently; `encode_readable` also refuses what the
declared type would not read, before it is appended, since a replay could do nothing about it.

JSON writes `None` as `null`; the empty bytes, a missing argument, are read like `null`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Final, Generic, TypeVar, Union, get_args, get_origin

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from perdure.schemas.errors import (
    DefinitionError,
    PerdureError,
    RetryableError,
    SerdeError,
    TerminalError,
    text_of,
)

from . import lossless_json

T = TypeVar("T")

# A program has some hundred types in its steps; beyond that they are made per call and should not be kept alive.
TYPED_SERDES_MAX: Final = 1024

# A validation message names that many places; the rest is counted. It travels with the failure.
_PROBLEMS_SHOWN_MAX: Final = 5


class Serde(ABC, Generic[T]):
    """Turns values of one type into bytes and back. Implement it for formats of your own."""

    @abstractmethod
    def serialize(self, obj: T | None) -> bytes:
        """Return the bytes of `obj`; the same value gives the same bytes."""

    @abstractmethod
    def deserialize(self, buf: bytes) -> T | None:
        """Return the value of `buf`; empty bytes are a missing value."""


class BytesSerde(Serde[bytes]):
    """Bytes as they are. `None` is written as empty bytes, and empty bytes are read as empty bytes."""

    def __repr__(self) -> str:
        return "BytesSerde()"

    def serialize(self, obj: bytes | None) -> bytes:
        """Return the bytes.

        Raises:
            SerdeError: `obj` is neither `None` nor bytes, bytearray or memoryview.
        """
        return _raw_bytes(obj)

    def deserialize(self, buf: bytes) -> bytes:
        """Return `buf`."""
        return buf


class JsonSerde(Serde[Any]):
    """JSON without a schema: what comes back is dict, list, str, int, float, bool or `None`.

    Writes builtins, and also what pydantic knows without being told a type (dataclasses, models, datetime, UUID,
    Decimal, Enum, set): those come back as their JSON. Integers keep every digit.
    """

    def __repr__(self) -> str:
        return "JsonSerde()"

    def serialize(self, obj: object) -> bytes:
        """Return `obj` as JSON.

        Raises:
            SerdeError: `obj` holds something that JSON cannot carry, or is bytes.
        """
        return lossless_json.dump(obj)

    def deserialize(self, buf: bytes) -> Any:
        """Return the value; `None` for empty bytes.

        Raises:
            SerdeError: `buf` is not JSON.
        """
        return lossless_json.load(buf) if buf else None


class PydanticJsonSerde(Serde[T]):
    """JSON checked by pydantic on the way in: a model, a dataclass, or any other type that pydantic knows.

    Validators are built once, here. Fields go by their aliases. A value of another type than declared is written by
    what it is; a subclass of a declared model is written with the fields of the declared one, as pydantic does. NaN is
    refused where the type says float, or says nothing; in a place that is declared otherwise, pydantic writes `null`.

    Args:
        model: The type to read and write.

    Raises:
        DefinitionError: Pydantic cannot build a schema for it.
    """

    __slots__ = ("_adapter", "_dump", "_load", "_plain", "model")

    def __init__(self, model: type[T]) -> None:
        self.model = model
        self._adapter: TypeAdapter[T] = _adapter(model)
        # Bound once: the adapter's own methods cost four times as much in keyword handling.
        self._dump = self._adapter.serializer.to_json
        self._plain = self._adapter.serializer.to_python
        self._load = self._adapter.validator.validate_json

    def __repr__(self) -> str:
        return f"PydanticJsonSerde({type_name(self.model)})"

    def serialize(self, obj: T | None) -> bytes:
        """Return `obj` as JSON.

        Raises:
            SerdeError: `obj` holds something that JSON cannot carry.
        """
        if obj is None:
            return b"null"
        try:
            out = self._dump(obj, by_alias=True, warnings=False)
            plain = self._plain(obj, mode="json", warnings=False) if out.find(b"null") >= 0 else None
        except lossless_json.WRITE_ERRORS as error:
            raise lossless_json.refusal(obj, error) from error
        if plain is not None:
            lossless_json.refuse_null_for_nan(plain)
        lossless_json.refuse_unreadable(out)
        return out

    def deserialize(self, buf: bytes) -> T | None:
        """Return the checked value; empty bytes are read as `null`, which only types that allow `None` accept.

        Raises:
            SerdeError: `buf` is not JSON, or not of the type; the message names the fields and leaves the values out.
        """
        try:
            return self._load(buf or b"null")  # type: ignore[no-any-return]  # the validator is untyped
        except ValidationError as error:
            if lossless_json.is_too_deep(error):
                return self._load_deep(buf)
            raise SerdeError(_problems(error)) from error

    def _load_deep(self, buf: bytes) -> T:
        value = lossless_json.load_deep(buf)
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise SerdeError(_problems(error)) from error


class DefaultSerde(Serde[T]):
    """The serde that the type asks for: see `serde_for`. Without a type, a handler or step fills in its annotation.

    Args:
        type_hint: The type of the values; `None` leaves it to the place where this serde is used.

    Raises:
        DefinitionError: Nothing can read and write that type.
    """

    __slots__ = ("_serde", "type_hint")

    def __init__(self, type_hint: Any = None) -> None:
        self.type_hint = type_hint
        self._serde: Serde[Any] = JSON if type_hint is None else serde_for(type_hint)

    def __repr__(self) -> str:
        return f"DefaultSerde({'' if self.type_hint is None else type_name(self.type_hint)})"

    def serialize(self, obj: T | None) -> bytes:
        """Return the bytes of `obj` as the type's serde writes it, or as JSON."""
        return self._serde.serialize(obj)

    def deserialize(self, buf: bytes) -> T | None:
        """Return the value of `buf` as the type's serde reads it, or as JSON."""
        return self._serde.deserialize(buf)

    def with_hint(self, type_hint: Any) -> Serde[Any]:
        """Return what reads and writes `type_hint`, unless this serde was given a type of its own."""
        return serde_for(type_hint) if self.type_hint is None else self._serde


class _ConvertedBytesSerde(Serde[Any]):
    """Bytes for the hints that are not plain `bytes`: `bytearray`, and `bytes | None`, where empty means `None`."""

    __slots__ = ("_empty_is_none", "_kind")

    def __init__(self, kind: type[bytes] | type[bytearray], *, empty_is_none: bool) -> None:
        self._kind = kind
        self._empty_is_none = empty_is_none

    def serialize(self, obj: bytes | bytearray | None) -> bytes:
        return _raw_bytes(obj)

    def deserialize(self, buf: bytes) -> bytes | bytearray | None:
        return None if self._empty_is_none and not buf else self._kind(buf)


JSON: Final = JsonSerde()
BYTES: Final = BytesSerde()
DEFAULT_SERDE: Final[DefaultSerde[Any]] = DefaultSerde()


def serde_for(type_hint: Any) -> Serde[Any]:
    """Return the serde of a type hint.

    `bytes` and `bytearray` (or either with `None`, where empty bytes mean `None`) travel as they are; no hint, `None`,
    `Any` and `object` are JSON without a schema; everything else is JSON checked by pydantic. A bounded number is
    remembered, so that asking again for the same type costs a look-up.

    Raises:
        DefinitionError: Pydantic cannot build a schema for the type.
    """
    # Equal unions may differ in order, which decides between equally good members: their text is part of the key.
    text = "" if isinstance(type_hint, type) else repr(type_hint)
    try:
        hash(type_hint)
    except TypeError:
        return _build_serde(type_hint)
    serde = _remembered_serde(type_hint, text)
    if isinstance(serde, DefinitionError):
        raise DefinitionError(str(serde)) from serde.__cause__
    return serde


def serde_or_json(type_hint: Any) -> Serde[Any]:
    """Return the serde of a hint that was not written for us; JSON without a schema where pydantic does not know it.

    For return annotations of steps, which may be third-party functions: what cannot be written is still refused once
    the value is there.
    """
    try:
        return serde_for(type_hint)
    except DefinitionError:
        return JSON


def encode_value(serde: Serde[Any], value: object, *, what: str) -> bytes:
    """Return the bytes of `value`.

    Args:
        serde: A serde of ours or of the user's.
        value: What to write.
        what: What it is, for the message: "The result of step 'charge'".

    Raises:
        SerdeError: It cannot be written; names `what` and the value's type.
    """
    try:
        return serde.serialize(value)
    except (TerminalError, RetryableError):
        raise
    # A serde may be the user's code.
    except Exception as error:
        raise SerdeError(
            f"{what} is of type {type_name(type(value))} and cannot be serialised. {_reason(error)} "
            "Give another type, or a serde that knows it."
        ) from error


def decode_value(serde: Serde[Any], raw: bytes, *, what: str) -> Any:
    """Return the value of `raw`.

    Args:
        serde: A serde of ours or of the user's.
        raw: What was written.
        what: What it is, for the message: "The result of step 'charge'".

    Raises:
        SerdeError: It cannot be read; names `what`.
    """
    try:
        return serde.deserialize(raw)
    except (TerminalError, RetryableError):
        raise
    # A serde may be the user's code.
    except Exception as error:
        raise SerdeError(f"{what} ({len(raw)} bytes) cannot be read. {_reason(error)}") from error


def encode_readable(serde: Serde[Any], value: object, *, what: str) -> tuple[bytes, Any]:
    """Return the bytes of `value`, and the value that every replay will read from them.

    For what is going to stand in a journal: bytes that cannot be read back are never returned. The second value is what
    the handler should see, in this attempt as in a replay, and saves reading the bytes again.

    Raises:
        SerdeError: It cannot be written, or what was written is not what the serde reads; names `what` and the type.
    """
    raw = encode_value(serde, value, what=what)
    try:
        return raw, serde.deserialize(raw)
    except (TerminalError, RetryableError):
        raise
    # A serde may be the user's code.
    except Exception as error:
        raise SerdeError(
            f"{what} is of type {type_name(type(value))}, and {serde!r} could not read it back. {_reason(error)} "
            "Mend the annotation or the value."
        ) from error


def type_name(hint: Any) -> str:
    """Return a type as people write it: `dict[str, int]`, `Order`, `str | None`."""
    return hint.__qualname__ if isinstance(hint, type) else inspect.formatannotation(hint)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PerdureError) else f"{type(error).__name__}: {text_of(error)}."


@lru_cache(maxsize=TYPED_SERDES_MAX)
def _remembered_serde(type_hint: Any, text: str) -> Serde[Any] | DefinitionError:
    # A refusal is remembered too: a step's annotation that pydantic does not know is asked for at every call.
    try:
        return _build_serde(type_hint)
    except DefinitionError as error:
        return error


def _build_serde(type_hint: Any) -> Serde[Any]:
    if any(type_hint is untyped for untyped in (None, NoneType, Any, object, inspect.Parameter.empty)):
        return JSON
    if type_hint is bytes:
        return BYTES
    if type_hint is bytearray:
        return _ConvertedBytesSerde(bytearray, empty_is_none=False)
    optional = _optional_of(type_hint)
    if optional is bytes or optional is bytearray:
        return _ConvertedBytesSerde(optional, empty_is_none=True)
    return PydanticJsonSerde(type_hint)


def _optional_of(type_hint: Any) -> Any:
    """The `X` of `X | None`, else nothing."""
    if get_origin(type_hint) not in (Union, UnionType):
        return None
    members = [member for member in get_args(type_hint) if member is not NoneType]
    return members[0] if len(members) == 1 else None


def _adapter(type_hint: Any) -> TypeAdapter[Any]:
    # Pydantic would look a string up in whatever scope is calling; ours is the wrong one.
    if isinstance(type_hint, str):
        raise DefinitionError(f"The type hint {type_hint!r} is text; give the type itself.")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(type_hint)
        if not adapter.pydantic_complete:
            adapter.rebuild(raise_errors=True)
    except (PydanticUserError, NameError, TypeError, SchemaError) as error:
        why = str(error).split("\n\nFor further information", 1)[0]
        raise DefinitionError(
            f"Nothing can read and write the type {type_name(type_hint)}: {why} "
            "Use another type, or give a serde of your own."
        ) from error
    return adapter


def _raw_bytes(obj: object) -> bytes:
    match obj:
        case None:
            return b""
        case bytes():
            return obj
        case bytearray() | memoryview():
            return bytes(obj)
        case _:
            raise SerdeError(f"Bytes are declared, but the value is of type {type_name(type(obj))}.")


def _problems(error: ValidationError) -> str:
    """One line: where and what, without the values, which may be secrets."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" if e["loc"] else e["msg"] for e in found]
    more = len(told) - _PROBLEMS_SHOWN_MAX
    return "; ".join(told[:_PROBLEMS_SHOWN_MAX]) + (f"; and {more} more." if more > 0 else ".")
