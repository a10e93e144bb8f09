"""`make simulate SEEDS=…`: simulate the schedules of many seeds; print, shrink and count those that fail."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from .schedules import Event, Request, Schedule, generate
from .shrinking import shrink
from .simulation import Report, simulate

FAILURES_MAX = 5
"""After so many seeds that fail it is time to mend them."""


def main(arguments: Sequence[str]) -> int:
    """Simulate; returns the exit code, 1 where a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--traces", action="store_true", help="print the digest of each trace")
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + given.seeds) if given.seed is None else [given.seed]
    began, failures, done, steps = time.monotonic(), 0, 0, 0
    for seed in seeds:
        report = simulate(generate(seed))
        done += 1
        steps += report.steps
        if given.traces:
            _say(f"{seed} {report.trace}")
        if report.violations:
            failures += 1
            _say(told(report))
            _say("shrinking ...")
            _say(told(shrink(report.schedule, simulate)))
        if failures >= FAILURES_MAX:
            break
    took_s = time.monotonic() - began
    if not given.traces:
        _say(f"{done} schedules, {failures} failed; {done / took_s * 60:.0f} a minute, {steps // done} callbacks each")
    return 1 if failures else 0


def told(report: Report) -> str:
    """A report for people: what was wrong, what happened, how to see it again."""
    return "\n".join(
        [
            f"seed {report.schedule.seed} fails:",
            *(f"  {violation}" for violation in report.violations[:5]),
            *_lines(report.schedule),
            f"  again: python -m tests.simulation --seed {report.schedule.seed}",
        ]
    )


def _lines(schedule: Schedule) -> list[str]:
    happening: list[Request | Event] = [*schedule.requests, *schedule.events]
    happening.sort(key=lambda each: each.at_s)
    newer = f", newer code: {schedule.change}" if schedule.versions else ""
    return [f"  {schedule.workers} workers{newer}", *(f"  {each}" for each in happening)]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
