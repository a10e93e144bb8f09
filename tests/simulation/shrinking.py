"""From a schedule that fails to a small one that still does: things are left out as long as it goes on failing."""

from __future__ import annotations

from collections.abc import Callable

from .schedules import Schedule
from .simulation import Report

RUNS_MAX = 300
"""Simulations that shrinking may cost: some seconds."""


def shrink(schedule: Schedule, run: Callable[[Schedule], Report]) -> Report:
    """The report of the smallest schedule that was found to fail.

    Args:
        schedule: One that fails.
        run: Simulates a schedule.
    """
    best = run(schedule)
    assert best.violations, "only what fails is shrunk"
    runs, shrunk = 0, True
    while shrunk:
        shrunk = False
        for smaller in _smaller(best.schedule):
            runs += 1
            if runs > RUNS_MAX:
                return best
            report = run(smaller)
            if report.violations:
                best, shrunk = report, True
                break
    return best


def _smaller(schedule: Schedule) -> list[Schedule]:
    without_events = [schedule.without(event=at) for at in range(len(schedule.events))]
    if len(schedule.requests) == 1:
        return without_events
    return [*without_events, *(schedule.without(request=at) for at in range(len(schedule.requests)))]
