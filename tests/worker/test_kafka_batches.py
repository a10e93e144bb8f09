"""Reading record batches where aiokafka gives up: `perdure.worker.kafka_batches`."""

from __future__ import annotations

import gzip
import itertools
import struct

import pytest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from perdure.worker.broker import Headers, Outgoing
from perdure.worker.kafka_batches import Batches, Codecs, RawRecord, readable

from .kafka_clients import NOT_UTF8, record_batch

CODECS = Codecs(calc_crc32c, {1: gzip.decompress})
NONE_OR_BYTES = st.none() | st.binary(max_size=200)
HEADERS = st.lists(st.tuples(st.text(max_size=5), NONE_OR_BYTES), max_size=3).map(tuple)
RECORDS = st.lists(st.builds(Outgoing, st.just("t"), NONE_OR_BYTES, NONE_OR_BYTES, HEADERS), min_size=1, max_size=5)


def read(fetched: bytes) -> list[RawRecord]:
    """All records of all batches."""
    batches = Batches(fetched, codecs=CODECS)
    found: list[RawRecord] = []
    while batches.has_next():
        batch = batches.next_batch()
        assert batch.validate_crc()
        found += batch
    return found


def sealed(raw: bytes) -> bytes:
    """The batch with the checksum of what it holds now."""
    return raw[:17] + struct.pack(">I", calc_crc32c(raw[21:])) + raw[21:]


def one(headers: Headers = ()) -> bytes:
    """A batch of one record."""
    return record_batch([Outgoing("t", b"key", b"value", headers)])


@given(st.lists(st.tuples(RECORDS, st.sampled_from([0, 1])), min_size=1, max_size=3), st.binary(max_size=80))
def test_it_reads_what_aiokafka_reads(sent: list[tuple[list[Outgoing], int]], cut_off: bytes) -> None:
    """Every field of every record, however it is packed, up to a batch that is not whole."""
    fetched = b"".join(record_batch(records, codec=codec) for records, codec in sent)
    expected = []
    theirs = MemoryRecords(fetched)
    while theirs.has_next():
        batch = theirs.next_batch()
        expected += [RawRecord(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers)) for r in batch]
    assert read(fetched) == expected
    assert read(fetched + one()[: min(len(cut_off), 60)]) == expected


def test_the_head_of_a_batch_is_understood() -> None:
    """What aiokafka decides by: transactions, marks of the broker, where the next batch begins."""
    plain = one()
    for attributes in (0x10, 0x30, 0x08):
        raw = sealed(plain[:21] + struct.pack(">h", attributes) + plain[23:])
        ours, theirs = Batches(raw, codecs=CODECS).next_batch(), MemoryRecords(raw).next_batch()
        for name in ("base_offset", "next_offset", "producer_id", "is_transactional", "is_control_batch"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert [(r.timestamp, r.timestamp_type) for r in ours] == [(r.timestamp, r.timestamp_type) for r in theirs]


def test_names_of_headers_may_be_any_bytes() -> None:
    """Those that are not UTF-8 come as surrogate escapes."""
    (record,) = read(one(((NOT_UTF8, b"1"), ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", None))))
    assert [(name.encode("utf-8", "surrogateescape"), value) for name, value in record.headers] == [
        (b"caf\xe9", b"1"),
        (b"caf\xc3\xa9", None),
    ]


@pytest.mark.parametrize("size", [1, 5, 9, 15])
def test_what_is_cut_short_is_refused(size: int) -> None:
    """A batch whose records end early is an error, never another record."""
    raw = one((("name", b"1"),))
    short = raw[:-size]
    lying = sealed(short[:8] + struct.pack(">i", len(short) - 12) + short[12:])
    with pytest.raises(ValueError, match="early"):
        read(lying)


def test_what_is_left_over_is_refused() -> None:
    """Bytes behind the last record are an error, too."""
    raw = one() + b"\0"
    with pytest.raises(ValueError, match="1 bytes are left over"):
        read(sealed(raw[:8] + struct.pack(">i", len(raw) - 12) + raw[12:]))


def test_numbers_without_an_end_are_refused() -> None:
    """A number has 64 bits at most."""
    raw = one()[:61] + b"\xff" * 20
    with pytest.raises(ValueError, match="64 bits"):
        read(sealed(raw[:8] + struct.pack(">i", len(raw) - 12) + raw[12:]))


def test_a_header_without_a_name_is_refused() -> None:
    """Null is no name."""
    raw = bytearray(one((("n", b""),)))
    # The last bytes: the name's length 1, the name, the value's length 0.
    assert raw[-3:] == b"\x02n\x00"
    raw[-3:] = b"\x01\x02n"
    with pytest.raises(ValueError, match="no name"):
        read(sealed(bytes(raw)))


def test_older_formats_are_refused() -> None:
    """They have no headers, so that aiokafka reads them."""
    raw = one()
    batches = Batches(raw[:16] + b"\x01" + raw[17:], codecs=CODECS)
    assert batches.has_next()
    with pytest.raises(ValueError, match="format 1"):
        batches.next_batch()


def test_a_changed_byte_is_noticed() -> None:
    """By the checksum."""
    raw = one()
    assert not Batches(raw[:-1] + b"\x7f", codecs=CODECS).next_batch().validate_crc()


def test_what_comes_before_the_unreadable_is_returned() -> None:
    """An error is raised where nothing can be returned instead of it."""

    def numbers(end: int) -> itertools.chain[int]:
        return itertools.chain(range(end), (1 // 0 for _ in range(1)))

    assert readable(numbers(3), 5) == [0, 1, 2]
    assert readable(numbers(3), 2) == [0, 1]
    assert readable(iter(range(1)), 5) == [0]
    with pytest.raises(ZeroDivisionError):
        readable(numbers(0), 5)
