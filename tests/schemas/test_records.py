"""Kafka record values: what an envelope may be, what is said of one that is wrong, resume notices and replies."""

from __future__ import annotations

import json

import pytest

from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import HEADERS_MAX, KEY_LENGTH_MAX, NAME_LENGTH_MAX
from perdure.schemas.records import Resume, decode_invocation, decode_resume, encode_reply

ID = InvocationId("inv_" + "0" * 27)


def envelope(**fields: object) -> bytes:
    """An envelope for the handler `add` with these fields."""
    return json.dumps({"handler": "add", **fields}).encode()


def test_a_handler_is_enough() -> None:
    """The smallest record that a console producer can send."""
    invocation = decode_invocation(b'{"handler":"add"}')
    assert invocation.handler == "add"
    assert invocation.payload == b""
    assert invocation.not_before_ms() == 0
    assert invocation.headers == {}


def test_all_fields_are_read() -> None:
    """What is sent is what is there."""
    invocation = decode_invocation(
        envelope(
            argument={"n": 1},
            key="k",
            idempotency_key="i",
            not_before="2030-01-01T00:00:00+01:00",
            reply_to="replies.v1",
            waiter="ns:outcome:c1",
            headers={"a": "b"},
        )
    )
    assert (invocation.key, invocation.idempotency_key, invocation.id) == ("k", "i", None)
    assert (invocation.reply_to, invocation.waiter, invocation.headers) == ("replies.v1", "ns:outcome:c1", {"a": "b"})
    assert invocation.not_before_ms() == 1893452400000
    assert decode_invocation(envelope(id=ID)).id == ID


@pytest.mark.parametrize(
    "argument",
    [
        "null",
        "0",
        "-0.0",
        "1.5",
        '"é☃"',
        "[]",
        "{}",
        "[1,[2,{}]]",
        "true",
        "9" * 60,
        "-" + "9" * 60,
        "0.1",
        '"\\u0000"',
    ],
)
def test_an_argument_keeps_its_value(argument: str) -> None:
    """Integers of any length are exact; null is an argument, and none is not."""
    payload = decode_invocation(b'{"handler":"add","argument":%b}' % argument.encode()).payload
    assert json.loads(payload) == json.loads(argument)
    assert type(json.loads(payload)) is type(json.loads(argument))


@pytest.mark.parametrize(
    ("not_before", "at_ms"),
    [
        ("2030-01-01T00:00:00Z", 1893456000000),
        ("2030-01-01T00:00:00.001Z", 1893456000001),
        ("2030-01-01T00:00:00.0001Z", 1893456000001),
        ("2030-01-01T00:00:00.999999Z", 1893456001000),
        ("9999-12-31T23:59:59-12:00", 253402343999000),
        (1893456000, 1893456000000),
        (1893456000.25, 1893456000250),
        (-5, -5000),
        (None, 0),
    ],
)
def test_a_start_is_never_early(not_before: object, at_ms: int) -> None:
    """Fractions of a millisecond are rounded up."""
    assert decode_invocation(envelope(not_before=not_before)).not_before_ms() == at_ms


@pytest.mark.parametrize("milliseconds", range(0, 1000, 7))
def test_milliseconds_are_exact(milliseconds: int) -> None:
    """Not what a float makes of them."""
    invocation = decode_invocation(envelope(not_before=f"2031-07-08T09:10:11.{milliseconds:03}Z"))
    assert invocation.not_before_ms() == 1941268211000 + milliseconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"handler=add", "not JSON"),
        (b'{"handler":"add"} x', "not JSON"),
        (b'{"handler":"add","argument":NaN}', "not JSON"),
        (b'{"handler":"add","argument":-Infinity}', "not JSON"),
        (b'{"handler":"add","argument":"\\ud800"}', "not JSON"),
        (b"[" * 100_000, "not JSON: recursion limit"),
        (b"null", "JSON, but null and not an object"),
        (b"[1]", "JSON, but an array and not an object"),
        (b'"add"', "JSON, but a string and not an object"),
        (b"true", "JSON, but a boolean and not an object"),
        (b"1", "JSON, but a number and not an object"),
        (b"{}", "handler: Field required"),
        (b'{"handler":7}', "handler: Input should be a valid string"),
        (envelope(handler=""), "handler: String should have at least 1 character"),
        (envelope(handler="x" * (NAME_LENGTH_MAX + 1)), "handler: String should have at most 200"),
        (envelope(args=1), "args: Extra inputs are not permitted"),
        (b'{"handler":"add","argument":1e400}', "argument: it holds a number that is too large"),
        (b'{"handler":"add","argument":[{"a":-1e400}]}', "argument: it holds a number that is too large"),
        (envelope(key=""), "key: String should have at least 1 character"),
        (envelope(key=7), "key: Input should be a valid string"),
        (envelope(idempotency_key="x" * (KEY_LENGTH_MAX + 1)), "idempotency_key: String should have at most 512"),
        (envelope(id="mine"), "id 'mine' is not an invocation id .*use idempotency_key"),
        (envelope(id=ID, idempotency_key="x"), "give id or idempotency_key, not both"),
        (envelope(not_before="2030-01-01T00:00:00"), "not_before needs a time zone"),
        (envelope(not_before="tomorrow"), "not_before: Input should be a valid datetime"),
        (envelope(not_before=1e30), "not_before: Input should be a valid datetime"),
        (envelope(not_before=True), "not_before: Input should be a valid datetime"),
        (envelope(reply_to="no spaces"), "reply_to: String should match pattern"),
        (envelope(reply_to="x" * 250), "reply_to: String should have at most 249"),
        (envelope(reply_to="."), "reply_to: String should match pattern"),
        (envelope(reply_to=".."), "reply_to: String should match pattern"),
        (envelope(caller="inv_4" + "0" * 26 + ":1:1"), "caller: String should match pattern"),
        (envelope(waiter="two channels"), "waiter: String should match pattern"),
        (envelope(headers=[]), "headers: Input should be a valid dictionary"),
        (envelope(headers={"a": 1}), "headers.a: Input should be a valid string"),
        (
            envelope(headers={str(n): "x" for n in range(HEADERS_MAX + 1)}),
            "headers: Dictionary should have at most 100",
        ),
    ],
)
def test_what_is_wrong_with_a_record_is_said(value: bytes, message: str) -> None:
    """Each bad input has a message of its own: it goes with the record to the dead letters."""
    with pytest.raises(DecodeError, match=message) as caught:
        decode_invocation(value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("value", [envelope(**{"x" * 500_000: 1}), envelope(id="x" * 500_000)])
def test_a_reason_is_short_whatever_the_record_holds(value: bytes) -> None:
    """It has to fit into a header beside the record itself."""
    with pytest.raises(DecodeError) as caught:
        decode_invocation(value)
    assert len(str(caught.value)) < 1_200


def test_a_resume_notice_is_read_as_it_was_written() -> None:
    """By hand, too: it is plain JSON."""
    assert decode_resume(Resume(ID, 7).encode()) == Resume(ID, 7)
    assert json.loads(Resume(ID, 7).encode()) == {"id": ID, "epoch": 7}
    assert decode_resume(b' {"epoch": 0, "id": "%b", "more": 1} ' % ID.encode()) == Resume(ID, 0)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"id":"x","epoch":1}',
        b'{"id":7,"epoch":1}',
        b'{"id":"%b"}' % ID.encode(),
        b'{"id":"%b","epoch":"1"}' % ID.encode(),
        b'{"id":"%b","epoch":1.0}' % ID.encode(),
        b'{"id":"%b","epoch":true}' % ID.encode(),
        b'{"id":"%b","epoch":null}' % ID.encode(),
        b"\xff",
    ],
)
def test_what_is_no_resume_notice(value: bytes) -> None:
    """An id and a whole number, or a clear refusal."""
    with pytest.raises(DecodeError, match="not a resume notice"):
        decode_resume(value)


@pytest.mark.parametrize(
    ("outcome", "rest"),
    [
        (Success(b'{"n": 1}'), {"status": "success", "value": {"n": 1}}),
        (Success(b"null"), {"status": "success", "value": None}),
        (Success(b""), {"status": "success", "value": None}),
        (Success(b"\xff"), {"status": "success", "base64": "/w=="}),
        (
            Failure(409, 'no "more"', {"value": "x"}),
            {"status": "failure", "failure": {"code": 409, "message": 'no "more"', "metadata": {"value": "x"}}},
        ),
    ],
)
def test_a_reply_tells_the_outcome(outcome: Outcome, rest: dict[str, object]) -> None:
    """Whoever reads the reply topic needs no library for it."""
    assert json.loads(encode_reply(ID, outcome)) == {"id": ID, **rest}
