"""A chronicle, and what its judges look up in it again and again. PURE."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cached_property
from typing import Any, Final

from perdure.schemas.entries import Output, Run, Success
from tests.process.effects import Effect
from tests.process.history import Story

from .chronicle import Chronicle
from .request import KILLED_TEXT, failure_text
from .schedule import Kind

LOSS_MS: Final = 10_000
"""How old a write may be that is lost: the barrier passes about once a second while anything is admitted, and the
append-only file is synced once a second. Five times that is a loss that nothing allows."""

POSTPONED_MS: Final = 3_000
"""Likewise where Redis was killed and its file left alone: while a sync runs, what Redis has acknowledged waits in its
memory for up to two seconds, and then is written whether or not the sync has ended.

Source: `flushAppendOnlyFile` of Redis and Valkey, with everysec.
"""

LATE_MS: Final = 6_000
"""How late somebody is told of a write: connections are black for five seconds at most."""

_LOST_MS: Final = {Kind.REDIS_LOSS: LOSS_MS, Kind.REDIS_KILL: POSTPONED_MS}


class Case:
    """A chronicle, and what is looked up in it.

    Attributes:
        outcomes: What is recorded at the end of each invocation, by its tag.
        ids: Of the invocations, by their tags.
        tags: Of the invocations, by their ids.
        requests: Of which each of them came, by its tag.
        effects: Of each of them, by its id.
    """

    def __init__(self, chronicle: Chronicle) -> None:
        self.chronicle = chronicle
        self.outcomes = {story.tag: outcome_of(story) for story in chronicle.stories}
        self.ids = {story.tag: story.invocation_id for story in chronicle.stories}
        self.tags = {story.invocation_id: story.tag for story in chronicle.stories}
        for invocation_id, (tag, outcome) in chronicle.shed.items():
            self.outcomes[tag] = outcome
            self.ids[tag] = invocation_id
            self.tags[invocation_id] = tag
        self.requests = {tag: request for request in chronicle.requests for tag in request.tags}
        self.losses = [
            (deed.begin_ms - _LOST_MS[deed.kind], deed.end_ms) for deed in chronicle.deeds if deed.kind in _LOST_MS
        ]
        self.effects: dict[str, list[Effect]] = defaultdict(list)
        for effect in chronicle.effects:
            self.effects[effect.invocation_id].append(effect)

    @cached_property
    def recorded(self) -> set[str]:
        """The executions that journals hold, or held as their outcomes tell."""
        found = {value for story in self.chronicle.stories for value in recorded_by(story)}
        told = (outcome for _, outcome in self.chronicle.shed.values() if isinstance(outcome, dict))
        return found.union(*(outcome["executions"] for outcome in told))

    def lost_around(self, begin_ms: int, end_ms: int) -> bool:
        """Whether something of that time may have been lost."""
        return any(lost_ms <= end_ms and begin_ms <= back_ms for lost_ms, back_ms in self.losses)

    def kind_of(self, story: Story) -> str:
        """Of the request that it came of; empty where there is none."""
        request = self.requests.get(story.tag)
        return "" if request is None else request.kind

    def cut_off(self, effect: Effect) -> bool:
        """Whether a step ran in what was killed, whose steps nobody waits for; or has left no journal to look into."""
        invocation_id = effect.invocation_id
        outcome = self.outcomes.get(self.tags.get(invocation_id, ""))
        return outcome == KILLED_TEXT or (invocation_id in self.chronicle.shed and isinstance(outcome, str))

    def touched_by_loss(self, story: Story) -> bool:
        """Whether Redis may have lost something of an invocation."""
        times = [effect.at_ms for effect in self.effects[story.invocation_id]]
        request = self.requests.get(story.tag)
        if request is not None:
            times.append(request.sent_ms)
        return not times or self.lost_around(min(times), max(times))


def outcome_of(story: Story) -> Any:
    """What is recorded at the end; a failure as clients write it down."""
    for row in story.entries:
        if isinstance(row.entry, Output):
            outcome = row.entry.outcome
            if isinstance(outcome, Success):
                return json.loads(outcome.value)
            return failure_text(outcome.code, outcome.message)
    return None


def recorded_by(story: Story) -> list[str]:
    """The executions that its entries hold."""
    found = []
    for row in story.entries:
        if isinstance(row.entry, Run) and isinstance(row.entry.outcome, Success):
            value = json.loads(row.entry.outcome.value)
            if isinstance(value, str):
                found.append(value)
    return found
