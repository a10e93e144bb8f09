"""Envelopes: what the quick look accepts is what the full check makes of it, field by field and error by error."""

from __future__ import annotations

import json
from typing import Any

import pydantic_core
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from perdure.schemas.errors import DecodeError
from perdure.schemas.limits import KEY_LENGTH_MAX, NAME_LENGTH_MAX
from perdure.schemas.records import Envelope, checked_envelope, decode_invocation, plain_envelope

ids = st.from_regex(r"inv_[0-4][0-9a-f]{26}\n?", fullmatch=True)
at_bounds = st.sampled_from(["", "x", "é", "\n"]).flatmap(
    lambda letter: st.sampled_from(
        [0, 1, NAME_LENGTH_MAX, NAME_LENGTH_MAX + 1, KEY_LENGTH_MAX, KEY_LENGTH_MAX + 1]
    ).map(lambda times: letter * times)
)
channels = st.from_regex(r"[!-~]{1,40}", fullmatch=True) | st.text(st.characters(codec="utf-8"), max_size=5)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=5)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=5
)

envelopes = st.fixed_dictionaries(
    {},
    optional={
        "handler": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9) | at_bounds | scalars,
        "argument": values,
        "id": ids | st.none() | scalars,
        "idempotency_key": at_bounds | st.none() | scalars,
        "waiter": channels | at_bounds | st.none() | scalars,
        "key": at_bounds | scalars,
        "reply_to": st.from_regex(r"[A-Za-z.]{1,9}", fullmatch=True) | scalars,
        "headers": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2) | values,
        "not_before": st.datetimes().map(str) | scalars,
        "more": scalars,
    },
)

plain_envelopes = st.fixed_dictionaries(
    {"handler": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)},
    optional={"argument": values, "id": ids | st.none(), "idempotency_key": st.none() | at_bounds, "waiter": channels},
)


def checked(fields: dict[str, Any]) -> Envelope | str:
    """What the full check makes of it: the envelope or the error's text."""
    try:
        return checked_envelope(fields)
    except DecodeError as error:
        return str(error)


@given(envelopes | plain_envelopes)
def test_the_quick_look_and_the_full_check_agree(fields: dict[str, Any]) -> None:
    """Where the quick look says something at all, the full check says the same."""
    try:
        plain: Envelope | str | None = plain_envelope(fields)
    except DecodeError as error:
        plain = str(error)
    target(float(isinstance(plain, Envelope)))
    assert plain is None or plain == checked(fields)


@given(envelopes | plain_envelopes)
def test_reading_is_the_full_check(fields: dict[str, Any]) -> None:
    """From bytes, too: the same envelope, or an error with the same text."""
    value = json.dumps(fields).encode()
    try:
        expected = checked(pydantic_core.from_json(value, allow_inf_nan=False))
    except ValueError as error:
        expected = f"The value is not JSON: {error}."
    try:
        found: Envelope | str = decode_invocation(value)
    except DecodeError as error:
        found = str(error)
    assert found == expected


@given(st.binary(max_size=30))
def test_random_bytes_are_refused_or_read(value: bytes) -> None:
    """Nothing else comes out of any bytes."""
    try:
        found: Envelope | str = decode_invocation(value)
    except DecodeError as error:
        found = str(error)
    assert isinstance(found, Envelope) or found.startswith("The value is ")


@pytest.mark.parametrize(
    "fields",
    [
        {"handler": "h"},
        {"handler": "h", "id": "inv_" + "0" * 27, "waiter": "ns:outcome:client-1", "argument": None},
        {"handler": "é", "idempotency_key": "☃" * KEY_LENGTH_MAX},
    ],
)
def test_what_clients_send_is_told_by_a_quick_look(fields: dict[str, Any]) -> None:
    """Otherwise it would be of no use."""
    assert plain_envelope(fields) == checked_envelope(fields)
