"""Journals as people and programs read them: `perdure.journal.inspection`."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from perdure.journal.inspection import (
    InvocationView,
    Journal,
    Row,
    duration_text,
    entry_json,
    payload_json,
    preview,
    rows_of,
    view_of,
)
from perdure.journal.store import Summary
from perdure.schemas.codec import encode
from perdure.schemas.entries import (
    AttemptFailed,
    AttemptStarted,
    Completion,
    Failure,
    Input,
    Output,
    Paused,
    Positioned,
    Run,
    Sleep,
    StepFailed,
    Success,
    Unknown,
)
from perdure.schemas.ids import InvocationId

STORY = [
    Positioned(1, 0, Input(100, "w1", (("a", b"b"),), b'{"n":1}')),
    Positioned(2, 1, AttemptStarted(101, "w1")),
    Positioned(3, 1, Run(0, "charge", 110, 9, Success(b'"ok"'))),
    Positioned(4, 1, StepFailed(1, "mail", 120, 1, 5, 50, "no route")),
    Positioned(5, 1, AttemptFailed(130, "worker w1 stopped", "stack", 'run "mail"', 0)),
    Positioned(6, 2, AttemptStarted(140, "w2")),
    Positioned(7, 2, Run(1, "mail", 150, 1, Failure(400, "bad address"))),
    Positioned(8, 2, Sleep(2, "", 160, 90_000)),
    Positioned(9, 2, Completion(2, 170, Success(b""))),
    Positioned(10, 2, Completion(7, 171, Success(b"1"))),
    Positioned(11, 2, Paused(180, "diverged")),
    Positioned(12, 3, Unknown("promise", b'{"x":1}')),
    Positioned(13, 3, Output(190, Failure(409, "over"))),
]


def test_a_journal_reads_like_a_story() -> None:
    """Each entry is one row that says when, what, by which attempt, for how long and with what end."""
    assert rows_of(STORY) == [
        Row(1, 0, "input", "", 100, None, '{"n":1}', ""),
        Row(2, 1, "attempt", "w1", 101, None, "", ""),
        Row(3, 1, "run", "charge", 110, 9, '"ok"', ""),
        Row(4, 1, "step_failed", "mail", 120, None, "", "no route (failure 1, retry in 50 ms)"),
        Row(5, 1, "attempt_failed", 'run "mail"', 130, None, "", "worker w1 stopped (retry in 0 ms)"),
        Row(6, 2, "attempt", "w2", 140, None, "", ""),
        Row(7, 2, "run", "mail", 150, 1, "", "400: bad address"),
        Row(8, 2, "sleep", "", 160, 90_000, "", ""),
        Row(9, 2, "completion", "of sleep 1 min 30 s", 170, None, "", ""),
        Row(10, 2, "completion", "of command 7", 171, None, "1", ""),
        Row(11, 2, "paused", "", 180, None, "", "diverged"),
        Row(12, 3, "promise", "", None, None, '{"x":1}', ""),
        Row(13, 3, "output", "", 190, None, "", "409: over"),
    ]


def test_a_journal_can_be_read_in_pieces() -> None:
    """Completions are named after commands that came in an earlier piece."""
    journal = Journal()
    pieces = [journal.add(STORY[:8]), journal.add([]), journal.add(STORY[8:])]
    assert [row for piece in pieces for row in piece] == rows_of(STORY)
    assert journal.length == 13


def test_types_are_those_of_the_stream() -> None:
    """What a row calls an entry is what `redis-cli XRANGE` shows."""
    assert [row.type for row in rows_of(STORY)] == [encode(entry)[0].decode() for _, _, entry in STORY]


def test_json_holds_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of entry becomes JSON with its payload as it is."""
    rows: list[dict[str, Any]] = orjson.loads(orjson.dumps([entry_json(entry) for entry in STORY]))
    assert [row["position"] for row in rows] == list(range(1, 14))
    assert rows[0]["argument"] == {"n": 1}
    assert rows[0]["headers"] == [["a", "b"]]
    assert rows[2] == {
        "position": 3,
        "attempt": 1,
        "type": "run",
        "index": 0,
        "name": "charge",
        "at_ms": 110,
        "duration_ms": 9,
        "result": "ok",
    }
    assert rows[3]["index"] == 1
    assert rows[4]["stack"] == "stack"
    assert rows[6]["failure"] == {"code": 400, "message": "bad address", "metadata": {}}
    assert rows[8]["result"] is None
    assert rows[11]["body"] == {"x": 1}


def test_previews_are_short_and_harmless() -> None:
    """Long payloads say their length; control characters cannot reach a terminal; cut characters do no harm."""
    assert preview(b"x" * 100, bytes_max=10) == "xxxxxxxxxx… (100 bytes)"
    assert preview(b"x" * 10, bytes_max=10) == "xxxxxxxxxx"
    assert preview("ä".encode() * 10, bytes_max=5) == "ää… (20 bytes)"
    assert preview(b"\x1b[31m\nred") == "·[31m·red"
    assert preview(b"\xff") == "\N{REPLACEMENT CHARACTER}"
    assert preview(b"1" * 5_000, bytes_max=1).endswith("(5,000 bytes)")


def test_payloads_that_are_not_json_are_previewed() -> None:
    """JSON output stays JSON whatever a payload holds."""
    assert orjson.dumps([payload_json(raw) for raw in (b"", b"[1]", b"\x00", b'"' + b"x" * 200_000 + b'"')]).startswith(
        b'[null,[1],"\xc2\xb7","\\"xxx'
    )


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (2_540, "2.54 s"),
        (59_999, "60 s"),
        (60_000, "1 min"),
        (200_000, "3 min 20 s"),
        (7_500_000, "2 h 5 min"),
        (40 * 86_400_000 + 2 * 3_600_000, "40 d 2 h"),
    ],
)
def test_durations_are_for_people(duration_ms: int, text: str) -> None:
    """Two units at most, the smaller one left out where it is nothing."""
    assert duration_text(duration_ms) == text


def test_an_invocation_is_read_from_its_hash() -> None:
    """Numbers become numbers, what is missing is nothing, the outcome is what was recorded."""
    output = encode(Output(5, Success(b'{"ok":true}')))[1].decode()
    fields = {
        "service": "Shop",
        "handler": "add",
        "status": "completed",
        "epoch": "2",
        "length": "7",
        "failures": "0",
        "admitted_at": "1000",
        "output": output,
    }
    view = view_of(Summary(InvocationId("inv_x"), fields))
    assert (view.target, view.attempts, view.entries, view.admitted_at_ms) == ("Shop/add", 2, 7, 1000)
    assert view.outcome == Success(b'{"ok":true}')
    assert view.completed_at_ms is None
    found = orjson.loads(orjson.dumps(view.to_json()))
    assert found["result"] == {"ok": True}
    assert "outcome" not in found


def test_a_damaged_hash_is_shown_as_far_as_it_goes() -> None:
    """Looking at an invocation never fails because of what stands in it."""
    view = view_of(Summary(InvocationId("inv_x"), {"epoch": "many", "output": "{"}))
    assert isinstance(view, InvocationView)
    assert (view.attempts, view.outcome, view.status) == (0, None, "")
    assert "result" not in view.to_json()
