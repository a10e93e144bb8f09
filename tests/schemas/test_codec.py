"""Entries as they stand in Redis: golden bodies, payloads of any kind, and what is damaged."""

from __future__ import annotations

import pytest

from perdure.schemas.codec import decode, encode, is_json
from perdure.schemas.entries import (
    AttemptFailed,
    AttemptStarted,
    Completion,
    Entry,
    Failure,
    Input,
    Output,
    Paused,
    Run,
    Sleep,
    StepFailed,
    Success,
    Unknown,
)
from perdure.schemas.errors import DecodeError

# What stands in journals of released versions: these bodies must be written and read for ever.
GOLDEN: list[tuple[Entry, bytes, bytes]] = [
    (
        Input(1, "w", (("a", b"x"), ("b", b"\xff"), ("c", None)), b'{"n": 1}'),
        b"input",
        b'{"at":1,"worker":"w","headers":[["a","x"],["b","/w==","base64"],["c"]],"value":{"n": 1}}',
    ),
    (Input(1, "w", (), b""), b"input", b'{"at":1,"worker":"w","headers":[],"base64":""}'),
    (
        Run(2, "charge", 3, 4, Success(b"null")),
        b"run",
        b'{"index":2,"name":"charge","at":3,"ms":4,"value":null}',
    ),
    (
        Run(2, "charge", 3, 4, Failure(409, "no", {"why": "x"})),
        b"run",
        b'{"index":2,"name":"charge","at":3,"ms":4,"failure":{"code":409,"message":"no","metadata":{"why":"x"}}}',
    ),
    (Sleep(5, "nap", 6, 7), b"sleep", b'{"index":5,"name":"nap","at":6,"ms":7}'),
    (Completion(5, 8, Success(b"null")), b"completion", b'{"index":5,"at":8,"value":null}'),
    (
        StepFailed(1, "s", 2, 3, 4, 5, "boom"),
        b"step_failed",
        b'{"index":1,"name":"s","at":2,"failures":3,"elapsed_ms":4,"retry_ms":5,"error":"boom"}',
    ),
    (AttemptStarted(9, "w"), b"attempt", b'{"at":9,"worker":"w"}'),
    (
        AttemptFailed(1, "boom", "stack", "run", -1),
        b"attempt_failed",
        b'{"at":1,"error":"boom","stack":"stack","command":"run","retry_ms":-1}',
    ),
    (Paused(1, "diverged"), b"paused", b'{"at":1,"reason":"diverged"}'),
    (Output(1, Success(b"[1]")), b"output", b'{"at":1,"value":[1]}'),
    (Output(1, Success(b"\xff")), b"output", b'{"at":1,"base64":"/w=="}'),
]


@pytest.mark.parametrize(("entry", "kind", "body"), GOLDEN, ids=lambda value: str(value)[:30])
def test_the_form_of_each_entry_is_fixed(entry: Entry, kind: bytes, body: bytes) -> None:
    """Written and read as in every version: a worker reads what older ones wrote."""
    assert encode(entry) == (kind, body)
    assert decode(kind, body) == entry


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b" 1 ",
        b"1\n",
        b'"a"',
        b"{}",
        b'{"a":1,"value":2}',
        b'{"a":1,"failure":2}',
        b'x","value":1',
        b"NaN",
        b"1e400",
        b"12345678901234567890123456789",
        b'"\\ud800"',
        b"\xff\xfe",
        b"}",
        b"1}",
        b'{"unfinished":',
        b"[" * 5000 + b"]" * 5000,
    ],
)
def test_a_payload_comes_back_byte_for_byte(payload: bytes) -> None:
    """JSON stands as it is, other bytes marked base64; neither is changed, whatever they look like."""
    for entry in (Run(0, "a", 1, 1, Success(payload)), Input(1, "w", (), payload), Output(1, Success(payload))):
        assert decode(*encode(entry)) == entry


@pytest.mark.parametrize("name", ['","value":1', '"', "\\", "\n\x00\x1f", "naïve ☃", ',"failure":{', "base64"])
def test_a_name_cannot_be_taken_for_a_payload(name: str) -> None:
    """Quotes in names are escaped, so that the payload is always found where it is."""
    entry = Run(0, name, 1, 1, Success(b'{"x":1,"value":2}'))
    assert decode(*encode(entry)) == entry
    assert decode(*encode(entry._replace(outcome=Failure(1, name, {name: name})))) == entry._replace(
        outcome=Failure(1, name, {name: name})
    )


def test_the_metadata_of_a_failure_may_have_any_names() -> None:
    """Also those that the entry itself uses."""
    failure = Failure(409, "no", {"a": "1", "value": "2", "failure": "3", "base64": "4"})
    for entry in (Run(0, "a", 1, 1, failure), Output(1, failure), Completion(0, 1, failure)):
        assert decode(*encode(entry)) == entry


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"run", b""),
        (b"run", b"null"),
        (b"run", b"[]"),
        (b"run", b"5"),
        (b"run", b"{}"),
        (b"run", b'{"index":0,"name":"a","at":1,"ms":1}'),
        (b"run", b'{"index":0,"name":"a","at":1,"value":1}'),
        (b"run", b'{"index":0,"name":"a","at":1,"ms":1,"value":1'),
        (b"run", b'{"index":0,"name":"a","at":1,"ms":1,"value":12'),
        (b"run", b'{"index":0,"name":"a","at":1,"ms":1,"base64":"?"}'),
        (b"run", b"{'index':0}"),
        (b"run", '{"index":0,"name":"a","at":1,"ms":1,"base64":"é"}'.encode()),
        (b"run", b'{"index":0,"name":"a","at":1,"ms":1,"base64":7}'),
        (b"run", b'{"index":0,"name":"a","at":1,"ms":1,"failure":{}}'),
        (b"run", b'{"index":0,"name":"a","at":1,"ms":1,"failure":"x"}'),
        (b"run", b'{"index":0,"name":"\xff","at":1,"ms":1,"value":1}'),
        (b"input", b'{"at":1,"worker":"w","headers":[[]],"value":1}'),
        (b"input", b'{"at":1,"worker":"w","headers":[["a","?","base64"]],"value":1}'),
        (b"input", '{"at":1,"worker":"w","headers":[["a","é","base64"]],"value":1}'.encode()),
        (b"input", b'{"at":1,"worker":"w","headers":7,"value":1}'),
        (b"input", b'{"at":1,"worker":"w","headers":[["a",7]],"value":1}'),
        (b"sleep", b'{"index":0,"name":"a","at":1}'),
        (b"completion", b'{"index":0,"at":1}'),
        (b"output", b'{"at":1}'),
        (b"paused", b'{"at":1}'),
    ],
)
def test_a_damaged_entry_is_named(kind: bytes, body: bytes) -> None:
    """One error for whatever is wrong with it; the message names the type, the body and the next step."""
    with pytest.raises(DecodeError, match=f"type {kind.decode()} .*perdure journal show"):
        decode(kind, body)


@pytest.mark.parametrize("body", [b"{}", b"not even JSON", b'{"value":1}', b"\xff"])
def test_an_entry_of_a_newer_version_is_kept_as_it_is(body: bytes) -> None:
    """It is shown and written again unchanged, and never guessed at."""
    entry = decode(b"hologram", body)
    assert entry == Unknown("hologram", body)
    assert encode(entry) == (b"hologram", body)


def test_what_is_json() -> None:
    """One value, strictly: what is put into a journal as it stands must not tear it."""
    assert all(is_json(text) for text in (b"1", b" [] ", b'"a"', b"null"))
    assert not any(is_json(text) for text in (b"", b"1 2", b"{", b"NaN", b"'a'", b"\xff", b"1,"))
