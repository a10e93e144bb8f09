"""Rounds of random programs on worker processes that are killed meanwhile: for the tests, and for `soak`."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .random_fleet import fleet_settings, random_fleet
from .random_programs import Plan, make_plan
from .random_trial import trial

PROCESSES = 3

STALL_S = 90.0
"""Without any progress for so long something is stuck. What a worker owed that was killed at the wrong instant is done
by others after some ten seconds (`redis_scripts.REPLY_LEASE_MS`, `ready` in `prelude.lua`); a consumer whose group
assigns it nothing is replaced after a minute (`kafka_config.stuck_after_ms`)."""


@dataclass(frozen=True)
class Round:
    """What happens in one round.

    Attributes:
        seed: Of the programs and of what befalls the workers.
        plans: What runs.
        hits: How many workers are killed, ended or frozen, each after one of the plans.
        always_replay: Whether attempts leave after each result.
    """

    seed: int
    plans: tuple[Plan, ...]
    hits: int = 0
    always_replay: bool = False


@dataclass
class Tally:
    """What rounds did."""

    rounds: int = 0
    programs: int = 0
    invocations: int = 0
    counters: int = 0
    steps: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    stalled_s_max: float = 0.0
    stalled_with: str = ""

    def __str__(self) -> str:
        """In one line."""
        hits = ", ".join(f"{how} {count}" for how, count in sorted(self.hits.items())) or "none"
        return (
            f"{self.rounds} rounds, {self.programs} programs, {self.invocations} invocations, {self.steps} steps, "
            f"{self.counters} counters checked; workers hit: {hits}; longest time without progress "
            f"{self.stalled_s_max:.1f} s ({self.stalled_with or 'nothing admitted'})"
        )


@dataclass(frozen=True)
class Place:
    """Where rounds run: servers, and a directory for logs and traces."""

    redis_url: str
    bootstrap_servers: str
    directory: Path


def make_round(seed: int, *, plans: int = 6, hits: int | None = None, always_replay: bool | None = None) -> Round:
    """The round of a seed; what is not given is left to it."""
    chance = random.Random(seed)
    chosen_hits, chosen_replay = chance.randint(0, 5), chance.random() < 0.5
    return Round(
        seed,
        tuple(make_plan(seed + number) for number in range(plans)),
        chosen_hits if hits is None else hits,
        chosen_replay if always_replay is None else always_replay,
    )


async def run_round(wanted: Round, place: Place, *, namespace: str, tally: Tally) -> None:
    """Run the plans of a round, and compare what came of them with the model.

    Raises:
        AssertionError: Something differs, or is stuck.
    """
    directory = place.directory / namespace
    directory.mkdir(parents=True)
    settings = fleet_settings(place.redis_url, place.bootstrap_servers, namespace, always_replay=wanted.always_replay)
    if not wanted.hits:
        # A machine that stands still for a moment must not look like a worker that died.
        settings = settings.model_copy(update={"lease_s": 20.0})
    chance = random.Random(wanted.seed)
    async with (
        random_fleet(settings, processes=PROCESSES, chance=chance, directory=directory) as fleet,
        trial(settings, directory=directory) as made,
    ):
        await fleet.ready()
        try:
            for number, plan in enumerate(wanted.plans):
                await made.submit(plan)
                if number < wanted.hits:
                    await fleet.hit()
            await made.drained(patience_s=STALL_S)
        finally:
            tally.hits += fleet.hits
            if made.stalled_s_max > tally.stalled_s_max:
                tally.stalled_s_max, tally.stalled_with = made.stalled_s_max, made.stalled_with
        await made.check(undisturbed=not wanted.hits)
    tally.rounds += 1
    tally.programs += sum(len(plan.roots) for plan in wanted.plans)
    tally.invocations += made.prediction.invocations.total()
    tally.counters += len(made.prediction.counters)
    tally.steps += made.prediction.steps
