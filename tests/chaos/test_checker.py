"""The judge of a round finds what it is there to find: each test plants one violation in a round that is good."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from perdure.schemas.entries import AttemptStarted, Completion, Entry, Input, Output, Positioned, Run, Sleep, Success
from tests.process.effects import Effect
from tests.process.history import Story

from .checker import judge, repeats
from .chronicle import Again, Balance, Chronicle, Shed
from .deeds import Deed
from .marks import Mark
from .request import Request
from .schedule import Kind

FAR_MS = 1_000_000
"""Longer ago than anything that explains."""


def order(number: int, *, at_ms: int, amount: int = 2) -> tuple[Request, Story, list[Effect]]:
    """The n-th order to account `a`: two steps around a timer of 100 ms, told to its client."""
    tag, steps = f"o{number}", (f"enter{number}", f"leave{number}")
    receipt = {"tag": tag, "executions": list(steps), "place": number, "total": number * amount}
    entries: list[Entry] = [
        Input(0, "w", (), json.dumps({"tag": tag}).encode()),
        Run(0, "enter", 0, 1, Success(json.dumps(steps[0]).encode())),
        Sleep(1, "", 100, 100),
        Completion(1, 200, Success(b"")),
        Run(2, "leave", 0, 1, Success(json.dumps(steps[1]).encode())),
        Output(9, Success(json.dumps(receipt).encode())),
    ]
    request = Request(
        tag,
        "order",
        (tag,),
        {tag: ("a", amount)},
        number,
        invocation_id=tag,
        sent_ms=at_ms,
        acknowledged_ms=at_ms + 1,
        outcome=receipt,
        outcome_ms=at_ms + 300,
    )
    rows = [Positioned(position, 1, entry) for position, entry in enumerate(entries, 1)]
    effects = [
        Effect(tag, name.rstrip("12"), 1, name, f"{tag}:{name}", 7, at_ms + 10 + 150 * n, fails=False)
        for n, name in enumerate(steps)
    ]
    return request, Story(tag, "completed", rows), effects


FIRST, SECOND = order(1, at_ms=FAR_MS), order(2, at_ms=FAR_MS + 1_000)
GOOD = Chronicle(
    requests=[FIRST[0], SECOND[0]],
    stories=[FIRST[1], SECOND[1]],
    effects=[*FIRST[2], *SECOND[2]],
    before={"a": Balance(0, 0)},
    after={"a": Balance(2, 4)},
)
EXTRA = SECOND[2][1]._replace(execution="again")


def told(**changes: object) -> Chronicle:
    """The good round, with another outcome in the client's and in Redis's words."""
    receipt = SECOND[0].outcome | changes
    rows = [*SECOND[1].entries[:-1], Positioned(6, 1, Output(9, Success(json.dumps(receipt).encode())))]
    request = dataclasses.replace(SECOND[0], outcome=receipt)
    return replace(GOOD, requests=[FIRST[0], request], stories=[FIRST[1], replace(SECOND[1], entries=rows)])


def request_with(**changes: object) -> Chronicle:
    """The good round, with another second request."""
    return replace(GOOD, requests=[FIRST[0], dataclasses.replace(SECOND[0], **changes)])  # type: ignore[arg-type]  # any field


def crossed() -> Chronicle:
    """The second order's first step came between the two of the first one."""
    (a, b), (c, d) = FIRST[2], SECOND[2]
    return replace(GOOD, effects=[a, c, b, d])


def swapped() -> Chronicle:
    """The first order came to be the second addition."""
    requests = [dataclasses.replace(FIRST[0], number=2), dataclasses.replace(SECOND[0], number=1)]
    return replace(GOOD, requests=requests)


def early_timer() -> Chronicle:
    """The step after the timer began 99 ms after the one before it, minus the clocks' grain."""
    last = SECOND[2][1]
    return replace(GOOD, effects=[*FIRST[2], SECOND[2][0], last._replace(at_ms=SECOND[2][0].at_ms + 98)])


def test_good_round_is_good() -> None:
    """Nothing is found where nothing is wrong."""
    assert judge(GOOD) == []
    assert repeats(GOOD) == 0


@pytest.mark.parametrize(
    ("planted", "sentence"),
    [
        (lambda: replace(GOOD, stories=[FIRST[1]], effects=FIRST[2]), "o2 was acknowledged by Kafka and Redis does"),
        (lambda: replace(GOOD, stories=[*GOOD.stories, replace(SECOND[1], invocation_id="x")]), "has 2 invocations"),
        (lambda: request_with(acknowledged_ms=0), "o2 was never acknowledged"),
        (lambda: request_with(outcome_ms=0), "nobody was told the outcome of o2"),
        (lambda: request_with(outcome={"tag": "o2"}), "o2: a client was told {'tag': 'o2'}, and"),
        (lambda: told(place=1), "additions have the places [1, 1] after 0"),
        (lambda: told(total=2), "after o2, addition 2, it held 2 and not 4"),
        (lambda: replace(GOOD, after={"a": Balance(2, 6)}), "a holds Balance(additions=2, total=6)"),
        (swapped, "orders were done in the order [2, 1]"),
        (crossed, "others worked on it while o1 held it"),
        (lambda: replace(GOOD, effects=[*GOOD.effects, EXTRA]), "step leave was executed 2 times by attempt 1"),
        (
            lambda: replace(GOOD, effects=[*GOOD.effects, EXTRA]),
            "executed as again, not recorded, and nothing explains",
        ),
        (early_timer, "its timer of 100 ms had fired after 98 ms"),
        (lambda: request_with(not_before_ms=SECOND[2][0].at_ms + 5), "o2 began 5 ms before its time"),
        (lambda: replace(GOOD, again=[Again("o2", FAR_MS, FAR_MS + 9)]), "o2 was completed again, 9 ms after"),
        (
            lambda: replace(GOOD, shed={"x": Shed("o2", SECOND[0].outcome)}),
            "journals are gone before their retention has passed",
        ),
        (lambda: replace(GOOD, left=["lease:o2"]), "left behind: lease:o2"),
        (lambda: replace(GOOD, ends=["w1 ended by itself with 1"]), "w1 ended by itself"),
        (lambda: replace(GOOD, dead_letters=1), "1 records went to the dead letters"),
        (lambda: replace(GOOD, effects=[*GOOD.effects, EXTRA._replace(invocation_id="x")]), "Redis does not know it"),
    ],
)
def test_planted_violation_is_found(planted: Callable[[], Chronicle], sentence: str) -> None:
    """Each kind of violation is reported by a sentence of its own."""
    assert any(sentence in found for found in judge(planted())), judge(planted())


def deed(kind: Kind, *, at_ms: int, pids: tuple[int, ...] = ()) -> Deed:
    """Something that was done, for a second."""
    return Deed(kind, at_ms, at_ms + 1_000, pids, "seen")


@pytest.mark.parametrize(
    ("deeds", "marks", "explained"),
    [
        ([deed(Kind.KILL, at_ms=EXTRA.at_ms + 50, pids=(7,))], [], True),
        ([deed(Kind.REDIS_CUT, at_ms=EXTRA.at_ms - 500)], [], True),
        ([], [Mark("stalled", 7, EXTRA.at_ms - 10, EXTRA.at_ms + 2_000)], True),
        ([], [Mark("stalled", 0, EXTRA.at_ms - 10, EXTRA.at_ms + 2_000)], True),
        ([deed(Kind.KILL, at_ms=EXTRA.at_ms + 50, pids=(8,))], [], False),
        ([deed(Kind.KILL, at_ms=EXTRA.at_ms + FAR_MS, pids=(7,))], [], False),
        ([], [Mark("clock", 7, EXTRA.at_ms, EXTRA.at_ms)], False),
    ],
)
def test_repeat_is_explained_by_what_was_done_to_its_worker(
    deeds: list[Deed], marks: list[Mark], explained: bool
) -> None:
    """An execution that is in no journal has a cause near it: of its own worker, or of all."""
    second = replace(SECOND[1], entries=[*SECOND[1].entries[:-2], *_next_attempt(SECOND[1])])
    effects = [*FIRST[2], SECOND[2][0], EXTRA, SECOND[2][1]._replace(attempt=2)]
    chronicle = replace(GOOD, stories=[FIRST[1], second], effects=effects, deeds=deeds, marks=marks)
    assert repeats(chronicle) == 1
    assert (judge(chronicle) == []) is explained, judge(chronicle)


def _next_attempt(story: Story) -> list[Positioned]:
    leave, output = story.entries[-2:]
    return [
        Positioned(5, 2, AttemptStarted(0, "w")),
        leave._replace(position=6, epoch=2),
        output._replace(position=7, epoch=2),
    ]


def test_loss_of_redis_excuses_what_was_told_shortly_before_it_and_nothing_else() -> None:
    """An outcome that a client had may be made anew after a loss; one from long before it may not."""
    other = request_with(outcome={"tag": "o2"})
    near, far = (deed(Kind.REDIS_LOSS, at_ms=SECOND[0].outcome_ms + gap_ms) for gap_ms in (50, 60_000))
    assert judge(replace(other, deeds=[near])) == []
    assert len(judge(replace(other, deeds=[far]))) == 1


def test_death_of_redis_excuses_what_was_told_just_before_it_and_nothing_else() -> None:
    """What Redis had not given to its file yet, because a sync was running, is lost with its process."""
    other = request_with(outcome={"tag": "o2"})
    near, far = (deed(Kind.REDIS_KILL, at_ms=SECOND[0].outcome_ms + gap_ms) for gap_ms in (50, 4_000))
    assert judge(replace(other, deeds=[near])) == []
    assert len(judge(replace(other, deeds=[far]))) == 1


def test_loss_of_redis_excuses_repeated_steps_near_it_and_nothing_else() -> None:
    """A step that was recorded runs again only where its entry may have been lost."""
    again = replace(GOOD, effects=[*GOOD.effects, EXTRA])
    near, far = (deed(Kind.REDIS_LOSS, at_ms=EXTRA.at_ms + gap_ms) for gap_ms in (50, 60_000))
    assert judge(replace(again, deeds=[near])) == []
    assert judge(replace(again, deeds=[far])) != []


def test_journals_may_go_where_redis_was_full() -> None:
    """An outcome without a journal counts as any other one where Redis had to make room, and nothing less holds."""
    shed = replace(
        GOOD, stories=[FIRST[1]], shed={"o2": Shed("o2", SECOND[0].outcome)}, deeds=[deed(Kind.REDIS_FULL, at_ms=0)]
    )
    assert judge(shed) == []
    assert judge(replace(shed, after={"a": Balance(2, 5)})) == [
        "a holds Balance(additions=2, total=5) and not Balance(additions=2, total=4)"
    ]
    twice = replace(shed, effects=[*shed.effects, EXTRA])
    assert any("nothing explains it" in found for found in judge(twice))


def test_order_may_break_once_where_a_topic_grew() -> None:
    """Records of a key that went to a new partition may overtake those before; all others are in order."""
    assert judge(replace(swapped(), deeds=[deed(Kind.PARTITIONS, at_ms=0)])) == []


def test_balances_go_on_from_the_round_before() -> None:
    """A round begins with what accounts held."""
    late = replace(GOOD, before={"a": Balance(5, 50)}, after={"a": Balance(7, 54)})
    assert judge(late) != [], "its receipts count from 0"
