"""The laws of the retry arithmetic, and the proof that they bite: planted bugs are caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from perdure.journal.retry import DELAY_MS_MAX, RetryPolicy, next_delay_ms

Rule = Callable[..., int | None]
HUNT = settings(max_examples=2000, phases=[Phase.generate], report_multiple_bugs=False, database=None, deadline=None)
"""For planted bugs: the first failure will do, the smallest is not needed."""


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Any valid policy, small numbers more often than large ones."""
    longest = draw(st.one_of(st.integers(1, 1000), st.integers(1, DELAY_MS_MAX)))
    return RetryPolicy(
        initial_ms=draw(st.integers(1, longest)),
        factor=draw(st.one_of(st.sampled_from([1.0, 1.5, 2.0]), st.floats(1, 1e308))),
        interval_ms_max=longest,
        attempts_max=draw(st.none() | st.integers(1, 20)),
        duration_ms_max=draw(st.none() | st.integers(1, 100_000)),
    )


CASES = {
    "policy": policies(),
    "failures": st.integers(1, 30) | st.integers(1, 10**400),
    "elapsed_ms": st.integers(-1000, 200_000),
    "retry_after_ms": st.none() | st.integers(-10, 300_000) | st.integers(0, 10**30),
}


def check_one_answer(
    rule: Rule, policy: RetryPolicy, failures: int, elapsed_ms: int, retry_after_ms: int | None
) -> None:
    """What holds for every single answer."""
    delay_ms = rule(policy, failures=failures, elapsed_ms=elapsed_ms, retry_after_ms=retry_after_ms)
    exhausted = policy.attempts_max is not None and failures >= policy.attempts_max
    over = policy.duration_ms_max is not None and elapsed_ms >= policy.duration_ms_max
    if exhausted or over:
        assert delay_ms is None
        return
    if delay_ms is None:
        assert retry_after_ms is not None
        assert policy.duration_ms_max is not None
        assert max(elapsed_ms, 0) + retry_after_ms > policy.duration_ms_max
        return
    assert 0 <= delay_ms <= DELAY_MS_MAX
    if policy.duration_ms_max is not None:
        assert max(elapsed_ms, 0) + delay_ms <= policy.duration_ms_max
    if retry_after_ms is None:
        assert 1 <= delay_ms <= policy.interval_ms_max
    else:
        assert delay_ms == min(max(retry_after_ms, 0), DELAY_MS_MAX)


def check_whole_life(rule: Rule, policy: RetryPolicy, cost_ms: int) -> None:
    """What holds from the first try to giving up, when each try takes `cost_ms`."""
    elapsed_ms = tries = 0
    last_ms = 0
    while tries < 50:
        tries += 1
        elapsed_ms += cost_ms
        delay_ms = rule(policy, failures=tries, elapsed_ms=elapsed_ms, retry_after_ms=None)
        if delay_ms is None:
            break
        left_ms = None if policy.duration_ms_max is None else policy.duration_ms_max - elapsed_ms
        assert delay_ms >= last_ms or delay_ms == left_ms
        last_ms = delay_ms
        elapsed_ms += delay_ms
    else:
        assert policy.attempts_max is None or policy.attempts_max > tries
        return
    # Giving up has one of two reasons, and is neither too early nor too late.
    timed_out = policy.duration_ms_max is not None and elapsed_ms >= policy.duration_ms_max
    assert timed_out or tries == policy.attempts_max
    assert policy.attempts_max is None or tries <= policy.attempts_max


@given(**CASES)
def test_every_answer_keeps_the_policy(
    policy: RetryPolicy, failures: int, elapsed_ms: int, retry_after_ms: int | None
) -> None:
    """Any answer is within the bounds, or gives up for a reason that the policy names."""
    check_one_answer(next_delay_ms, policy, failures, elapsed_ms, retry_after_ms)


@given(policy=policies(), cost_ms=st.integers(0, 5000))
def test_a_life_of_failures_ends_where_the_policy_says(policy: RetryPolicy, cost_ms: int) -> None:
    """Delays never shrink before the window ends; all attempts and the whole window are used."""
    check_whole_life(next_delay_ms, policy, cost_ms)


def one_attempt_too_many(
    policy: RetryPolicy, *, failures: int, elapsed_ms: int, retry_after_ms: int | None
) -> int | None:
    """Counts retries where the policy counts attempts."""
    return next_delay_ms(policy, failures=max(failures - 1, 1), elapsed_ms=elapsed_ms, retry_after_ms=retry_after_ms)


def window_forgotten_when_asked(
    policy: RetryPolicy, *, failures: int, elapsed_ms: int, retry_after_ms: int | None
) -> int | None:
    """Takes what was asked for before it looks at the duration."""
    if retry_after_ms is not None and (policy.attempts_max is None or failures < policy.attempts_max):
        return min(max(retry_after_ms, 0), DELAY_MS_MAX)
    return next_delay_ms(policy, failures=failures, elapsed_ms=elapsed_ms, retry_after_ms=retry_after_ms)


@pytest.mark.parametrize("bug", [one_attempt_too_many, window_forgotten_when_asked])
def test_a_planted_bug_breaks_the_law_of_answers(bug: Rule) -> None:
    """The first property fails for arithmetic that is wrong."""

    @HUNT
    @given(**CASES)
    def hunt(policy: RetryPolicy, failures: int, elapsed_ms: int, retry_after_ms: int | None) -> None:
        check_one_answer(bug, policy, failures, elapsed_ms, retry_after_ms)

    with pytest.raises(AssertionError):
        hunt()


def gives_up_before_the_end(
    policy: RetryPolicy, *, failures: int, elapsed_ms: int, retry_after_ms: int | None
) -> int | None:
    """Drops the last delay where it should be clipped."""
    unlimited = RetryPolicy(policy.initial_ms, policy.factor, policy.interval_ms_max, policy.attempts_max)
    delay_ms = next_delay_ms(unlimited, failures=failures, elapsed_ms=elapsed_ms, retry_after_ms=retry_after_ms)
    if delay_ms is None or policy.duration_ms_max is None:
        return delay_ms
    return delay_ms if elapsed_ms + delay_ms <= policy.duration_ms_max else None


def delay_wraps_around(
    policy: RetryPolicy, *, failures: int, elapsed_ms: int, retry_after_ms: int | None
) -> int | None:
    """Starts over at the first delay once the longest is reached."""
    right = next_delay_ms(policy, failures=failures, elapsed_ms=elapsed_ms, retry_after_ms=retry_after_ms)
    return policy.initial_ms if right == policy.interval_ms_max and failures % 5 == 0 else right


@pytest.mark.parametrize("bug", [gives_up_before_the_end, delay_wraps_around])
def test_a_planted_bug_breaks_the_law_of_lives(bug: Rule) -> None:
    """The second property fails for arithmetic that is wrong."""

    @HUNT
    @given(policy=policies(), cost_ms=st.integers(0, 5000))
    def hunt(policy: RetryPolicy, cost_ms: int) -> None:
        check_whole_life(bug, policy, cost_ms)

    with pytest.raises(AssertionError):
        hunt()
