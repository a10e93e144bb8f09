"""PURE. Kafka's record batches, read with whatever bytes the names of their headers hold.

aiokafka gives up on a batch in which a header's name is not UTF-8, where brokers take any. `Batches` stands in for its
`MemoryRecords` then: aiokafka's `PartitionRecords` drives it, checks its checksums and leaves out what transactions
aborted.

Law: nothing is guessed at. Bytes that are not a batch of format 2 raise `ValueError`, and no record is made of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_FROM = 12
"""The length of a batch counts from here, behind itself."""
_CHECKED_FROM = 21
"""The checksum covers everything behind itself."""
_CODEC, _LOG_APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_FORMAT = 2
_VARINT_BITS_MAX = 63
_NO_TIMESTAMP = -1


class Codecs(NamedTuple):
    """What a batch's bytes are checked and unpacked with: CRC-32C, and each compression by its number in Kafka."""

    crc32c: Callable[[bytes], int]
    decompress: Mapping[int, Callable[[bytes], bytes]]


class RawRecord(NamedTuple):
    """One record, with the attributes that aiokafka's have. Stray bytes of names are surrogate escapes."""

    offset: int
    timestamp: int | None
    timestamp_type: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class Batches:
    """The batches in the bytes of one fetched partition; the last one may be cut off, and is left out then."""

    def __init__(self, fetched: bytes, *, codecs: Codecs) -> None:
        self._fetched = fetched
        self._codecs = codecs
        self._at = 0

    def has_next(self) -> bool:
        """Whether another whole batch follows."""
        return self._end() <= len(self._fetched)

    def next_batch(self) -> Batch:
        """Return the next batch; only after `has_next`.

        Raises:
            ValueError: It is of an older format, which has no headers.
        """
        start, self._at = self._at, self._end()
        return Batch(self._fetched[start : self._at], codecs=self._codecs)

    def _end(self) -> int:
        if len(self._fetched) < self._at + _HEADER.size:
            return len(self._fetched) + 1
        (length,) = struct.unpack_from(">i", self._fetched, self._at + _LENGTH_FROM - 4)
        return self._at + _LENGTH_FROM + int(length)


class Batch:
    """One batch, an iterator of its records.

    Raises:
        ValueError: It is of an older format.
    """

    def __init__(self, raw: bytes, *, codecs: Codecs) -> None:
        self._raw = raw
        self._codecs = codecs
        fields: tuple[int, ...] = _HEADER.unpack_from(raw)
        self.base_offset, _, _, magic, self._crc, self._attributes, last, *times, producer, _, _, self._count = fields
        self._first_ms, self._latest_ms = times
        self.producer_id = producer
        if magic != _FORMAT:
            raise ValueError(f"The record batch at offset {self.base_offset} has format {magic}; {_FORMAT} is read.")
        self.next_offset = self.base_offset + last + 1
        self._records = self._read()

    @property
    def is_transactional(self) -> bool:
        """Whether it belongs to a transaction."""
        return bool(self._attributes & _TRANSACTIONAL)

    @property
    def is_control_batch(self) -> bool:
        """Whether it holds a mark of the broker's rather than records."""
        return bool(self._attributes & _CONTROL)

    def validate_crc(self) -> bool:
        """Whether the bytes are those that were sent."""
        return self._codecs.crc32c(self._raw[_CHECKED_FROM:]) == self._crc

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RawRecord:
        return next(self._records)

    def _read(self) -> Iterator[RawRecord]:
        packed, codec = self._raw[_HEADER.size :], self._attributes & _CODEC
        cursor = _Cursor(self._codecs.decompress[codec](packed) if codec else packed)
        for _ in range(self._count):
            record = _Cursor(cursor.sized() or b"")
            yield self._record(record)
            record.ended()
        cursor.ended()

    def _record(self, cursor: _Cursor) -> RawRecord:
        cursor.take(1)  # attributes, of which there are none
        timestamp = self._first_ms + cursor.varint()
        if self._attributes & _LOG_APPEND_TIME:
            timestamp = self._latest_ms
        offset = self.base_offset + cursor.varint()
        key, value = cursor.sized(), cursor.sized()
        headers = []
        for _ in range(cursor.varint()):
            name = cursor.sized()
            if name is None:
                raise ValueError(f"A header of the record at offset {offset} has no name.")
            headers.append((name.decode("utf-8", "surrogateescape"), cursor.sized()))
        timed = timestamp != _NO_TIMESTAMP
        kind = int(bool(self._attributes & _LOG_APPEND_TIME))
        return RawRecord(offset, timestamp if timed else None, kind if timed else None, key, value, headers)


def readable(records: Iterator[Any], most: int) -> list[Any]:
    """Return what comes before the first that cannot be read, at most `most`; raises its error if nothing does."""
    found: list[Any] = []
    while len(found) < most:
        try:
            found.append(next(records))
        except StopIteration:
            break
        except Exception:
            if not found:
                raise
            break
    return found


class _Cursor:
    """Takes bytes one piece after the other, and never more than there are."""

    def __init__(self, held: bytes) -> None:
        self._held = held
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._held):
            raise ValueError(f"A record ends {end - len(self._held)} bytes early.")
        taken, self._at = self._held[self._at : end], end
        return taken

    def varint(self) -> int:
        number = shift = 0
        while shift <= _VARINT_BITS_MAX:
            (byte,) = self.take(1)
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                # Zigzag: the sign is in the lowest bit.
                return (number >> 1) ^ -(number & 1)
            shift += 7
        raise ValueError("A number in a record has more than 64 bits.")

    def sized(self) -> bytes | None:
        size = self.varint()
        return self.take(size) if size >= 0 else None

    def ended(self) -> None:
        if self._at != len(self._held):
            raise ValueError(f"{len(self._held) - self._at} bytes are left over behind a record.")
