"""Codecs of payloads: `perdure.worker.payload_codec`, with one that compresses and encrypts as an example."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.worker.payload_codec import PayloadCodec, checked_codec


class Sealed(PayloadCodec):
    """Compresses, then encrypts and authenticates, with keys that can be changed.

    The cipher is made of what the standard library has, to show the shape; take AES-SIV or AES-GCM of a library.

    Args:
        keys: Keys of 32 bytes by a name of one byte; the last one encrypts, and all decrypt.
    """

    applies_to_failures = True

    def __init__(self, keys: Mapping[bytes, bytes]) -> None:
        self._keys = dict(keys)
        self._current = list(self._keys)[-1]

    def encode(self, data: bytes, /) -> bytes:
        """Return the key's name, the seal, and what it seals."""
        key, packed = self._keys[self._current], zlib.compress(data)
        seal = hmac.digest(key, packed, "sha256")
        return self._current + seal + self._mixed(key, seal, packed)

    def decode(self, data: bytes, /) -> bytes:
        """Return what was sealed, or raise a ValueError for what this codec did not make."""
        key, seal = self._keys.get(data[:1]), data[1:33]
        if key is None:
            raise ValueError(f"There is no key {data[:1]!r} to decode this payload with.")
        packed = self._mixed(key, seal, data[33:])
        if not hmac.compare_digest(seal, hmac.digest(key, packed, "sha256")):
            raise ValueError("The payload was changed, or is none of this codec's.")
        return zlib.decompress(packed)

    @staticmethod
    def _mixed(key: bytes, seal: bytes, data: bytes) -> bytes:
        blocks = (hashlib.sha256(key + seal + number.to_bytes(8)).digest() for number in itertools.count())
        return bytes(a ^ b for a, b in zip(data, itertools.chain.from_iterable(blocks), strict=False))


OLD = {b"1": b"o" * 32}
NEW = OLD | {b"2": b"n" * 32}


@pytest.mark.parametrize("data", [b"", b"null", b'{"card":"4111111111111111"}' * 100, bytes(range(256))])
def test_a_codec_may_compress_and_encrypt(data: bytes) -> None:
    """What comes back is what went in, and what lies between tells nothing of it."""
    codec = checked_codec(Sealed(NEW))
    assert codec is not None
    kept = codec.encode(data)
    assert codec.decode(kept) == data
    assert b"4111" not in kept
    if len(data) > 1_000:
        assert len(kept) < len(data) / 10


def test_a_codec_may_change_its_keys() -> None:
    """What the old key encoded stays readable; what no key fits is refused."""
    kept = Sealed(OLD).encode(b"kept")
    assert Sealed(NEW).decode(kept) == b"kept"
    with pytest.raises(ValueError, match="no key b'2'"):
        Sealed(OLD).decode(Sealed(NEW).encode(b"kept"))
    with pytest.raises(ValueError, match="was changed"):
        Sealed(OLD).decode(kept[:-1] + bytes([kept[-1] ^ 1]))


def test_failures_are_left_readable_unless_a_codec_says_otherwise() -> None:
    """The inherited default."""

    class Reversed(PayloadCodec):
        def encode(self, data: bytes, /) -> bytes:
            return data[::-1]

        def decode(self, data: bytes, /) -> bytes:
            return data[::-1]

    codec = Reversed()
    assert checked_codec(codec) is codec
    assert not codec.applies_to_failures
    assert checked_codec(None) is None


class OneWay:
    """Cannot be read again."""

    applies_to_failures = False

    def encode(self, data: bytes) -> bytes:
        """Return something."""
        return data


class Unsaid(OneWay):
    """Does not say what becomes of failures."""

    applies_to_failures: Any = None

    def decode(self, data: bytes) -> bytes:
        """Return something."""
        return data


class Waiting(Unsaid):
    """Asks somebody else."""

    applies_to_failures = False

    async def encode(self, data: bytes) -> bytes:  # type: ignore[override]  # that it is refused is what is tested
        """Return something later."""
        return data


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (Sealed, "takes an instance, not the class Sealed"),
        (OneWay(), r"OneWay .* has no decode\(data\)"),
        (Unsaid(), "Unsaid .* has no applies_to_failures"),
        (Waiting(), "encode of .*Waiting .* is async"),
        (zlib, r"has no encode\(data\)"),
    ],
)
def test_what_is_no_codec_is_refused(given: Any, why: str) -> None:
    """Where the application is made, and not at the first value."""
    with pytest.raises(DefinitionError, match=rf"payload_codec=\.\.\..*{why}"):
        checked_codec(given)
