"""The checker of histories finds what it is there to find: each test plants one violation in a history that is good."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from perdure.schemas.entries import (
    AttemptFailed,
    AttemptStarted,
    Completion,
    Entry,
    Input,
    Output,
    Positioned,
    Run,
    Sleep,
    Success,
)

from .effects import Effect
from .history import History, Story, violations

INVOCATION = "inv_000000000000000000000000000"


def story(*rows: tuple[int, Entry], status: str = "completed") -> Story:
    """A story whose positions are dense."""
    entries = [Positioned(position, epoch, entry) for position, (epoch, entry) in enumerate(rows, 1)]
    return Story(INVOCATION, status, entries)


def effect(step: str, attempt: int, execution: str, *, fails: bool = False) -> Effect:
    """One execution, under the key that its step always has."""
    return Effect(INVOCATION, step, attempt, execution, f"{INVOCATION}:{step}", 1, 0, fails)


def run(index: int, execution: str) -> Run:
    """A step's entry; the step is called after its index."""
    return Run(index, f"s{index}", 0, 1, Success(json.dumps(execution).encode()))


def output(*executions: str) -> Output:
    """The outcome that reports these executions."""
    return Output(9, Success(json.dumps({"tag": "t", "executions": executions}).encode()))


INPUT = Input(0, "w", (), b'{"tag":"t"}')
ROWS: list[tuple[int, Entry]] = [
    (1, INPUT),
    (1, run(0, "a")),
    (1, Sleep(1, "", 100, 50)),
    (1, AttemptFailed(120, "killed", "", "", 0)),
    (2, AttemptStarted(130, "w")),
    (2, Completion(1, 150, Success(b""))),
    (2, run(2, "c")),
    (2, output("a", "c")),
]
# The first attempt was killed between the effect of s2 and its entry: that may be.
EFFECTS = [effect("s0", 1, "a"), effect("s2", 1, "b"), effect("s2", 2, "c")]
GOOD = History(["t"], [story(*ROWS)], EFFECTS)


def rows_with(index: int, row: tuple[int, Entry]) -> History:
    """The good history with one row of the journal replaced."""
    return replace(GOOD, stories=[story(*ROWS[:index], row, *ROWS[index + 1 :])])


def plus(*more: Effect) -> History:
    """The good history with more executions."""
    return replace(GOOD, effects=[*EFFECTS, *more])


def test_good_history_has_no_violations() -> None:
    """A crash between effect and entry repeats the effect, and that is allowed."""
    assert violations(GOOD) == []


@pytest.mark.parametrize(
    ("planted", "sentence"),
    [
        (lambda: replace(GOOD, acknowledged=["t", "u"]), "u was acknowledged by Kafka and has 0 invocations"),
        (lambda: replace(GOOD, stories=[*GOOD.stories, *GOOD.stories]), "has 2 invocations"),
        (lambda: replace(GOOD, stories=[], acknowledged=[]), "Redis does not know it"),
        (lambda: replace(GOOD, stories=[story(*ROWS, status="running")]), "ended running"),
        (lambda: replace(GOOD, stories=[story(*ROWS[:-1])]), "its outcomes stand at []"),
        (lambda: replace(GOOD, stories=[story(*ROWS, ROWS[-1])]), "its outcomes stand at [8, 9]"),
        (lambda: replace(GOOD, stories=[Story(INVOCATION, "completed", story(*ROWS).entries[::2])]), "not dense"),
        (lambda: rows_with(6, (1, run(2, "c"))), "written under epoch 1, after epoch 2 began"),
        (lambda: rows_with(4, (3, AttemptStarted(130, "w"))), "begins epoch 3 after epoch 1"),
        (lambda: rows_with(4, (2, run(3, "d"))), "of epoch 2, which nobody began"),
        (lambda: rows_with(5, (2, Completion(1, 149, Success(b"")))), "fired 1 ms early"),
        (lambda: rows_with(5, (2, run(1, "c"))), "completed without the timer"),
        (lambda: rows_with(6, (2, Completion(1, 160, Success(b"")))), "fired 2 times"),
        (lambda: rows_with(6, (2, run(2, "never"))), "which was never executed"),
        (lambda: rows_with(6, (2, run(0, "c"))), "command 0 is recorded 2 times"),
        (lambda: rows_with(7, (2, output("a", "b"))), "is not what its journal holds"),
        (lambda: plus(effect("s0", 2, "d")), "executed by attempt 2 after attempt 1 recorded it"),
        (lambda: plus(effect("s2", 2, "d")), "step s2 was executed 2 times by attempt 2"),
        (lambda: plus(effect("s2", 7, "d")), "attempt 7 executed steps and never began"),
        (lambda: plus(effect("s9", 2, "d")._replace(key=f"{INVOCATION}:s0")), "2 steps share the idempotency key"),
        (lambda: plus(effect("s2", 1, "d")._replace(key="another")), "under several idempotency keys"),
        (lambda: replace(GOOD, paused=frozenset("t")), "ended completed and not paused"),
    ],
)
def test_planted_violation_is_found(planted: Callable[[], History], sentence: str) -> None:
    """Each kind of violation is reported by a sentence of its own."""
    assert any(sentence in found for found in violations(planted())), violations(planted())


def test_failure_on_purpose_may_be_executed_again_by_the_same_attempt() -> None:
    """A step that failed is tried again within its attempt."""
    history = replace(GOOD, effects=[effect("s2", 2, "x", fails=True), *EFFECTS])
    assert violations(history) == []


def test_repeated_epochs_are_let_pass_where_redis_lost_writes() -> None:
    """A lost claim gives the same epoch to another attempt; all else still holds."""
    history = plus(effect("s0", 2, "d"))
    assert violations(replace(history, epochs_kept=False)) == []
