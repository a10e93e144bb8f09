"""What must be true of the history that a test leaves behind, whatever was killed meanwhile. PURE.

Each check yields a sentence for each violation. Ordering is told by epochs and positions, never by comparing clocks of
different processes: an attempt with a higher epoch has read everything that was recorded under lower ones.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from perdure.schemas.entries import (
    AttemptStarted,
    Completion,
    Failure,
    Input,
    Output,
    Positioned,
    Run,
    Sleep,
    Success,
)

from .effects import Effect


@dataclass(frozen=True)
class Story:
    """One invocation as Redis holds it at the end."""

    invocation_id: str
    status: str
    entries: Sequence[Positioned]

    @property
    def tag(self) -> str:
        """Of the record that it came from."""
        first = self.entries[0].entry
        assert isinstance(first, Input), "a journal begins with its input"
        tag: str = json.loads(first.value)["tag"]
        return tag

    def of_type(self, kind: type) -> list[Positioned]:
        """The entries of one type, in order."""
        return [row for row in self.entries if isinstance(row.entry, kind)]


@dataclass(frozen=True)
class History:
    """Everything that is known at the end of a test.

    Attributes:
        acknowledged: Tags of the records that Kafka acknowledged.
        stories: Every invocation in Redis.
        effects: Every execution of a step.
        paused: Tags that are to end paused, and not completed.
        ended: Tags that may end with a failure, wherever they stood, because somebody wanted them to.
        epochs_kept: False where Redis lost writes: an epoch may then have been given out twice.
        clocks_true: False where clocks of workers are wrong: what they wrote beside a timer says nothing then.
    """

    acknowledged: Sequence[str]
    stories: Sequence[Story]
    effects: Sequence[Effect]
    paused: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    epochs_kept: bool = True
    clocks_true: bool = True


def violations(history: History) -> list[str]:
    """Everything that is wrong, in sentences; empty where all guarantees held."""
    effects: dict[str, list[Effect]] = defaultdict(list)
    for effect in history.effects:
        effects[effect.invocation_id].append(effect)
    found = list(_admissions(history))
    found += _strays(history, effects)
    for story in history.stories:
        mine = effects[story.invocation_id]
        ended = story.tag in history.ended
        timers = _timers(story, clocks_true=history.clocks_true, ended=ended)
        checks: list[Iterable[str]] = [_order(story), timers, _keys(mine)]
        if story.tag in history.paused:
            checks.append(_pause(story))
        else:
            checks += [_outcome(story), _results(story, mine, ended=ended)]
        if history.epochs_kept:
            checks.append(_executions(story, mine))
        found += [f"{story.tag} ({story.invocation_id}): {sentence}" for check in checks for sentence in check]
    return found


def _admissions(history: History) -> Iterator[str]:
    admitted = Counter(story.tag for story in history.stories)
    for tag in history.acknowledged:
        if admitted[tag] != 1:
            yield f"{tag} was acknowledged by Kafka and has {admitted[tag]} invocations"
    for tag, count in admitted.items():
        if count > 1 and tag not in history.acknowledged:
            yield f"{tag} has {count} invocations"


def _strays(history: History, effects: Mapping[str, Sequence[Effect]]) -> Iterator[str]:
    for invocation_id in effects.keys() - {story.invocation_id for story in history.stories}:
        yield f"steps of {invocation_id} were executed, and Redis does not know it"


def _order(story: Story) -> Iterator[str]:
    positions = [row.position for row in story.entries]
    if positions != list(range(1, len(positions) + 1)):
        yield f"positions are not dense: {positions}"
    for before, after in pairwise(story.entries):
        if after.epoch < before.epoch:
            yield f"position {after.position} was written under epoch {after.epoch}, after epoch {before.epoch} began"
        if isinstance(after.entry, AttemptStarted) and after.epoch != before.epoch + 1:
            yield f"position {after.position} begins epoch {after.epoch} after epoch {before.epoch}"
        if after.epoch > before.epoch and not isinstance(after.entry, AttemptStarted):
            yield f"position {after.position} is of epoch {after.epoch}, which nobody began"


def _outcome(story: Story) -> Iterator[str]:
    outputs = story.of_type(Output)
    if story.status != "completed":
        yield f"it ended {story.status} after {[type(row.entry).__name__ for row in story.entries[-3:]]}"
    if len(outputs) != 1 or outputs != list(story.entries[-1:]):
        yield f"its outcomes stand at {[row.position for row in outputs]} of {len(story.entries)}"


def _pause(story: Story) -> Iterator[str]:
    if story.status != "paused":
        yield f"it ended {story.status} and not paused"


def _results(story: Story, effects: Sequence[Effect], *, ended: bool) -> Iterator[str]:
    """The handler saw what the journal holds, and the journal holds what was executed."""
    runs = [row.entry for row in story.entries if isinstance(row.entry, Run)]
    # A step that a cancellation came before is recorded as failed with it, and is not executed.
    done = [run for run in runs if not (ended and isinstance(run.outcome, Failure))]
    recorded = [_value(run.outcome) for run in sorted(done, key=lambda run: run.command_index)]
    executed = [effect.execution for effect in effects]
    for run, value in zip(sorted(done, key=lambda run: run.command_index), recorded, strict=True):
        if value not in executed:
            yield f"step {run.name} is recorded as {value!r}, which was never executed"
    for name, count in Counter(run.command_index for run in runs).items():
        if count > 1:
            yield f"command {name} is recorded {count} times"
    for row in story.of_type(Output):
        assert isinstance(row.entry, Output), "of_type filters"
        seen = _value(row.entry.outcome)
        if ended and isinstance(seen, Failure):
            continue
        if not isinstance(seen, dict) or seen.get("tag") != story.tag or seen.get("executions") != recorded:
            yield f"its outcome {seen!r} is not what its journal holds: {recorded}"


def _executions(story: Story, effects: Sequence[Effect]) -> Iterator[str]:
    """Once recorded, never executed again; once an attempt; once more only after a failure on purpose."""
    recorded = {row.entry.name: row.epoch for row in story.entries if isinstance(row.entry, Run)}
    for effect in effects:
        epoch = recorded.get(effect.step)
        if epoch is not None and effect.attempt > epoch:
            yield f"step {effect.step} was executed by attempt {effect.attempt} after attempt {epoch} recorded it"
    good = Counter((effect.step, effect.attempt) for effect in effects if not effect.fails)
    for (step, attempt), count in good.items():
        if count > 1:
            yield f"step {step} was executed {count} times by attempt {attempt}"
    begun = {row.epoch for row in story.entries}
    for attempt in {effect.attempt for effect in effects} - begun:
        yield f"attempt {attempt} executed steps and never began"


def _keys(effects: Sequence[Effect]) -> Iterator[str]:
    keys: dict[str, set[str]] = defaultdict(set)
    for effect in effects:
        keys[effect.step].add(effect.key)
    for step, values in keys.items():
        if len(values) > 1:
            yield f"step {step} was executed under several idempotency keys: {sorted(values)}"
    for key, count in Counter(key for values in keys.values() for key in values).items():
        if count > 1:
            yield f"{count} steps share the idempotency key {key}"


def _timers(story: Story, *, clocks_true: bool, ended: bool) -> Iterator[str]:
    fired = Counter(row.entry.command_index for row in story.entries if isinstance(row.entry, Completion))
    completions = {row.entry.command_index: row for row in story.entries if isinstance(row.entry, Completion)}
    for row in story.of_type(Sleep):
        assert isinstance(row.entry, Sleep), "of_type filters"
        sleep, completion = row.entry, completions.get(row.entry.command_index)
        if fired[sleep.command_index] > 1:
            yield f"the timer of command {sleep.command_index} fired {fired[sleep.command_index]} times"
        if completion is None:
            if story.status == "completed" and not ended:
                yield f"it completed without the timer of command {sleep.command_index}"
            continue
        assert isinstance(completion.entry, Completion), "of_type filters"
        early_ms = sleep.at_ms + sleep.duration_ms - completion.entry.at_ms
        if completion.position < row.position or (clocks_true and early_ms > 0):
            yield f"the timer of command {sleep.command_index} fired {early_ms} ms early"


def _value(outcome: object) -> Any:
    if not isinstance(outcome, Success):
        return outcome
    return json.loads(outcome.value) if outcome.value else None
