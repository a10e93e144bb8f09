"""The retry arithmetic, case by case; `tests/properties/test_retry.py` has the laws."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from perdure.journal.retry import DELAY_MS_MAX, RetryPolicy, interval_ms, next_delay_ms
from perdure.schemas.errors import DefinitionError

STEP = RetryPolicy(initial_ms=50, factor=2.0, interval_ms_max=10_000)


def delays(policy: RetryPolicy, *, count: int) -> list[int | None]:
    """The delays after 1, 2, ... failures, none of which took any time."""
    return [next_delay_ms(policy, failures=n, elapsed_ms=0) for n in range(1, count + 1)]


def with_limits(*, attempts_max: int | None = None, duration_ms_max: int | None = None) -> RetryPolicy:
    """The policy of steps, limited."""
    return dataclasses.replace(STEP, attempts_max=attempts_max, duration_ms_max=duration_ms_max)


def test_delays_double_up_to_the_longest() -> None:
    """Each delay is the last one times the factor, and never more than the longest."""
    assert delays(STEP, count=10) == [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]


def test_a_factor_of_one_keeps_the_delay() -> None:
    """A fixed interval is a factor of one."""
    assert delays(RetryPolicy(initial_ms=7, factor=1, interval_ms_max=1000), count=3) == [7, 7, 7]


@pytest.mark.parametrize(("attempts_max", "expected"), [(1, [None]), (2, [50, None]), (3, [50, 100, None])])
def test_attempts_count_the_first_one(attempts_max: int, expected: list[int | None]) -> None:
    """A policy of n attempts allows n - 1 retries."""
    assert delays(with_limits(attempts_max=attempts_max), count=attempts_max) == expected


def test_a_delay_past_the_duration_is_clipped() -> None:
    """The last try happens at the end of the window, and then there is none."""
    policy = with_limits(duration_ms_max=1000)
    assert next_delay_ms(policy, failures=4, elapsed_ms=350) == 400
    assert next_delay_ms(policy, failures=5, elapsed_ms=750) == 250
    assert next_delay_ms(policy, failures=6, elapsed_ms=1000) is None
    assert next_delay_ms(policy, failures=6, elapsed_ms=10**9) is None


@pytest.mark.parametrize("failures", [100, 2_000, 10**400])
def test_any_number_of_failures_has_a_delay(failures: int) -> None:
    """Powers beyond a float's range are the longest delay."""
    assert next_delay_ms(STEP, failures=failures, elapsed_ms=0) == 10_000
    assert interval_ms(dataclasses.replace(STEP, factor=1), failures=failures) == 50


def test_an_asked_delay_replaces_the_interval() -> None:
    """`retry_after` may be shorter or longer than anything that the policy would say."""
    for asked_ms in (0, 1, 3_600_000):
        assert next_delay_ms(STEP, failures=3, elapsed_ms=0, retry_after_ms=asked_ms) == asked_ms
    assert next_delay_ms(STEP, failures=3, elapsed_ms=0, retry_after_ms=-5) == 0
    assert next_delay_ms(STEP, failures=3, elapsed_ms=0, retry_after_ms=10**30) == DELAY_MS_MAX


def test_an_asked_delay_keeps_the_limits() -> None:
    """`retry_after` does not add attempts, and gives up rather than come back too early."""
    assert next_delay_ms(with_limits(attempts_max=3), failures=3, elapsed_ms=0, retry_after_ms=1) is None
    policy = with_limits(duration_ms_max=1000)
    assert next_delay_ms(policy, failures=1, elapsed_ms=400, retry_after_ms=600) == 600
    assert next_delay_ms(policy, failures=1, elapsed_ms=400, retry_after_ms=601) is None


def test_a_clock_that_was_set_back_is_forgiven() -> None:
    """A negative elapsed time counts as none, and does not widen the window."""
    assert next_delay_ms(with_limits(duration_ms_max=30), failures=1, elapsed_ms=-(10**6)) == 30


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"initial_ms": 0}, "interval"),
        ({"initial_ms": 10_001}, "interval"),
        ({"interval_ms_max": DELAY_MS_MAX + 1}, "interval"),
        ({"factor": 0.99}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"factor": float("inf")}, "factor"),
        ({"attempts_max": 0}, "attempts"),
        ({"duration_ms_max": 0}, "duration"),
    ],
)
def test_numbers_out_of_bounds_are_refused(changes: Mapping[str, Any], word: str) -> None:
    """A policy that could not be kept is refused when it is made, by name."""
    with pytest.raises(DefinitionError, match=word):
        dataclasses.replace(STEP, **changes)
