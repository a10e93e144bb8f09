"""What is fuzzed: each way by which bytes of others come in, and what must hold for whatever they are.

A check returns for anything that is read or refused by name, and raises for everything else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import hiredis
import orjson

from perdure.journal.redis_config import RedisConfig, mask_url
from perdure.journal.replies import (
    as_admitted,
    as_appended,
    as_claim,
    as_concluded,
    as_delivery,
    as_departure,
    as_due,
    as_promise,
    as_status,
    as_swept,
    positioned,
)
from perdure.journal.store import Lease
from perdure.journal.transitions import caller_of
from perdure.journal.wire import refusal
from perdure.schemas.codec import decode, encode
from perdure.schemas.entries import Unknown
from perdure.schemas.errors import DecodeError, PerdureError, SerdeError, SettingsError, UsageError
from perdure.schemas.ids import InvocationId, is_invocation_id, read_awakeable_id, slot_of
from perdure.schemas.payloads import decode_headers, encode_headers
from perdure.schemas.records import decode_invocation, decode_resume
from perdure.worker.admissions import admission_of
from perdure.worker.application import Application, app
from perdure.worker.broker import Partition, Record
from perdure.worker.cli.output import clean
from perdure.worker.cli.values import read_duration, read_headers, read_json
from perdure.worker.context import Context
from perdure.worker.dead_letters import unreadable_letter
from perdure.worker.letters import opened
from perdure.worker.object_context import ObjectContext
from perdure.worker.printable import printable
from perdure.worker.readings import EnvelopeReading, check_names
from perdure.worker.record_source import read_source
from perdure.worker.serde import JSON
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject

from . import subscribed


class Target(NamedTuple):
    """Something that reads bytes.

    Attributes:
        check: Raises where the bytes broke something.
        seeds: Inputs that are right.
    """

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]


def _application() -> Application:
    service, things = Service("S"), VirtualObject("O")

    @service.handler()
    async def h(ctx: Context, argument: Any = None) -> Any:
        return argument

    @things.handler()
    async def keep(ctx: ObjectContext, argument: Any = None) -> Any:
        return argument

    return app([service, things])


_APPLICATION: Final = _application()
_READ: Final = EnvelopeReading(
    _APPLICATION, {"ns.S": "S", "ns.O": "O"}, record_bytes_max=1_000_000, now_ms=lambda: 1_700_000_000_000
)


def _record(data: bytes) -> None:
    """A record of a service's topic: the first byte chooses the topic, behind 0xffff are a key and a header."""
    value, _, rest = data[1:].partition(b"\xff\xff")
    key, _, header = rest.partition(b"\xff\xff")
    name = header[:3].decode("utf-8", "surrogateescape")
    headers = ((name, header[3:]),) if header else ()
    topic = "ns.O" if data[:1] > b"\x7f" else "ns.S"
    record = Record(Partition(topic, 0), 7, -1, key or None, value, headers)
    try:
        wanted = _READ(record)
        admission = admission_of(_APPLICATION, wanted, token="t", worker="w")
    except DecodeError as error:
        letter = unreadable_letter(record, str(error), topic="ns.dead")
        for header_name, _ in letter.headers:
            header_name.encode()
        assert (letter.key, letter.value) == (record.key, record.value)
        seen = opened(Record(Partition("ns.dead", 0), 1, 1, letter.key, letter.value, letter.headers))
        assert seen.source == f"{topic}/0/7"
        return
    assert is_invocation_id(admission.invocation_id)
    assert decode(*encode(admission.input)) == admission.input
    for text in (
        admission.handler,
        admission.key or "",
        admission.idempotency_key,
        admission.waiter,
        admission.reply_to,
    ):
        text.encode()
    if admission.caller:
        caller_of(admission.caller)
    read_source(admission.source)


def _envelope(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        envelope = decode_invocation(data)
        envelope.not_before_ms()


def _resume(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        resume = decode_resume(data)
        assert decode_resume(resume.encode()) == resume
        assert 0 <= slot_of(resume.id, 64) < 64


def _entry(data: bytes) -> None:
    kind, _, body = data.partition(b" ")
    try:
        entry = decode(kind, body)
    except DecodeError:
        return
    if isinstance(entry, Unknown):
        return
    # Fields of another type than theirs are nothing that anybody writes; what can be written is read back the same.
    with contextlib.suppress(TypeError, orjson.JSONEncodeError, AttributeError, ValueError):
        again = encode(entry)
        assert encode(decode(*again)) == again


def _headers(data: bytes) -> None:
    name, _, value = data.partition(b":")
    headers = ((name.decode("utf-8", "surrogateescape"), value), ("none", None))
    try:
        check_names(headers)
    except DecodeError:
        return
    assert decode_headers(orjson.loads(orjson.dumps(encode_headers(headers)))) == headers


def _ids(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if is_invocation_id(text):
        assert 0 <= slot_of(text, 64) < 64
    found = read_awakeable_id(text)
    if found is not None:
        assert is_invocation_id(found[0])
    with contextlib.suppress(DecodeError):
        assert str(caller_of(text)) == text or not text.isascii()
    read_source(text)


def _json(data: bytes) -> None:
    with contextlib.suppress(SerdeError):
        value = JSON.deserialize(data)
        assert JSON.deserialize(JSON.serialize(value)) == value


_LEASE: Final = Lease(InvocationId("inv_" + "0" * 27), 1, "t", "w")
_ANSWERS: Final[tuple[Callable[[Any], object], ...]] = (
    lambda reply: as_admitted(reply, _LEASE),
    lambda reply: as_claim(reply, _LEASE),
    as_appended,
    as_departure,
    as_concluded,
    lambda reply: as_delivery(_LEASE.invocation_id, reply),
    as_due,
    as_promise,
    as_swept,
    as_status,
    positioned,
)
# What the wire takes for "this reply does not fit", and fails one call for.
_UNFIT: Final = (PerdureError, ValueError, LookupError, TypeError, AttributeError)


def _reply(data: bytes) -> None:
    reader = hiredis.Reader()
    try:
        reader.feed(data[1:])
        reply = reader.gets()
    except (hiredis.ProtocolError, TypeError, MemoryError):
        # The wire gives up its connection, and says what for.
        return
    if isinstance(reply, Exception):
        assert isinstance(refusal(str(reply)), PerdureError)
        return
    with contextlib.suppress(*_UNFIT):
        _ANSWERS[data[0] % len(_ANSWERS)](reply)


def _hides(text: str) -> None:
    assert "s3cr3t-marker" not in text, text


def _url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    marked = text.replace("secret", "s3cr3t-marker")
    try:
        config = RedisConfig.from_url(marked)
    except SettingsError as error:
        # Whoever writes it somewhere else, too, has said it himself.
        if "@" in marked and marked.count("s3cr3t-marker") == 1:
            _hides(str(error))
        return
    if config.password and "s3cr3t-marker" in config.password:
        _hides(repr(config))
        if marked.count("s3cr3t-marker") == 1:
            _hides(mask_url(marked))
            _hides(config.address)


def _arguments(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for read in (
        lambda: read_duration(text, flag="--delay"),
        lambda: read_headers([text]),
        lambda: read_json(text),
    ):
        with contextlib.suppress(UsageError):
            read()
    assert not set(clean(text) + printable(text).replace("\n", "")) & set(map(chr, [*range(32), *range(127, 160)]))


_ID = b"inv_0" + b"1" * 26
TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "record": Target(
            _record,
            (
                b'\x00{"handler": "h", "argument": {"a": [1, 2.5, null]}}\xff\xffkey\xff\xffabcvalue',
                b'\x80{"handler": "keep", "key": "k", "idempotency_key": "i", "reply_to": "r", "headers": {"a": "b"}}',
                b'\x00{"handler": "h", "id": "%b", "waiter": "ns:outcome:c", "caller": "%b:1:2"}' % (_ID, _ID),
                b'\x80{"handler": "keep", "base64": "AAECAw==", "not_before": "2030-01-01T00:00:00Z"}\xff\xffkey',
            ),
        ),
        "subscribed": Target(subscribed.check, subscribed.SEEDS),
        "envelope": Target(
            _envelope,
            (
                b'{"handler": "h", "argument": {"a": [1, 2.5, null, "x"]}, "not_before": 1900000000.5}',
                b'{"handler": "h", "id": "%b", "caller": "%b:1:2", "headers": {"a": "b"}}' % (_ID, _ID),
            ),
        ),
        "resume": Target(_resume, (b'{"id": "%b", "epoch": 3}' % _ID,)),
        "entry": Target(
            _entry,
            (
                b'run {"index":0,"name":"n","at":1,"ms":2,"value":{"a":",\\"value\\":"}}',
                b'run {"index":0,"name":"n","at":1,"ms":2,"failure":{"code":5,"message":"m","metadata":{"value":"x"}}}',
                b'input {"at":1,"worker":"w","headers":[["a","b"],["c","AA==","base64"],["d"]],"base64":"AAE="}',
                b'call {"index":1,"at":2,"service":"S","handler":"h","id":"%b","key":"k","value":1}' % _ID,
                b'set {"index":1,"name":"n","value":[1]}',
                b'completion {"index":1,"at":2,"value":null}',
                b'attempt_failed {"at":1,"error":"e","stack":"","command":"","retry_ms":0}',
            ),
        ),
        "headers": Target(_headers, (b"traceparent:00-4bf92f-01", b"\xc3\xa9:\x00\xff")),
        "ids": Target(_ids, (_ID, _ID + b":1:2", b"awk_" + _ID[4:] + b"_7", b"topic/0/12/1700000000000/a2V5")),
        "json": Target(
            _json, (b'{"a": [1, -2.5e3, "x", {"b": null}], "n": 12345678901234567890}', b'"\\ud834\\udd1e"')
        ),
        "reply": Target(
            _reply,
            (
                b"\x00*3\r\n$7\r\nrunning\r\n:1\r\n*2\r\n$1\r\na\r\n$4\r\nnull\r\n",
                b"\x08*3\r\n:5\r\n*1\r\n*4\r\n$6\r\nresume\r\n$31\r\n%b\r\n$1\r\n1\r\n$1\r\nS\r\n:9\r\n" % _ID,
                (
                    b"\x0a*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$5\r\ninput\r\n$44\r\n"
                    b'{"at":1,"worker":"w","headers":[],"value":1}\r\n'
                ),
                b"\x00-FENCED 3\r\n",
            ),
        ),
        "url": Target(
            _url,
            (b"redis://user:secret@host:6379/0", b"rediss://:secret@[::1]:1/2?ssl_cert_reqs=none", b"user:secret@host"),
        ),
        "arguments": Target(_arguments, (b"1h30m", b"name=value", b'{"a": 1}', b"10s\x1b[2J")),
    }
)
