"""The demo's judgement: the real story passes, and every way in which it could be untrue is named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from examples.demo_evidence import Evidence, Worker, problems
from examples.ledger import Effect
from examples.subscriptions import AddRequest
from perdure.schemas.entries import AttemptFailed, AttemptStarted, Entry, Input, Output, Positioned, Run, Success

KILLED = Worker("w-0", 100)
OTHER = Worker("w-1", 101)
REQUEST = AddRequest(user_id="u", credit_card="1", subscriptions=["news"], refusals={"news": 1})
RESULT = b'{"payment":"ref","subscriptions":["news"]}'

PAID = Positioned(2, 1, Run(0, "recurring payment", 0, 1, Success(b'"ref"')))
ADDED = Positioned(5, 2, Run(1, "subscription news", 0, 1, Success(b'"news"')))
BEGUN = Positioned(4, 2, AttemptStarted(0, OTHER.name))
JOURNAL = (
    Positioned(1, 1, Input(0, KILLED.name, (), b"{}")),
    PAID,
    Positioned(3, 1, AttemptFailed(0, "the lease ended", "", "", 0)),
    BEGUN,
    ADDED,
    Positioned(6, 2, Output(0, Success(RESULT))),
)


def effect(name: str, worker: Worker, *, done: bool = True) -> Effect:
    """One execution."""
    return Effect("inv", name, name, done, worker.pid)


EFFECTS = (
    effect("charge", KILLED),
    effect("subscribe news", KILLED, done=False),
    effect("subscribe news", OTHER),
)


def story(journal: Sequence[Positioned] = JOURNAL, effects: Sequence[Effect] = EFFECTS) -> Evidence:
    """The evidence of a story that went well, but for what is handed in."""
    return Evidence("inv", REQUEST, KILLED, journal, effects)


def replaced(old: Positioned, *new: Entry) -> tuple[Positioned, ...]:
    """The journal with other entries in the place of one."""
    at = JOURNAL.index(old)
    return (*JOURNAL[:at], *(Positioned(old.position, old.epoch, entry) for entry in new), *JOURNAL[at + 1 :])


def test_what_really_happened_is_no_problem() -> None:
    """The story as it should be."""
    assert problems(story()) == []


def test_a_step_cut_by_the_kill_may_be_done_again() -> None:
    """One execution before the kill that was not recorded, and one after it, are within the guarantee."""
    assert problems(story(effects=(*EFFECTS, effect("subscribe news", KILLED)))) == []


PLANTED = [
    (story(effects=(*EFFECTS, effect("charge", KILLED))), "charged 2 times"),
    (story(effects=EFFECTS[1:]), "charged 0 times"),
    (story(effects=(effect("charge", OTHER), *EFFECTS[1:])), "Process 101 charged"),
    (story(effects=(*EFFECTS, effect("subscribe news", OTHER))), "2 times after it"),
    (story(effects=EFFECTS[:2]), "0 times after it"),
    (story(effects=(*EFFECTS, effect("subscribe news", OTHER, done=False))), "refused 2 times"),
    (story(replaced(BEGUN)), "no second attempt"),
    (story(replaced(BEGUN, AttemptStarted(0, KILLED.name))), "ran on the dead worker"),
    (story(replaced(PAID)), "not recorded by the first attempt"),
    (story(replaced(ADDED, ADDED.entry, ADDED.entry)), "stands 2 times"),
    (story(JOURNAL[:-1]), "no successful outcome"),
    (story(replaced(PAID, Run(0, "recurring payment", 0, 1, Success(b'"other"')))), "not the recorded one"),
]


@pytest.mark.parametrize(("evidence", "said"), PLANTED, ids=[said for _, said in PLANTED])
def test_a_planted_untruth_is_named(evidence: Evidence, said: str) -> None:
    """Each check finds what was planted for it."""
    assert any(said in problem for problem in problems(evidence))
