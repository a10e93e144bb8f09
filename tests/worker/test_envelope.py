"""What a client sends: `perdure.worker.envelope`. The rest is shown with servers in test_client.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.schemas.entries import Failure, Success
from perdure.schemas.errors import TerminalError, UsageError
from perdure.schemas.ids import id_of_idempotency_key, new_invocation_id
from perdure.schemas.records import decode_invocation
from perdure.worker.clock import system_random
from perdure.worker.envelope import NOTHING, Options, Target, envelope_of, target_of, untyped_result_of
from perdure.worker.serde import BYTES, JSON

FRESH = new_invocation_id("Shop", None, system_random())
SHOP = target_of("Shop/add")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_every_json_value_arrives_as_it_was(value: object) -> None:
    """What the handler's serde reads from the envelope is what was sent."""
    _, envelope = envelope_of(SHOP, value, Options(), fresh_id=FRESH)
    assert JSON.deserialize(decode_invocation(envelope).payload) == value


def test_no_argument_is_no_argument() -> None:
    """Nothing is told from null."""
    assert decode_invocation(envelope_of(SHOP, NOTHING, Options(), fresh_id=FRESH)[1]).payload == b""
    assert decode_invocation(envelope_of(SHOP, None, Options(), fresh_id=FRESH)[1]).payload == b"null"
    assert repr(NOTHING) == "NOTHING"


def test_the_id_is_known_before_admission() -> None:
    """A fresh one, the sender's, or the one that follows from the idempotency key."""
    other = new_invocation_id("Shop", None, system_random())
    assert envelope_of(SHOP, NOTHING, Options(), fresh_id=FRESH)[0] == FRESH
    assert envelope_of(SHOP, NOTHING, Options(id=other), fresh_id=FRESH)[0] == other
    derived = id_of_idempotency_key("Shop", "add", "k", idempotency_key="once")
    assert envelope_of(SHOP, NOTHING, Options(key="k", idempotency_key="once"), fresh_id=FRESH)[0] == derived


def test_bytes_that_are_not_json_travel_as_base64() -> None:
    """The envelope is JSON, and the handler gets the bytes."""
    target = Target("Shop", "add", BYTES, BYTES)
    for raw in (b"\xff", b"", b"{"):
        assert decode_invocation(envelope_of(target, raw, Options(), fresh_id=FRESH)[1]).payload == raw
    assert decode_invocation(envelope_of(target, b"[1]", Options(), fresh_id=FRESH)[1]).payload == b"[1]"


def test_a_wrong_id_is_refused() -> None:
    """An id that is none is the sender's mistake."""
    with pytest.raises(UsageError, match="inv_"):
        envelope_of(SHOP, NOTHING, Options(id="mine"), fresh_id=FRESH)


def test_outcomes_become_values_or_errors() -> None:
    """JSON's value, bytes where it is not JSON, nothing where there is none, or the failure."""
    assert untyped_result_of(Success(b'{"a":1}')) == {"a": 1}
    assert untyped_result_of(Success(b"\xff")) == b"\xff"
    assert untyped_result_of(Success(b"")) is None
    with pytest.raises(TerminalError, match="no"):
        untyped_result_of(Failure(400, "no"))
