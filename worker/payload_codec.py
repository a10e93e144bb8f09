"""What authors put between values and the places where they are kept, to compress or encrypt them. Pure."""

from __future__ import annotations

import inspect
from typing import Protocol

from perdure.schemas.errors import DefinitionError


class PayloadCodec(Protocol):
    """Turns what serdes wrote into what stands in Redis and Kafka, and back.

    Both are called on the worker's loop for every value: they are quick, do no I/O, and keep no state between calls.
    `decode(encode(data)) == data` holds in every process of the namespace, and for as long as anything is kept: a new
    key or format comes with a mark in the bytes by which `decode` knows the old one. `encode` need not give the same
    bytes twice.

    Inherit from it, or have all three of its attributes.

    Attributes:
        applies_to_failures: Whether messages and metadata of failures are encoded, too. They may quote values; encoded,
            they cannot be read in `redis-cli` and listings.
    """

    applies_to_failures: bool = False

    def encode(self, data: bytes, /) -> bytes:
        """Return what is kept in place of `data`; what it raises fails whatever needed it."""
        ...

    def decode(self, data: bytes, /) -> bytes:
        """Return what `encode` was given; what it raises fails whatever needed it."""
        ...


def checked_codec(given: PayloadCodec | None) -> PayloadCodec | None:
    """Return what was given as `payload_codec`.

    Raises:
        DefinitionError: It lacks an attribute of `PayloadCodec`, is a class rather than an instance, or is async.
    """
    if given is None:
        return None
    if isinstance(given, type):
        raise DefinitionError(f"payload_codec=... takes an instance, not the class {given.__name__}. Call it.")
    for name in ("encode", "decode"):
        method = getattr(given, name, None)
        if not callable(method):
            raise DefinitionError(f"payload_codec=... takes a PayloadCodec; {given!r} has no {name}(data).")
        if inspect.iscoroutinefunction(method):
            raise DefinitionError(
                f"payload_codec=...: {name} of {given!r} is async. Write plain functions, and fetch what they need "
                "beforehand, such as keys in the application's lifespan."
            )
    if not isinstance(getattr(given, "applies_to_failures", None), bool):
        raise DefinitionError(
            f"payload_codec=...: {given!r} has no applies_to_failures, True or False. Inherit from PayloadCodec, whose "
            "is False."
        )
    return given
