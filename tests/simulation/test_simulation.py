"""The simulator: the engine keeps its guarantees over many schedules, a seed says all, and planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from .plants import PLANTS
from .schedules import Event, Kind, Request, Schedule, generate
from .shrinking import shrink
from .simulation import Report, simulate

SEEDS = 200
"""Of the suite; `make simulate SEEDS=…` takes any number."""

CALM: tuple[Kind, ...] = ("rebalance",)

DEPLOYED: tuple[Kind, ...] = ("deploy",)

FOUND_WITHIN: dict[str, tuple[int, tuple[Kind, ...]]] = {
    "no fencing": (150, ("freeze",)),
    "offset committed early": (100, ("crash", "blackout")),
    "outbox removed early": (150, ("crash",)),
    "timer popped not leased": (250, ("crash",)),
    "completion not first-wins": (40, CALM),
    "caller not told": (20, CALM),
    "lock released twice": (20, CALM),
    "timer early": (20, CALM),
    "completed twice": (40, CALM),
    "promise not looked at": (150, ("failover",)),
    "object freed at once": (100, CALM),
    "commands not compared": (50, DEPLOYED),
    "only types compared": (50, DEPLOYED),
}
"""By which seed each plant is found, among schedules in which only that happens."""


@pytest.mark.parametrize("part", range(5))
def test_the_guarantees_hold_in_every_schedule(part: int) -> None:
    """What clients ask ends once, in order and exactly as it should, whatever goes wrong meanwhile."""
    for seed in range(part, SEEDS, 5):
        report = simulate(generate(seed))
        assert not report.violations, f"python -m tests.simulation --seed {seed}: {report.violations}"


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """Each rule that is broken on purpose is missed within a bounded number of seeds."""
    seeds, kinds = FOUND_WITHIN[name]
    found = (seed for seed in range(seeds) if _simulate_plant(name, seed, kinds).violations)
    assert next(found, None) is not None, f"{name}: none of {seeds} seeds fails"


def _simulate_plant(name: str, seed: int, kinds: tuple[Kind, ...]) -> Report:
    return simulate(generate(seed, kinds, counts=(8, 12)), PLANTS[name])


def test_a_seed_says_all() -> None:
    """The same seeds give the same traces in another process, however Python hashes strings there."""
    outputs = set()
    for hashing in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", "25", "--traces"],
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 25


def test_what_a_failure_does_not_need_is_left_out() -> None:
    """A schedule shrinks to the one request and the one event without which it would not fail."""
    needed = Event(0.5, "crash", 0, 3, 10)
    requests = tuple(Request(0.1 * number, "Work", (("step", 0),)) for number in range(4))
    events = (Event(0.2, "cut"), needed, Event(0.7, "cancel", 2), Event(1.0, "rebalance"))
    schedule = Schedule(1, 1, requests, events)

    def run(candidate: Schedule) -> Report:
        wrong = ["as planted"] if needed in candidate.events else []
        return Report(candidate, wrong)

    smallest = shrink(schedule, run).schedule
    assert smallest.events == (needed,)
    assert len(smallest.requests) == 1


def test_what_is_done_to_a_request_goes_with_it() -> None:
    """Leaving out a request leaves out who cancels it, and moves what is done to those behind it."""
    requests = tuple(Request(0.1 * number, "Work", (("step", 0),)) for number in range(3))
    events = (Event(0.2, "cancel", 0), Event(0.3, "kill", 2), Event(0.4, "crash", 2))
    schedule = Schedule(1, 3, requests, events).without(request=0)
    assert schedule.requests == requests[1:]
    assert schedule.events == (replace(events[1], target=1), events[2])
