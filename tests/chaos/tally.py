"""What a run came to, counted, and in words. PURE."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from perdure.schemas.entries import AttemptFailed, AttemptStarted, Paused

from .checker import repeats
from .chronicle import Chronicle
from .deeds import Deed
from .request import FED
from .scale import Scale
from .schedule import MEANING

ERRORS_MAX = 12
"""Different errors of failed attempts that a report shows."""


@dataclass
class Tally:
    """What a run came to."""

    rounds: int = 0
    requests: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    pauses: int = 0
    outcomes: int = 0
    invocations: int = 0
    effects: int = 0
    shed: int = 0
    again: int = 0
    repeated: int = 0
    attempts: int = 0
    entries: int = 0
    retries: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    deeds: list[Deed] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    quiet_s_max: float = 0.0
    keys: int = 0
    keys_left: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, chronicle: Chronicle) -> None:
        """Count a round."""
        self.rounds += 1
        self.requests += len(chronicle.requests)
        self.asked.update(request.kind for request in chronicle.requests)
        self.outcomes += sum(request.outcome_ms > 0 for request in chronicle.requests)
        self.ended.update(request.outcome for request in chronicle.requests if isinstance(request.outcome, str))
        self.deeds += chronicle.deeds
        self.retries += sum(max(0, request.tries - len(request.ids)) for request in chronicle.requests)
        self.retries += sum(request.kind == FED and not request.acknowledged_ms for request in chronicle.requests)
        self.pauses += sum(len(story.of_type(Paused)) for story in chronicle.stories)
        self.invocations += len(chronicle.stories) + len(chronicle.shed)
        self.shed += len(chronicle.shed)
        self.again += len(chronicle.again)
        self.effects += len(chronicle.effects)
        self.repeated += repeats(chronicle)
        self.entries += sum(len(story.entries) for story in chronicle.stories)
        self.attempts += sum(1 + len(story.of_type(AttemptStarted)) for story in chronicle.stories)
        for story in chronicle.stories:
            for row in story.entries:
                if isinstance(row.entry, AttemptFailed):
                    self.failures[row.entry.error] += 1

    @property
    def kinds(self) -> Counter[str]:
        """How often each kind of strike was carried out, and seen to have been."""
        return Counter(deed.kind for deed in self.deeds)


def report(tally: Tally, scale: Scale) -> str:
    """All of it, for people."""
    rounds = f"{tally.rounds} rounds of {scale.round_s:g} s from seed {scale.seed} on"
    lines = [
        f"{rounds}, {scale.workers} workers, {scale.rate:g} requests/s",
        f"requests: {tally.requests}, of which {tally.outcomes} were told an outcome; sent again {tally.retries} times",
        f"  {', '.join(f'{count} {kind}' for kind, count in tally.asked.most_common())}",
        f"  told of failures: {dict(tally.ended)}; pauses that took: {tally.pauses}",
        f"invocations: {tally.invocations}, each with one outcome; {tally.attempts} attempts, {tally.entries} entries",
        f"  completed anew after a loss: {tally.again}; journals that Redis, being full, had no room for: {tally.shed}",
        f"executions of steps: {tally.effects}, of which {tally.repeated} are in no journal",
        f"longest time from the last strike until nothing was left to do: {tally.quiet_s_max:.1f} s",
        f"keys with a retention at the end: {tally.keys}; left after it: {tally.keys_left}",
        "strikes carried out and seen:",
        *(f"  {tally.kinds[kind]:4} {kind}: {MEANING[kind]}" for kind in scale.kinds),
        f"strikes that found nobody to hit, or left no trace: {len(tally.missed)}",
        *(f"  {missed}" for missed in tally.missed),
        "attempts that failed, by what is said of them:",
        *(f"  {count:4} {error[:160]}" for error, count in tally.failures.most_common(ERRORS_MAX)),
        f"verdict: {f'{len(tally.violations)} VIOLATIONS' if tally.violations else 'no violation'}",
        *tally.violations[:20],
    ]
    return "\n".join(lines)
