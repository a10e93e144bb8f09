"""What is written of records whose invocations failed: `perdure.worker.dead_letters`. Of others: `test_intake`."""

from __future__ import annotations

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission
from perdure.schemas.entries import Failure, Headers, Input
from perdure.schemas.ids import InvocationId, new_invocation_id
from perdure.worker.clock import system_random
from perdure.worker.dead_letters import failure_letter
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.sealing import Sealer
from tests.worker.attempt_stage import SkippingClock

HEADERS: Headers = (("twice", b"1"), ("twice", b"2"), ("none", None), ("raw", b"\xff"))
FAILURE = Failure(422, "it is odd\ud800" + "x" * 2_000, {})


class Reversing(PayloadCodec):
    """Writes bytes backwards."""

    def encode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec`."""
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec`."""
        return data[::-1]


async def admitted(store: MemoryStore, *, source: str, value: bytes = b"abc") -> InvocationId:
    """An invocation of a record."""
    invocation_id = new_invocation_id("Shop", None, system_random())
    about = Input(0, "me", HEADERS, value)
    await store.admit(Admission(invocation_id, "Shop", "order", None, about, "t", "me", source=source), lease_ms=10_000)
    return invocation_id


async def test_the_record_as_it_came_with_the_failure() -> None:
    """Key, value and headers; behind them why, where, and what failed."""
    store = MemoryStore(SkippingClock(), slots=4)
    invocation_id = await admitted(store, source="orders/1/2/3/YWRh")
    letter = await failure_letter(store, invocation_id, FAILURE, topic="ns.dead", codec=None)
    assert letter is not None
    assert (letter.topic, letter.key, letter.value) == ("ns.dead", b"ada", b"abc")
    assert letter.headers[:4] == HEADERS
    about = dict(letter.headers[4:])
    assert (about.pop("perdure-reason") or b"").startswith(b"it is odd?xxx")
    assert about == {
        "perdure-topic": b"orders",
        "perdure-partition": b"1",
        "perdure-offset": b"2",
        "perdure-timestamp": b"3",
        "perdure-code": b"422",
        "perdure-invocation": invocation_id.encode(),
        "perdure-handler": b"Shop/order",
    }


async def test_the_value_is_what_was_produced() -> None:
    """Not what the codec made of it; what was kept before there was one is as it was."""
    store = MemoryStore(SkippingClock(), slots=4)
    for value, expected in ((Sealer(Reversing()).seal(b"abc"), b"abc"), (b"abc", b"abc"), (b"", b"")):
        invocation_id = await admitted(store, source="orders/1/2/3", value=value)
        letter = await failure_letter(store, invocation_id, FAILURE, topic="ns.dead", codec=Reversing())
        assert letter is not None
        assert (letter.key, letter.value) == (None, expected)


async def test_what_was_made_of_no_record_is_no_letter() -> None:
    """Nothing is made up."""
    store = MemoryStore(SkippingClock(), slots=4)
    called = await admitted(store, source="inv_1d1e1ed4fae22c9f8d2cacb18e3/4")
    unknown = new_invocation_id("Shop", None, system_random())
    for invocation_id in (called, unknown):
        assert await failure_letter(store, invocation_id, FAILURE, topic="ns.dead", codec=None) is None
