"""The judge of visits, workflows and subscriptions finds what it is there to find: one planted violation each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from perdure.schemas.entries import (
    AttemptStarted,
    Cancelled,
    Entry,
    Failure,
    Input,
    Output,
    Paused,
    Positioned,
    Resumed,
    Run,
    Signalled,
    Success,
)
from tests.process.effects import Effect
from tests.process.history import Story

from .checker import judge
from .chronicle import Chronicle, Shed
from .deeds import Deed
from .request import CANCELLED_TEXT, KILLED_TEXT, Request
from .schedule import Kind
from .visits import SIGNAL, UNDO

BEGIN_MS = 1_000_000

Part = tuple[Request, Story, list[Effect]]


def part(
    request: Request, steps: Sequence[str], outcome: Any, between: Sequence[Entry] = (), *, at_ms: int = BEGIN_MS
) -> Part:
    """One invocation: its first step, what came in between, its other steps, its outcome; told to its client.

    Args:
        request: What was asked for; the rest of it is filled in.
        steps: Their names.
        outcome: Fields of its result beside tag and executions, or a failure.
        between: What stands behind the first step.
        at_ms: When it was sent.
    """
    tag = request.tag
    executions = [f"{tag}/{step}" for step in steps]
    ended = outcome if isinstance(outcome, Failure) else {"tag": tag, "executions": executions, **outcome}
    runs: list[Entry] = [
        Run(index, step, 0, 1, Success(json.dumps(execution).encode()))
        for index, (step, execution) in enumerate(zip(steps, executions, strict=True))
    ]
    entries: list[Entry] = [Input(0, "w", (), json.dumps({"tag": tag}).encode()), *runs[:1], *between, *runs[1:]]
    entries.append(Output(9, ended if isinstance(ended, Failure) else Success(json.dumps(ended).encode())))
    rows = [Positioned(position, 1, entry) for position, entry in enumerate(entries, 1)]
    effects = [
        Effect(tag, step, 1, execution, f"{tag}:{step}", 7, at_ms + 10 * n, fails=False)
        for n, (step, execution) in enumerate(zip(steps, executions, strict=True), 1)
    ]
    told = f"TerminalError {ended.code}: {ended.message}" if isinstance(ended, Failure) else ended
    if request.awaited:
        request = dataclasses.replace(request, outcome=told, outcome_ms=at_ms + 100)
    request = dataclasses.replace(
        request, invocation_id=tag, ids=(tag,), sent_ms=at_ms, acknowledged_ms=at_ms + 1, tries=1
    )
    return request, Story(tag, "completed", rows), effects


def visit_of(kind: str, tag: str, **more: Any) -> Request:
    """A visit of desk `d` that waits for a signal."""
    return Request(tag, kind, (tag,), key="d", waits="signal", value=f"{tag}/answer", **more)


def chronicle(*parts: Part, deeds: Sequence[Deed] = ()) -> Chronicle:
    """A round of nothing but these."""
    return Chronicle(
        requests=[request for request, _, _ in parts],
        stories=[story for _, story, _ in parts],
        effects=[effect for _, _, effects in parts for effect in effects],
        deeds=deeds,
    )


NEVER_BEGUN = [Positioned(1, 0, Input(0, "w", (), b'{"tag":"n"}')), Positioned(2, 0, Cancelled(1))]
ANSWER = Signalled(SIGNAL, 1, Success(b'"q/answer"'))
ASKED = part(visit_of("asked", "q"), ("enter", "leave"), {"value": "q/answer"}, [ANSWER])
CANCELLED = part(visit_of("cancelled", "c"), ("enter", UNDO), Failure(409, "cancelled"), [Cancelled(1)])
KILLED = part(visit_of("killed", "k"), ("enter",), Failure(409, "killed"))
PAUSED = part(
    dataclasses.replace(visit_of("paused", "p"), value=""),
    ("enter", "leave"),
    {"value": ""},
    [Paused(1, "paused by an operator"), Resumed(2)],
)
UNBEGUN = part(visit_of("cancelled", "n"), (), Failure(409, "cancelled"))
UNBEGUN = (
    UNBEGUN[0],
    Story("n", "completed", [*NEVER_BEGUN, Positioned(3, 0, Output(9, Failure(409, "cancelled")))]),
    [],
)
RUN = part(
    Request("r", "run", ("r",), key="r", value="r/client", promised="r/client"),
    ("enter", "leave"),
    {"value": "r/client"},
)
OFFER = part(Request("r/offer", "offer", ("r/offer",), key="r", value="r/handler"), ("offer",), {"value": ""})


def record(number: int) -> Part:
    """The n-th record of key `x`, at that offset of partition 0."""
    place = {"key": "x", "partition": 0, "offset": number}
    return part(Request(f"f{number}.1", "fed", (f"f{number}.1",), key="x"), ("take",), place)


FED = [record(1), record(2)]
GOOD = [ASKED, CANCELLED, KILLED, PAUSED, UNBEGUN, RUN, OFFER, *FED]


def result_of(story: Story) -> dict[str, Any]:
    """What is recorded at its end."""
    output = story.entries[-1].entry
    assert isinstance(output, Output)
    assert isinstance(output.outcome, Success)
    result: dict[str, Any] = json.loads(output.outcome.value)
    return result


def swapped(old: Part, new: Part) -> Chronicle:
    """The good round with one part in place of another."""
    return chronicle(*(new if each is old else each for each in GOOD))


def with_outcome(old: Part, **changes: Any) -> Chronicle:
    """The good round with another result of one part, in its client's and in Redis's words."""
    request, story, effects = old
    result = result_of(story) | changes
    rows = [*story.entries[:-1], story.entries[-1]._replace(entry=Output(9, Success(json.dumps(result).encode())))]
    told = dataclasses.replace(request, outcome=result if request.awaited else None)
    return swapped(old, (told, replace(story, entries=rows), effects))


def with_request(old: Part, **changes: Any) -> Chronicle:
    """The good round with something else in the client's words."""
    return swapped(old, (dataclasses.replace(old[0], **changes), *old[1:]))


def again_at(old: Part, invocation_id: str) -> Part:
    """The same record as another invocation."""
    request, story, effects = old
    more = [effect._replace(invocation_id=invocation_id, key=f"{invocation_id}:take") for effect in effects]
    return request, replace(story, invocation_id=invocation_id), more


def overtaken() -> Chronicle:
    """The second record's step began before the first one's."""
    return chronicle(*GOOD[:-2], FED[1], FED[0])


def uncompensated() -> Part:
    """It had begun, was cancelled, and undid nothing."""
    return part(visit_of("cancelled", "c"), ("enter",), Failure(409, "cancelled"), [Cancelled(1)])


def paused_because(reason: str) -> Part:
    """It was paused, and resumed, for another reason than that a client wanted it."""
    return part(visit_of("paused", "p"), ("enter", "leave"), {"value": "p/answer"}, [Paused(1, reason), Resumed(2)])


def visited_together() -> Chronicle:
    """One visit's steps are around another one's."""
    good = chronicle(*GOOD)
    first, last = ASKED[2]
    rest = [effect for effect in good.effects if effect not in (first, last)]
    return replace(good, effects=[first, *rest, last])


def test_good_round_is_good() -> None:
    """Nothing is found where nothing is wrong."""
    assert judge(chronicle(*GOOD)) == []


@pytest.mark.parametrize(
    ("planted", "sentence"),
    [
        (lambda: with_outcome(ASKED, value="q/other"), "q was answered 'q/answer', and ended with"),
        (
            lambda: swapped(ASKED, part(visit_of("asked", "q"), ("enter",), Failure(409, "cancelled"), [Cancelled(1)])),
            "q was asked, and ended with 'TerminalError 409: cancelled'",
        ),
        (
            lambda: swapped(CANCELLED, part(visit_of("cancelled", "c"), ("enter", "leave"), {"value": "c/answer"})),
            "c was to be cancelled, and ended with",
        ),
        (
            lambda: swapped(KILLED, part(visit_of("killed", "k"), ("enter",), Failure(500, "killed"))),
            "k was killed, and ended with 'TerminalError 500: killed'",
        ),
        (lambda: swapped(CANCELLED, uncompensated()), "when it had begun, and has undone it 0 times"),
        (
            lambda: swapped(CANCELLED, part(visit_of("cancelled", "c"), ("enter", UNDO), Failure(409, "cancelled"))),
            "c ended as cancelled, and its journal has no cancellation",
        ),
        (
            lambda: swapped(PAUSED, (*PAUSED[:2], [*PAUSED[2], PAUSED[2][0]._replace(step=UNDO, key="u")])),
            "p was undone, and its journal has no cancellation",
        ),
        (lambda: swapped(PAUSED, (PAUSED[0], replace(PAUSED[1], status="paused"), PAUSED[2])), "it ended paused"),
        (
            lambda: swapped(KILLED, (*KILLED[:2], [*KILLED[2], KILLED[2][0]._replace(attempt=3, execution="z")])),
            "k (k): step enter was executed by attempt 3 after attempt 1 recorded it",
        ),
        (lambda: swapped(PAUSED, paused_because("RuntimeError: no")), "p was paused: RuntimeError: no"),
        (lambda: with_request(PAUSED, kind="asked"), "p was paused: paused by an operator"),
        (
            lambda: with_request(ASKED, accepted=[("signal", BEGIN_MS), ("signal", BEGIN_MS + 9)]),
            "q: its signal was taken, and taken again 9 ms later",
        ),
        (visited_together, "d: others worked on it while q held it"),
        (lambda: with_request(RUN, ids=("r", "s")), "r was sent 2 times, and is 2 invocations"),
        (lambda: with_outcome(RUN, value="r/other"), "which nobody offered"),
        (lambda: with_request(RUN, promised="r/handler"), "and its promise holds 'r/handler'"),
        (
            lambda: chronicle(*GOOD[:5], _run("r/handler", accepted=[("promise", BEGIN_MS)]), *GOOD[6:]),
            "r ended with 'r/handler', and 'r/client' was its promise's first",
        ),
        (lambda: with_outcome(OFFER, value="r/handler"), "r ended with 'r/client', and 'r/handler' was its promise's"),
        (
            lambda: chronicle(*GOOD, (RUN[0], replace(RUN[1], invocation_id="s"), [])),
            "r was acknowledged by Kafka and has 2 invocations",
        ),
        (
            lambda: replace(chronicle(*GOOD), stories=[story for _, story, _ in GOOD[:-1]], effects=[]),
            "f2.1, a record of a subscription, was acknowledged by Kafka and Redis does not",
        ),
        (lambda: chronicle(*GOOD, again_at(FED[1], "again")), "the record at (0, 2) is 2 invocations"),
        (overtaken, "records of x in partition 0 were taken in the order of their offsets [2, 1]"),
        (
            lambda: swapped(FED[0], (*FED[0][:2], [*FED[0][2], FED[0][2][0]._replace(execution="z")])),
            "f1.1 (f1.1): step take was executed 2 times by attempt 1",
        ),
    ],
)
def test_planted_violation_is_found(planted: Callable[[], Chronicle], sentence: str) -> None:
    """Each kind of violation is reported by a sentence of its own."""
    assert any(sentence in found for found in judge(planted())), judge(planted())


def _run(value: str, **more: Any) -> Part:
    request = Request("r", "run", ("r",), key="r", value="r/client", promised=value, **more)
    return part(request, ("enter", "leave"), {"value": value})


def test_what_races_may_end_either_way() -> None:
    """What is cancelled or killed and answered at the same time ends with the answer, or as it was told to."""
    answered = part(visit_of("killed", "k", races=True), ("enter", "leave"), {"value": "k/answer"})
    assert judge(swapped(KILLED, answered)) == []
    assert judge(with_request(KILLED, races=True)) == []
    other = part(visit_of("killed", "k", races=True), ("enter", "leave"), {"value": "q/answer"})
    assert judge(swapped(KILLED, other)) != []


def test_steps_of_what_was_killed_need_no_other_cause() -> None:
    """A step that ran when its invocation was killed is in no journal, and nothing else explains it."""
    cut = KILLED[2][0]._replace(step="leave", execution="cut", key="k:leave")
    assert judge(swapped(KILLED, (*KILLED[:2], [*KILLED[2], cut]))) == []
    cut = ASKED[2][0]._replace(step="other", execution="cut", key="q:other")
    assert any("nothing explains it" in found for found in judge(swapped(ASKED, (*ASKED[:2], [*ASKED[2], cut]))))


def test_a_record_may_stand_twice_where_its_producer_repeated_it() -> None:
    """Two records of one try are two invocations; a try that was not acknowledged may have been taken, or not."""
    request, story, effects = again_at(FED[1], "again")
    output = Output(9, Success(json.dumps(result_of(FED[1][1]) | {"offset": 3}).encode()))
    twice = request, replace(story, entries=[*story.entries[:-1], story.entries[-1]._replace(entry=output)]), effects
    good = chronicle(*GOOD, twice)
    assert judge(replace(good, requests=chronicle(*GOOD).requests)) == []
    assert judge(with_request(FED[1], acknowledged_ms=0)) == []
    assert judge(chronicle(*GOOD[:-1], deeds=[])) == []


def test_loss_of_redis_excuses_who_was_told_to_be_first_shortly_before_it() -> None:
    """What completed a promise may be lost, and another value comes to be the first; not long before the loss."""
    parts = [*GOOD[:5], _run("r/handler", accepted=[("promise", BEGIN_MS)]), *GOOD[6:]]
    near, far = (Deed(Kind.REDIS_LOSS, at_ms, at_ms + 9, (), "seen") for at_ms in (BEGIN_MS + 50, BEGIN_MS + 60_000))
    assert judge(chronicle(*parts, deeds=[near])) == []
    assert judge(chronicle(*parts, deeds=[far])) != []


def test_loss_of_redis_excuses_what_was_taken_shortly_before_it() -> None:
    """A client that insists may have to do it again, since what was acknowledged is gone; not long before the loss."""
    good = with_request(CANCELLED, accepted=[("cancel", BEGIN_MS), ("cancel", BEGIN_MS + 3_000)])
    near, far = (Deed(Kind.REDIS_LOSS, at_ms, at_ms + 9, (), "seen") for at_ms in (BEGIN_MS + 50, BEGIN_MS + 60_000))
    assert judge(replace(good, deeds=[near])) == []
    assert judge(replace(good, deeds=[far])) != []


def test_failures_need_no_journal_where_redis_was_full() -> None:
    """What was cancelled or killed counts by its outcome where Redis had to make room for others."""
    good = chronicle(*GOOD, deeds=[Deed(Kind.REDIS_FULL, 0, 1, (), "seen")])
    kept = [story for story in good.stories if story.tag not in ("c", "k")]
    assert judge(replace(good, stories=kept, shed={"c": Shed("c", CANCELLED_TEXT), "k": Shed("k", KILLED_TEXT)})) == []
    other = {"c": Shed("c", CANCELLED_TEXT), "k": Shed("k", CANCELLED_TEXT)}
    assert judge(replace(good, stories=kept, shed=other)) != []


def test_an_attempt_may_begin_between_cancellation_and_compensation() -> None:
    """A worker that dies meanwhile is followed by another one, which replays the cancellation."""
    request, story, effects = CANCELLED
    rows = [*story.entries[:3], Positioned(4, 2, AttemptStarted(0, "w"))]
    rows += [row._replace(position=row.position + 1, epoch=2) for row in story.entries[3:]]
    effects = [effects[0], effects[1]._replace(attempt=2)]
    assert judge(swapped(CANCELLED, (request, replace(story, entries=rows), effects))) == []


def test_a_step_that_a_cancellation_came_before_is_not_executed() -> None:
    """It is recorded as failed with it; in what nobody cancelled no step is."""
    cancelled = Run(0, "enter", 0, 0, Failure(409, "cancelled"))
    for old, good in ((CANCELLED, True), (ASKED, False)):
        request, story, effects = old
        rows = [row._replace(entry=cancelled) if row.position == 2 else row for row in story.entries]
        assert (judge(swapped(old, (request, replace(story, entries=rows), effects[1:]))) == []) is good
