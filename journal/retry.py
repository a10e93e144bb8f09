"""When to try again: pure arithmetic over a policy, the failures so far and the time they took.

Counters and elapsed time are the caller's, read from the journal: the same policy serves steps and invocations, and
gives the same answer on every worker. There is no jitter: what fails together comes back together, yet through `due`,
which bounded workers empty at their own pace, so that a herd queues instead of striking.

Source: Restate's retry policy (initial · factor^(n-1), capped), with one difference: the last delay is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perdure.schemas.errors import DefinitionError

# A century. Redis keeps deadlines as doubles, exact up to 2^53 ms: now plus this stays far below.
DELAY_MS_MAX: Final = 100 * 365 * 86_400_000

# Where `factor ** exponent` has overflowed or will never grow; keeps the exponent convertible to a float.
_EXPONENT_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait between tries, and when to stop.

    Args:
        initial_ms: The delay after the first failure; 1 to `interval_ms_max`.
        factor: What each delay is multiplied by for the next; at least 1.
        interval_ms_max: The longest delay of the policy; at most `DELAY_MS_MAX`.
        attempts_max: Tries in all, the first included; at least 1, `None` for no limit.
        duration_ms_max: From the start of the first try; at least 1, `None` for no limit.

    Raises:
        DefinitionError: A number is out of its bounds.
    """

    initial_ms: int
    factor: float
    interval_ms_max: int
    attempts_max: int | None = None
    duration_ms_max: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.initial_ms <= self.interval_ms_max <= DELAY_MS_MAX:
            raise DefinitionError(
                f"A retry policy needs 1 ms <= initial interval <= max interval <= {DELAY_MS_MAX} ms; "
                f"got {self.initial_ms} ms and {self.interval_ms_max} ms."
            )
        # Written so that NaN is refused too.
        if not 1 <= self.factor < float("inf"):
            raise DefinitionError(f"A retry policy's factor must be a finite number from 1 on; got {self.factor}.")
        if self.attempts_max is not None and self.attempts_max < 1:
            raise DefinitionError(f"A retry policy's attempts must be at least 1; got {self.attempts_max}.")
        if self.duration_ms_max is not None and self.duration_ms_max < 1:
            raise DefinitionError(f"A retry policy's duration must be at least 1 ms; got {self.duration_ms_max}.")


def next_delay_ms(
    policy: RetryPolicy, *, failures: int, elapsed_ms: int, retry_after_ms: int | None = None
) -> int | None:
    """Return how long to wait before the next try, or `None` to give up.

    A delay of the policy that would overrun `duration_ms_max` is clipped to what is left, so that the last try
    happens at the end of the window and none of it is wasted. A `retry_after_ms` that would overrun it gives up
    instead: whoever asked for it said that an earlier try is useless.

    Args:
        policy: What is allowed.
        failures: Tries that have failed, the one just now included; at least 1.
        elapsed_ms: Since the start of the first try. Below zero (a clock was set back) counts as zero.
        retry_after_ms: Replaces the interval, without its maximum; attempts and duration still hold. Below zero counts
            as zero, above `DELAY_MS_MAX` as that.

    Returns:
        0 to `DELAY_MS_MAX`, and 0 only where `retry_after_ms` asks for it.
    """
    if policy.attempts_max is not None and failures >= policy.attempts_max:
        return None
    left_ms: int | None = None
    if policy.duration_ms_max is not None:
        left_ms = policy.duration_ms_max - max(elapsed_ms, 0)
        if left_ms <= 0:
            return None
    if retry_after_ms is not None:
        asked_ms = min(max(retry_after_ms, 0), DELAY_MS_MAX)
        return asked_ms if left_ms is None or asked_ms <= left_ms else None
    interval = interval_ms(policy, failures=failures)
    return interval if left_ms is None else min(interval, left_ms)


def interval_ms(policy: RetryPolicy, *, failures: int) -> int:
    """Return the policy's delay after that many failures, limits on attempts and duration left aside.

    Never decreases as `failures` grows, and stays within `initial_ms` and `interval_ms_max`.
    """
    exponent = min(max(failures - 1, 0), _EXPONENT_MAX)
    try:
        grown = policy.initial_ms * policy.factor**exponent
    except OverflowError:
        return policy.interval_ms_max
    # The comparison comes before int(): the product may be infinite.
    return policy.interval_ms_max if grown >= policy.interval_ms_max else int(grown)
