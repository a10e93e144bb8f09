"""Where a record stood, as it is kept and read again: `perdure.worker.record_source`."""

from __future__ import annotations

import pytest

from perdure.worker.broker import Partition, Record
from perdure.worker.record_source import RecordSource, read_source, source_of

RECORD = Record(Partition("a.b-c", 3), 17, 1_700_000_000_000, b"\xff/key", b"1", ())


@pytest.mark.parametrize("key", [None, b"", b"ada", b"\xff/?=>", b"x" * 1_000])
def test_what_is_kept_can_be_read(key: bytes | None) -> None:
    """Any key, and none; it is kept where that is asked for."""
    record = RECORD._replace(key=key)
    assert read_source(source_of(record, with_key=True)) == RecordSource("a.b-c", 3, 17, 1_700_000_000_000, key)
    assert read_source(source_of(record)) == RecordSource("a.b-c", 3, 17, 1_700_000_000_000)


def test_what_is_kept_never_changes() -> None:
    """Invocations outlive a deployment: never edit these values."""
    assert source_of(RECORD) == "a.b-c/3/17/1700000000000"
    assert source_of(RECORD, with_key=True) == "a.b-c/3/17/1700000000000/_y9rZXk="


def test_earlier_versions_kept_no_timestamp() -> None:
    """Their invocations may still run."""
    assert read_source("perdure.Greeter/0/5") == RecordSource("perdure.Greeter", 0, 5, -1)


@pytest.mark.parametrize(
    "text", ["", "orders", "inv_1d1e1ed4fae22c9f8d2cacb18e3/4", "a/b/c", "a/1/2/3/4/5", "a/1/2/3/!x"]
)
def test_what_is_no_place_of_a_record(text: str) -> None:
    """What another invocation called was made of no record."""
    assert read_source(text) is None


def test_a_place_for_people() -> None:
    """As logs write it."""
    assert RecordSource("orders", 1, 2, 3).place == "orders/1/2"
