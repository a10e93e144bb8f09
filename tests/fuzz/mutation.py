"""Bytes that are nearly right: what is good, cut, doubled, spliced, and spiked with what readers trip over."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

MUTATIONS_MAX: Final = 6
"""One after the other on one input: more leaves nothing of it."""

BYTES_MAX: Final = 20_000
"""An input does not grow beyond that: what is refused for its size is tested by itself."""

SPIKES: Final[Sequence[bytes]] = (
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0.1e-400", b"9" * 20, b"9" * 400, b"9" * 5_000),
    *(b"9223372036854775808", b"-1", b"18446744073709551616", b"4503599627370497", b"2147483648"),
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"{}", b"[]", b'""', b"[" * 300, b"]" * 300, b'{"a":' * 300),
    *(rb"\ud800", rb"\udc00\ud800", rb"\u0000", rb"\u001b[2J", b"\xef\xbb\xbf", b"\xff", b"\xc3\x28", b"\xed\xa0\x80"),
    *(
        b"\x00",
        b"\r\n",
        b"\n",
        b"\t",
        b"\x1b[2J",
        b"\x7f",
        b"\xc2\x9b",
        b" ",
        b"\xe2\x80\xae",
        b"{17}",
        b"'",
        b"%s",
        b"*",
    ),
    *(b',"value":', b',"value":1', b',"base64":"', b',"failure":{', b'"base64":"!"', b'"index":-1', b'"epoch":1.5'),
    *(
        b'"handler":',
        b'"handler":"",',
        b'"id":"inv_',
        b"inv_" + b"f" * 27,
        b'"not_before":',
        b'"headers":{"":""}',
        b"/",
    ),
    *(
        b"*-1\r\n",
        b"$-1\r\n",
        b":1\r\n",
        b"_\r\n",
        b"-ERR x\r\n",
        b"*1000000\r\n",
        b"$9999999999\r\n",
        b"%1\r\n",
        b"0-0",
    ),
)
"""What has broken some reader: numbers at the ends of their types, nesting, encodings, marks of our own formats."""


class Mutator:
    """Makes inputs out of seeds; the same ones for the same random numbers.

    Args:
        seeds: Inputs that are right, at least one.
        generator: Where its choices come from.
    """

    def __init__(self, seeds: Sequence[bytes], generator: random.Random) -> None:
        self._seeds = list(seeds)
        self._random = generator
        self._mutations: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._insert,
            self._spike,
            self._spike,
            self._delete,
            self._double,
            self._splice,
            self._number,
        )

    def __call__(self) -> bytes:
        """Return the next input."""
        data = self._random.choice(self._seeds)
        for _ in range(self._random.randint(1, MUTATIONS_MAX)):
            data = self._random.choice(self._mutations)(data)[:BYTES_MAX]
        return data

    def _at(self, data: bytes) -> int:
        return self._random.randint(0, len(data))

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._random.randrange(8)]) + data[at + 1 :]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self._random.randbytes(self._random.randint(1, 4)) + data[at:]

    def _spike(self, data: bytes) -> bytes:
        at = self._at(data)
        over = self._random.choice((0, 0, 1, 4))
        return data[:at] + self._random.choice(SPIKES) + data[at + over :]

    def _delete(self, data: bytes) -> bytes:
        first, last = sorted((self._at(data), self._at(data)))
        return data[:first] + data[min(last, first + 40) :]

    def _double(self, data: bytes) -> bytes:
        first, last = sorted((self._at(data), self._at(data)))
        return data[:last] + data[first:last] + data[last:]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._seeds)
        return data[: self._at(data)] + other[self._at(other) :]

    def _number(self, data: bytes) -> bytes:
        digits = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
        if not digits:
            return data
        at = self._random.choice(digits)
        return data[:at] + self._random.choice((b"-1", b"0", b"1.5", b"9" * 19, b"9" * 30, b'"1"')) + data[at + 1 :]
