"""Each limit at, below and above it: what is within comes through, what is beyond is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from perdure.schemas import limits
from perdure.schemas.entries import Success
from perdure.schemas.errors import DecodeError, PerdureError, SerdeError, TerminalError, UsageError
from perdure.worker import attempt_commands
from perdure.worker.admissions import admission_of
from perdure.worker.application import app
from perdure.worker.broker import Headers, Partition, Record
from perdure.worker.callees import Asked, Callee, checked_headers, checked_name, checked_outcome
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext
from perdure.worker.readings import EnvelopeReading
from perdure.worker.service import Service
from perdure.worker.steps import as_failure, check_step
from perdure.worker.virtual_object import VirtualObject
from tests.worker.attempt_stage import Stage, paused_reason
from tests.worker.ensemble import Ensemble

ROOT = Path(__file__).resolve().parents[2]
CALLEE = Callee("S", "h", "k")


def record_of(value: bytes = b'{"handler": "h"}', key: bytes = b"k", headers: Headers = ()) -> None:
    """Read a record of an object's topic as the intake does."""
    things = VirtualObject("S")

    @things.handler()
    async def h(ctx: ObjectContext, argument: Any = None) -> None: ...

    application = app([things])
    read = EnvelopeReading(application, {"t": "S"}, record_bytes_max=limits.RECORD_BYTES_MAX, now_ms=lambda: 1)
    admission_of(application, read(Record(Partition("t", 0), 1, 1, key, value, headers)), token="t", worker="w")


def padded(size: int, **fields: object) -> bytes:
    """An envelope of that many bytes."""
    head = orjson.dumps({"handler": "h", "argument": "", **fields})
    return head.replace(b'"argument":""', b'"argument":"%b"' % (b"x" * (size - len(head))))


def call(argument: bytes = b"", **asked: Any) -> None:
    """Check a call as a handler makes it."""
    checked_headers(CALLEE, argument, Asked(**asked))


BOUNDS: dict[str, tuple[int, type[PerdureError], Callable[[int], object]]] = {
    "record": (limits.RECORD_BYTES_MAX, DecodeError, lambda n: record_of(padded(n))),
    "record headers": (limits.HEADERS_MAX, DecodeError, lambda n: record_of(headers=(("a", b""),) * n)),
    "record header bytes": (
        limits.HEADERS_BYTES_MAX,
        DecodeError,
        lambda n: record_of(headers=(("é", b"x" * (n - 2)),)),
    ),
    "record key": (limits.KEY_LENGTH_MAX, DecodeError, lambda n: record_of(key="é".encode() * n)),
    "envelope key": (limits.KEY_LENGTH_MAX, DecodeError, lambda n: record_of(padded(9_999, key="é" * n))),
    "envelope headers": (
        limits.HEADERS_MAX,
        DecodeError,
        lambda n: record_of(padded(9_999, headers={str(i): "" for i in range(n)})),
    ),
    "idempotency key": (
        limits.KEY_LENGTH_MAX,
        DecodeError,
        lambda n: record_of(padded(9_999, idempotency_key="é" * n)),
    ),
    "handler": (limits.NAME_LENGTH_MAX, DecodeError, lambda n: record_of(orjson.dumps({"handler": "é" * n}))),
    "reply topic": (249, DecodeError, lambda n: record_of(padded(9_999, reply_to="r" * n))),
    "call argument": (limits.PAYLOAD_BYTES_MAX, SerdeError, lambda n: call(b"x" * n)),
    "call headers": (limits.HEADERS_MAX, UsageError, lambda n: call(headers={str(i): "" for i in range(n)})),
    "call header bytes": (limits.HEADERS_BYTES_MAX, UsageError, lambda n: call(headers={"é": "x" * (n - 2)})),
    "call idempotency key": (limits.KEY_LENGTH_MAX, UsageError, lambda n: call(idempotency_key="é" * n)),
    "call key": (
        limits.KEY_LENGTH_MAX,
        UsageError,
        lambda n: checked_headers(Callee("S", "h", "é" * n), b"", Asked()),
    ),
    "name": (limits.NAME_LENGTH_MAX, UsageError, lambda n: checked_name("A state", "é" * n)),
    "step name": (limits.NAME_LENGTH_MAX, UsageError, lambda n: check_step("é" * n, print)),
    "completion": (limits.PAYLOAD_BYTES_MAX, SerdeError, lambda n: checked_outcome("The value", Success(b"x" * n))),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_within_is_taken_and_what_is_beyond_refused(name: str) -> None:
    """One below, exactly at, and one above; the refusal says the limit."""
    bound, error, use = BOUNDS[name]
    use(bound - 1)
    use(bound)
    with pytest.raises(error, match=str(bound)):
        use(bound + 1)


async def test_a_state_value_is_bounded(plain_stage: Stage) -> None:
    """At the limit it is kept, above it fails the attempt."""
    ensemble = Ensemble()
    things = VirtualObject("Things")

    @things.handler()
    async def keep(ctx: ObjectContext, size: int) -> str:
        try:
            ctx.set("value", "x" * (size - 2))
        except SerdeError as error:
            return str(error)
        return "kept"

    ensemble.cast(things)
    for size, said in (
        (0, "kept"),
        (limits.PAYLOAD_BYTES_MAX, "kept"),
        (limits.PAYLOAD_BYTES_MAX + 1, "at most 1000000"),
    ):
        assert said in (await ensemble.act_out(keep, size, key="k")).result
    await ensemble.stop()


@pytest.mark.parametrize(("steps", "paused"), [(9, False), (10, False), (11, True)])
async def test_what_a_journal_holds_is_bounded(plain_stage: Stage, steps: int, paused: bool) -> None:
    """The results together; an invocation whose journal holds more is paused and says so, in every attempt."""
    # The input has four.
    plain_stage.journal_bytes_max = 10 * 1_000 + len(b"null")

    async def play(ctx: Context) -> int:
        for number in range(steps):
            await ctx.run(f"step {number}", lambda: "x" * 998)
        return steps

    story = await plain_stage.play(play)
    assert (story.status == "paused") == paused
    if paused:
        assert "holds 11004 bytes; 10004 are allowed" in paused_reason(story)


@pytest.mark.parametrize(("children", "refused"), [(4, 0), (5, 0), (6, 1)])
async def test_the_children_of_an_invocation_are_bounded(
    monkeypatch: pytest.MonkeyPatch, children: int, refused: int
) -> None:
    """Calls and sends alike, counted the same in every replay."""
    monkeypatch.setattr(attempt_commands, "CHILDREN_MAX", 5)
    ensemble = Ensemble(always_replay=True)
    service = Service("Family")

    @service.handler()
    async def child(ctx: Context) -> int:
        return 1

    @service.handler()
    async def parent(ctx: Context, count: int) -> list[str]:
        errors = []
        for number in range(count):
            try:
                if number % 2:
                    ctx.service_send(child, None)
                else:
                    await ctx.service_call(child, None)
            except UsageError as error:
                errors.append(str(error))
        return errors

    ensemble.cast(service)
    story = await ensemble.act_out(parent, children)
    assert len(story.result) == refused
    assert all("would be child 6" in error for error in story.result)
    await ensemble.stop()


def test_metadata_of_a_failure_is_cut_and_says_so() -> None:
    """As the message is; what is no text becomes one."""
    many = {f"name {n}": "v" for n in range(limits.METADATA_MAX)}
    assert as_failure(TerminalError("m", 400, many)).metadata == many
    failure = as_failure(TerminalError("m" * 10_000_000, 400, {"a": "x" * 1_001, **many}))
    assert len(failure.message) < limits.FAILURE_CHARACTERS_MAX + 50
    assert failure.metadata["a"] == "x" * 1_000 + "… (1 characters left out)"
    assert failure.metadata["…"] == "1 entries left out"
    odd: Any = {1: object(), "lone": "\ud800"}
    assert orjson.dumps(dict(as_failure(TerminalError("m", 400, odd)).metadata))


def test_the_table_has_the_limits_that_are() -> None:
    """What docs/operations.md says is what the code holds."""
    table = (ROOT / "docs" / "operations.md").read_text().partition("## Limits")[2].partition("\n## ")[0]
    for name in ("HEADERS_MAX", "HEADERS_BYTES_MAX", "KEY_LENGTH_MAX", "NAME_LENGTH_MAX", "PAYLOAD_BYTES_MAX"):
        assert f"| {getattr(limits, name):,} " in next(line for line in table.splitlines() if f"`{name}`" in line)
    for name in ("RECORD_BYTES_MAX", "PAYLOAD_BYTES_MAX", "JOURNAL_ENTRIES_MAX", "JOURNAL_BYTES_MAX"):
        assert f"| {getattr(limits, name):,} " in next(
            line for line in table.splitlines() if f"`PERDURE_{name}`" in line
        )
    assert f"| {limits.CHILDREN_MAX:,} |" in table
    assert f"| {limits.QUEUE_MAX:,} |" in table
    assert f"| {limits.WAITERS_MAX:,} |" in table
