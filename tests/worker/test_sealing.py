"""A payload codec at work: `perdure.worker.sealing`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import SerdeError
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.sealing import Sealer


class Reverse(PayloadCodec):
    """Turns bytes around."""

    def __init__(self, *, failures: bool = True) -> None:
        self.applies_to_failures = failures

    def encode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec.encode`."""
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec.decode`."""
        return data[::-1]


outcomes = st.builds(Success, st.binary(max_size=40)) | st.builds(
    Failure,
    st.integers(100, 999),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.dictionaries(st.text("abc"), st.text("abc"), max_size=3),
)


@given(outcomes, st.booleans())
def test_what_is_sealed_is_opened(outcome: Outcome, failures: bool) -> None:
    """Results and failures come back whole; failures are sealed where the codec says so."""
    sealer = Sealer(Reverse(failures=failures))
    sealed = sealer.seal_outcome(outcome)
    assert sealer.open_outcome(sealed) == outcome
    assert (sealed == outcome) == (isinstance(outcome, Failure) and not failures)


@given(outcomes)
def test_what_is_not_sealed_is_left_alone(outcome: Outcome) -> None:
    """Values from before there was a codec, and by hand, are read as they are."""
    assert Sealer(Reverse()).open_outcome(outcome) == outcome


class Broken(Reverse):
    """Fails, and returns what is no bytes."""

    def encode(self, data: bytes, /) -> bytes:
        """Return text."""
        return "text"  # type: ignore[return-value]  # what this is about

    def decode(self, data: bytes, /) -> bytes:
        """Fail."""
        raise ValueError("wrong key")


def test_a_codec_that_fails_is_named() -> None:
    """Its error is a SerdeError, which fails the attempt and not the worker."""
    sealer = Sealer(Broken())
    with pytest.raises(SerdeError, match="encode returned str"):
        sealer.seal(b"1")
    with pytest.raises(SerdeError, match="wrong key"):
        sealer.open(Sealer(Reverse()).seal(b"1"))
    with pytest.raises(SerdeError, match="cannot be opened"):
        Sealer(Reverse()).open_outcome(Failure(500, "perdure-sealed:%%%"))
