"""Records of subscribed topics, whatever their bytes: an invocation, a dead letter, or a refusal by name.

One handler for each way in which a record's value is read and its key is used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from perdure.schemas.codec import decode, encode
from perdure.schemas.entries import Output
from perdure.schemas.errors import DecodeError, RetryableError, TerminalError
from perdure.schemas.ids import is_invocation_id
from perdure.worker.admissions import admission_of
from perdure.worker.application import Application, app
from perdure.worker.broker import Headers, Outgoing, Partition, Record
from perdure.worker.context import Context
from perdure.worker.dead_letters import unreadable_letter
from perdure.worker.handler import decode_argument
from perdure.worker.letters import opened
from perdure.worker.object_context import ObjectContext, WorkflowContext
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.readings import SubscriptionReading
from perdure.worker.record_source import read_source
from perdure.worker.sealing import Sealer
from perdure.worker.serde import Serde
from perdure.worker.service import Service
from perdure.worker.steps import as_failure
from perdure.worker.subscriptions import Subscription
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

LONG: Final = 40_000
"""Characters of the longest error: five times what a journal keeps of one."""

ABOUT_BYTES_MAX: Final = 10_000
"""What a letter says of a record, beside the record: far below what Kafka keeps over its largest record."""


class UnspeakableError(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


def _protest(buf: bytes) -> None:
    """Raise what code of authors raises, by what the bytes hold."""
    if b"!" in buf:
        raise UnspeakableError
    if b"?" in buf:
        raise ValueError("x" * LONG + "\x1b[2J\ud800")
    if b"#" in buf:
        raise RecursionError
    if b"$" in buf:
        raise TerminalError("\udcff" * LONG, 422, {"\ud800": "\x00"})
    if b"%" in buf:
        raise RetryableError("later")


class Touchy(Serde[str]):
    """A format of somebody's own that takes little, and says so in every way."""

    def serialize(self, obj: str | None) -> bytes:
        """See `Serde`."""
        return (obj or "").encode("latin-1")

    def deserialize(self, buf: bytes) -> str:
        """See `Serde`."""
        _protest(buf)
        return buf.decode("latin-1")


class TouchyCodec(PayloadCodec):
    """Likewise; some things it turns into something that is not bytes."""

    def encode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec`."""
        _protest(data)
        return "text" if b"&" in data else data[::-1]  # type: ignore[return-value] # that is the point

    def decode(self, data: bytes, /) -> bytes:
        """See `PayloadCodec`."""
        return data[::-1]


class Order(BaseModel):
    """What an order is."""

    number: int


SUBSCRIPTIONS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "typed": {"handler": "Desk/typed"},
        "raw": {"handler": "Desk/raw", "ordering": "key"},
        "own": {"handler": "Desk/own", "ordering": "partition"},
        "object": {"handler": "Basket/add"},
        "flow": {"handler": "Flow/run"},
    }
)
"""By topic; each once more behind a payload codec."""


async def nothing(ctx: Context) -> None:
    """What handlers do, where they are not told anything else."""


def application(
    codec: PayloadCodec | None = None,
    *,
    done: Callable[[Context], Awaitable[None]] = nothing,
    subscriptions: Iterable[Subscription] = (),
) -> Application:
    """A handler of each kind; `done` is called once it has its argument."""
    desk, basket, flow = Service("Desk"), VirtualObject("Basket"), Workflow("Flow")

    @desk.handler()
    async def typed(ctx: Context, order: Order) -> None:
        await done(ctx)

    @desk.handler()
    async def raw(ctx: Context, value: bytes) -> None:
        await done(ctx)

    @desk.handler(input_serde=Touchy())
    async def own(ctx: Context, value: str) -> None:
        await done(ctx)

    @basket.handler()
    async def add(ctx: ObjectContext, value: Any = None) -> None:
        await done(ctx)

    @flow.main()
    async def run(ctx: WorkflowContext, value: Any = None) -> None:
        await done(ctx)

    return app([desk, basket, flow], payload_codec=codec, subscriptions=subscriptions)


def _reading(of: Application) -> SubscriptionReading:
    subscriptions = [Subscription(topic=topic, **options) for topic, options in SUBSCRIPTIONS.items()]
    return SubscriptionReading(of, subscriptions, group="g", record_bytes_max=10_000, now_ms=lambda: 5)


_WAYS: Final = [(made, _reading(made)) for made in (application(), application(TouchyCodec()))]
_TIMES_MS: Final = (1_700_000_000_000, -1, 0, 2**63 - 1, -(2**63))
_SEPARATOR: Final = b"\xff\xff"


def taken_apart(data: bytes) -> Outgoing:
    """A record out of bytes: the first chooses the topic, then come value, key and headers; a value may be null."""
    value, *rest = data[1:].split(_SEPARATOR)
    key = rest[0] if rest else None
    headers: Headers = tuple([(each[:3].decode("utf-8", "surrogateescape"), each[3:] or None) for each in rest[1:]])
    topic = list(SUBSCRIPTIONS)[(data[0] if data else 0) % len(SUBSCRIPTIONS)]
    return Outgoing(topic, key, None if value == b"null value" else value, headers)


def check(data: bytes) -> None:
    """Read one record, and its argument; once more behind a codec. Raises where something came out that may not."""
    topic, key, value, headers, _ = taken_apart(data)
    timestamp_ms = _TIMES_MS[len(data) % len(_TIMES_MS)]
    record = Record(Partition(topic, 3), 7, timestamp_ms, key, value, headers)
    for of, read in _WAYS:
        try:
            wanted = read(record)
            admission = admission_of(of, wanted, token="t", worker="w")
        except DecodeError as error:
            _check_letter(record, str(error))
            continue
        assert is_invocation_id(admission.invocation_id)
        assert read(record).invocation_id == wanted.invocation_id
        assert decode(*encode(admission.input)) == admission.input
        assert admission.input.headers == headers
        for text in (admission.key or "", admission.source, admission.reply_to):
            text.encode()
        assert read_source(admission.source) == (topic, 3, 7, timestamp_ms, key)
        _check_argument(of, f"{admission.service}/{admission.handler}", admission.input.value, value or b"")


def _check_letter(record: Record, reason: str) -> None:
    letter = unreadable_letter(record, reason, topic="ns.dead")
    seen = opened(Record(Partition("ns.dead", 0), 1, 1, letter.key, letter.value, letter.headers))
    assert seen.source == f"{record.partition.topic}/3/7"
    assert (seen.record.key, seen.record.value, seen.record.headers) == (record.key, record.value, record.headers)
    told = letter.headers[len(record.headers) :]
    assert sum(len(name.encode()) + len(about or b"") for name, about in told) <= ABOUT_BYTES_MAX


def _check_argument(of: Application, target: str, kept: bytes, value: bytes) -> None:
    service, _, name = target.partition("/")
    handler, codec = of.handler(service, name), of.payload_codec
    assert handler is not None
    given = kept if codec is None else Sealer(codec).open(kept)
    assert given == value, "the handler's serde reads what was produced"
    try:
        decode_argument(handler, given)
    except TerminalError as error:
        output = Output(5, as_failure(error))
        assert decode(*encode(output)) == output
    except RetryableError:
        # The attempt fails, and is made again: what the author asked for.
        pass


SEEDS: Final = (
    b'\x00{"number": 7}\xff\xffkey\xff\xffabcvalue',
    b"\x01\x00\x01raw\xff\xff{17}\xff\xffabcvalue\xff\xff\xc3\xa9x",
    b"\x02plain text\xff\xff\xff\xff",
    b"\x02!\xff\xffkey",
    b'\x03{"a": [1, 2.5, null, "x"]}\xff\xffada/{1}',
    b"\x04null value\xff\xffada\xff\xffabc",
    b"\x01null value",
)
