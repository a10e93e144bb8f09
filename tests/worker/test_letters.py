"""Taking dead letters apart: `perdure.worker.letters`. Reading them is shown with the command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.schemas.errors import ConflictError
from perdure.worker.broker import Headers, Outgoing, Partition, Record
from perdure.worker.dead_letters import pointing_letter, unreadable_letter
from perdure.worker.letters import opened, requeued

NAMES = st.text(max_size=5) | st.sampled_from(
    ["perdure-reason", "perdure-topic", "perdure-header-0-name", "perdure-header-1-name", "perdure-x"]
)
STRAY = st.binary(min_size=1, max_size=4).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def fetched(letter: Outgoing) -> Record:
    """The letter as it is read from its topic."""
    return Record(Partition(letter.topic, 0), 17, 99, letter.key, letter.value, letter.headers)


@given(st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=4)), max_size=4).map(tuple))
def test_the_record_comes_out_as_it_was(headers: Headers) -> None:
    """Whatever its headers are called, also like ours."""
    record = Record(Partition("shop", 3), 41, 1_000, b"k", b"v", headers)
    letter = opened(fetched(unreadable_letter(record, "because", topic="ns.dead")))
    assert letter.record == record
    assert (letter.reason, letter.source, letter.partition, letter.offset) == ("because", "shop/3/41", 0, 17)
    assert requeued(letter) == Outgoing("shop", b"k", b"v", headers, partition=3)


@given(st.lists(st.tuples(STRAY, st.just(b"x")), min_size=1, max_size=4).map(tuple))
def test_names_that_are_not_utf8_are_restored_and_not_written(headers: Headers) -> None:
    """They are known again, and refused by name where they could only be refused by the next worker."""
    record = Record(Partition("shop", 3), 41, 1_000, None, None, headers)
    letter = opened(fetched(unreadable_letter(record, "because", topic="ns.dead")))
    assert letter.record.headers == headers
    if any(not name.isprintable() and "\udc80" <= max(name) <= "\udcff" for name, _ in headers):
        with pytest.raises(ConflictError, match="not UTF-8"):
            requeued(letter)


def test_a_letter_without_its_record_is_not_put_back() -> None:
    """It says what is not in it, why, and where the record stands."""
    record = Record(Partition("shop", 3), 41, 1_000, b"k", b"value", (("perdure-reason", b"its own"), ("a", None)))
    letter = opened(fetched(pointing_letter(unreadable_letter(record, "because", topic="ns.dead"))))
    assert (letter.reason, letter.source, letter.record[3:]) == ("because", "shop/3/41", (None, None, ()))
    assert letter.about["left-out"] == "key of 1 bytes, value of 5 bytes, 2 headers"
    with pytest.raises(ConflictError, match="stands at shop/3/41 as long as"):
        requeued(letter)


def test_what_no_worker_wrote_is_not_put_anywhere() -> None:
    """It says nothing of where it was."""
    record = Record(Partition("ns.dead", 0), 5, 7, None, b"v", (("a", b"b"),))
    letter = opened(record)
    assert (letter.record, letter.about) == (record, {})
    with pytest.raises(ConflictError, match="does not say which topic"):
        requeued(letter)
