"""Every entry comes back as it was written, whatever its texts and payloads hold; what is damaged is never misread."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from perdure.schemas import codec, payloads
from perdure.schemas.codec import decode, encode
from perdure.schemas.commands import (
    LOOKUPS,
    Attach,
    Awakeable,
    Call,
    CancelOther,
    ClearAll,
    ClearState,
    Lookup,
    PromiseWait,
    Resolve,
    Send,
    SetState,
    SignalWait,
)
from perdure.schemas.entries import (
    AttemptFailed,
    AttemptStarted,
    CancelChild,
    Cancelled,
    Completion,
    Entry,
    Failure,
    Input,
    Output,
    PauseAsked,
    Paused,
    Resumed,
    Run,
    Signalled,
    Sleep,
    StepFailed,
    Success,
    Unknown,
)
from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import InvocationId

# Texts that look like the codec's own marks come often enough to matter. Lone surrogates are not JSON: never written.
MARKS = [',"value":', '","value":1', ',"base64":"', ',"failure":{', "value", "failure", "base64", '"', "\\", "}", "{"]
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
texts = st.lists(plain | st.sampled_from(MARKS), max_size=4).map("".join)
numbers = st.integers(0, 2**53)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
own_names = st.sampled_from(["value", "failure", "base64", "metadata"])
payload_bytes = values.map(orjson.dumps) | st.binary(max_size=40) | texts.map(str.encode) | st.just(b" [1] \n")
outcomes = st.builds(Success, payload_bytes) | st.builds(
    Failure, st.integers(100, 999), texts, st.dictionaries(texts | own_names, texts, max_size=4)
)
headers = st.lists(st.tuples(texts, st.none() | st.binary(max_size=20) | texts.map(str.encode)), max_size=4).map(tuple)
ids = st.integers(0, 2**96 - 1).map(lambda number: InvocationId(f"inv_000{number:024x}"))
keys = st.none() | texts.filter(bool)
commands: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Call, numbers, numbers, texts, texts, keys, ids, texts, headers, payload_bytes),
    st.builds(Send, numbers, numbers, texts, texts, keys, ids, texts, headers, numbers, payload_bytes),
    st.builds(Lookup, st.sampled_from(LOOKUPS), numbers, texts, numbers, st.booleans(), outcomes),
    st.builds(Attach, numbers, numbers, ids),
    st.builds(Awakeable, numbers, numbers),
    st.builds(SignalWait, numbers, numbers, texts),
    st.builds(PromiseWait, numbers, numbers, texts),
    st.builds(Resolve, numbers, numbers, ids, st.integers(-1, 2**53), texts, outcomes),
    st.builds(CancelOther, numbers, numbers, ids),
    st.builds(SetState, numbers, texts, payload_bytes),
    st.builds(ClearState, numbers, texts),
    st.builds(ClearAll, numbers),
)
entries: st.SearchStrategy[Entry] = st.one_of(
    commands,
    st.builds(Signalled, texts, numbers, outcomes),
    st.builds(Cancelled, numbers),
    st.builds(CancelChild, numbers, numbers, ids),
    st.builds(PauseAsked, numbers),
    st.builds(Resumed, numbers),
    st.builds(Input, numbers, texts, headers, payload_bytes),
    st.builds(Run, numbers, texts, numbers, numbers, outcomes),
    st.builds(Sleep, numbers, texts, numbers, numbers),
    st.builds(Completion, numbers, numbers, outcomes),
    st.builds(StepFailed, numbers, texts, numbers, numbers, numbers, numbers, texts),
    st.builds(AttemptStarted, numbers, texts),
    st.builds(AttemptFailed, numbers, texts, texts, texts, st.integers(-1, 2**53)),
    st.builds(Paused, numbers, texts),
    st.builds(Output, numbers, outcomes),
    st.builds(Unknown, st.sampled_from(["hologram", "levitate"]), st.binary(max_size=40)),
)


@given(entries)
def test_an_entry_comes_back_as_it_was_written(entry: Entry) -> None:
    """Byte for byte in its payload; and what was read is written the same again."""
    kind, body = encode(entry)
    read = decode(kind, body)
    assert read == entry
    assert type(read) is type(entry)
    assert encode(read) == (kind, body)


@given(entries)
def test_a_body_is_one_json_object(entry: Entry) -> None:
    """Any JSON tool can read a journal, apart from what newer versions put there."""
    if not isinstance(entry, Unknown):
        assert isinstance(orjson.loads(encode(entry)[1]), dict)


@given(entries, st.data())
def test_a_body_that_was_cut_off_is_noticed(entry: Entry, data: st.DataObject) -> None:
    """A prefix is refused; at worst its payload is torn, which its serde refuses, and never another JSON value."""
    kind, body = encode(entry)
    if isinstance(entry, Unknown):
        return
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    try:
        read = decode(kind, cut)
    except DecodeError:
        return
    if isinstance(read, Input | Call | Send | SetState):
        outcome = read.value
    else:
        outcome = getattr(read, "outcome", Success(b"")).value
    assert not codec.is_json(outcome)


@given(st.sampled_from(sorted(codec._DECODERS)), st.binary(max_size=60) | values.map(orjson.dumps))
def test_nothing_but_the_one_error_comes_of_bad_bytes(kind: bytes, body: bytes) -> None:
    """Whoever reads a journal has one exception to think of."""
    with contextlib.suppress(DecodeError):
        decode(kind, body)


def test_a_codec_that_cuts_at_any_mark_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The property has teeth: cutting inside a failure's metadata, as this codec once did, breaks it."""
    monkeypatch.setattr(payloads, "_FAILURE", b"\x00")

    @settings(max_examples=2_000, database=None, phases=[Phase.generate], deadline=None)
    @given(entries)
    def law(entry: Entry) -> None:
        assert decode(*encode(entry)) == entry

    with pytest.raises((AssertionError, DecodeError)):
        law()
