"""What records ask for: `perdure.worker.readings`."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import id_of_subscribed_record, place_of_object, slot_of
from perdure.worker.admissions import SERVICE_QUEUE_MAX, admission_of
from perdure.worker.application import Application, app
from perdure.worker.broker import Partition, Record
from perdure.worker.context import Context
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.readings import DEAD_LETTER_REPLY, SubscriptionReading
from perdure.worker.sealing import Sealer
from perdure.worker.service import Service
from perdure.worker.subscriptions import Subscription
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

RECORD = Record(Partition("orders", 3), 17, 1_700_000_000_000, b"ada", b"{}", (("h", b"\xff"), ("h", None)))


class Reversing(PayloadCodec):
    """Writes bytes backwards, and not those that it does not like."""

    def encode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec`."""
        if data == b"bad":
            raise ValueError("not these")
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec`."""
        return data[::-1]


def application(codec: PayloadCodec | None = None) -> Application:
    """A handler of each kind."""
    shop, basket, signup = Service("Shop"), VirtualObject("Basket"), Workflow("Signup")

    @shop.handler()
    async def order(ctx: Context, argument: Any) -> None:
        """Of a service."""

    @basket.handler()
    async def add(ctx: Any, argument: Any) -> None:
        """Of an object."""

    @signup.main()
    async def run(ctx: Any, argument: Any) -> None:
        """Of a workflow."""

    return app([shop, basket, signup], payload_codec=codec)


def reading(handler: str, codec: PayloadCodec | None = None, **options: Any) -> SubscriptionReading:
    """Of one subscription to `orders`."""
    subscription = Subscription(topic="orders", handler=handler, **options)
    return SubscriptionReading(application(codec), [subscription], group="g", record_bytes_max=100, now_ms=lambda: 5)


def test_a_record_becomes_an_invocation_as_it_is() -> None:
    """Value, headers and place; the id is that of the group and the place."""
    wanted = reading("Shop/order")(RECORD)
    assert (wanted.service, wanted.handler, wanted.key) == ("Shop", "order", None)
    assert (wanted.value, wanted.headers) == (b"{}", RECORD.headers)
    assert wanted.source == "orders/3/17/1700000000000/YWRh"
    assert (wanted.queue, wanted.reply_to) == ("", "")
    place = {"group": "g", "topic": "orders", "partition": 3, "offset": 17, "timestamp_ms": 1_700_000_000_000}
    assert wanted.invocation_id == id_of_subscribed_record("Shop", None, **place)  # type: ignore[arg-type] # as given


def test_a_null_value_is_no_argument() -> None:
    """Tombstones of compacted topics are records, too."""
    assert reading("Shop/order")(RECORD._replace(value=None)).value == b""


@pytest.mark.parametrize(
    ("ordering", "key", "queue"),
    [
        ("none", b"ada", ""),
        ("partition", b"ada", "g/orders/3"),
        ("partition", None, "g/orders/3"),
        ("key", b"ada", "g/orders/key:ada"),
        ("key", b"", "g/orders/key:"),
        ("key", None, ""),
        ("key", b"\xff", "g/orders/hash:a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89"),
        ("key", b"x" * 80 + b"y" * 15, "g/orders/key:" + "x" * 80 + "y" * 15),
    ],
)
def test_the_order_of_a_service_is_a_queue(ordering: Any, key: bytes | None, queue: str) -> None:
    """One for each partition, or for each key; the names outlive deployments: never edit them."""
    read = reading("Shop/order", ordering=ordering)
    wanted = read(RECORD._replace(key=key))
    assert wanted.queue == queue
    admission = admission_of(application(), wanted, token="t", worker="w")
    assert admission.mode == ("exclusive" if queue else "")
    assert admission.key == (queue or None)
    if queue:
        assert admission.queue_max == SERVICE_QUEUE_MAX
        assert slot_of(admission.invocation_id, 64) == place_of_object("Shop", queue) % 64


def test_an_object_has_its_records_key() -> None:
    """And the mode of its handler; a workflow's run has the id of its key."""
    added = admission_of(application(), reading("Basket/add", ordering="key")(RECORD), token="t", worker="w")
    assert (added.key, added.mode) == ("ada", "exclusive")
    run = admission_of(application(), reading("Signup/run")(RECORD), token="t", worker="w")
    again = admission_of(application(), reading("Signup/run")(RECORD._replace(offset=18)), token="t", worker="w")
    assert (run.key, run.mode) == ("ada", "main")
    assert run.invocation_id == again.invocation_id


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"\xed\xa0\x80"])
@pytest.mark.parametrize("handler", ["Basket/add", "Signup/run"])
def test_a_key_that_is_none_is_refused(handler: str, key: bytes | None) -> None:
    """Where there has to be one."""
    with pytest.raises(DecodeError, match="key"):
        reading(handler)(RECORD._replace(key=key))


def test_bounds_hold_for_subscribed_records() -> None:
    """Of the value with its key, which is kept with the invocation; and of headers."""
    read = reading("Shop/order")
    read(RECORD._replace(key=b"k" * 50, value=b"v" * 50))
    for record, said in (
        (RECORD._replace(key=b"k" * 51, value=b"v" * 50), "101 bytes"),
        (RECORD._replace(headers=(("h", b""),) * 101), "101 headers"),
        (RECORD._replace(headers=(("\udcff", b""),)), "not UTF-8"),
        (RECORD._replace(partition=Partition("other", 0)), "No subscription of this worker"),
    ):
        with pytest.raises(DecodeError, match=said):
            read(record)


def test_a_failure_may_ask_for_a_dead_letter() -> None:
    """In place of a reply."""
    assert reading("Shop/order", on_terminal_failure="dead-letter")(RECORD).reply_to == DEAD_LETTER_REPLY


def test_values_go_through_the_codec() -> None:
    """What clients send has been through it, what others produce has not; no value stays none."""
    read, sealer = reading("Shop/order", Reversing()), Sealer(Reversing())
    kept = read(RECORD._replace(value=b"abc")).value
    assert (kept, sealer.open(kept)) == (sealer.seal(b"abc"), b"abc")
    assert read(RECORD._replace(value=None)).value == b""
    with pytest.raises(DecodeError, match="not these"):
        read(RECORD._replace(value=b"bad"))
