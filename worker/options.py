"""Options that handler authors give: for one step, and for the retries and times of an invocation.

Everything is checked where it is written; what is unset falls back handler > service > app > the defaults here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from perdure.journal.retry import DELAY_MS_MAX, RetryPolicy
from perdure.schemas.errors import DefinitionError

from .serde import DEFAULT_SERDE, DefaultSerde, Serde, serde_for, serde_or_json
from .signature import result_hint

T = TypeVar("T")

STEP_INITIAL_MS: Final = 50
STEP_FACTOR: Final = 2.0
STEP_INTERVAL_MS_MAX: Final = 10_000

INVOCATION_INITIAL_MS: Final = 500
INVOCATION_FACTOR: Final = 2.0
INVOCATION_INTERVAL_MS_MAX: Final = 60_000
INVOCATION_ATTEMPTS_MAX: Final = 70

OnMaxAttempts = Literal["pause", "kill"]


# Without slots: `RunOptions[str](...)` sets an attribute, which a frozen dataclass with slots answers with a TypeError.
@dataclass(frozen=True)
class RunOptions(Generic[T]):
    """How one step is written down and retried.

    No retry option: the invocation's policy applies to the step's failures. Any retry option: the step has a policy of
    its own (50 ms, doubled, at most 10 s, unlimited, each unless given), and ends with a TerminalError when exhausted.

    Args:
        serde: Writes and reads the step's result; by default what `type_hint` or the action's annotation asks for.
        type_hint: The type of the result, for actions without an annotation. A serde that knows its type wins.
        max_attempts: Executions in all, the first included; at least 1.
        max_duration: From the start of the first execution, over crashes and suspensions.
        initial_retry_interval: The delay after the first failure.
        max_retry_interval: The longest delay.
        retry_interval_factor: What each delay is multiplied by for the next; at least 1.
        max_retry_duration: The old name of `max_duration`.

    Raises:
        DefinitionError: An option is out of its bounds, or `max_duration` and its old name say different things.
    """

    serde: Serde[T] = DEFAULT_SERDE
    type_hint: Any = None
    max_attempts: int | None = None
    max_duration: timedelta | None = None
    initial_retry_interval: timedelta | None = None
    max_retry_interval: timedelta | None = None
    retry_interval_factor: float | None = None
    max_retry_duration: timedelta | None = None

    def __post_init__(self) -> None:
        # The identity comes first: options are made at every call of a step.
        if self.serde is not DEFAULT_SERDE and not isinstance(self.serde, Serde):
            raise DefinitionError(f"RunOptions(serde=...) takes a Serde instance, not {self.serde!r}.")
        durations = (self.max_duration, self.max_retry_duration)
        if None not in durations and self.max_duration != self.max_retry_duration:
            raise DefinitionError(
                f"RunOptions has max_duration={self.max_duration} and max_retry_duration={self.max_retry_duration}: "
                "they are one option, the latter is its old name. Give max_duration only."
            )
        # Builds the policy once, to refuse what is out of bounds here and not at the first failure.
        self.policy()

    def policy(self) -> RetryPolicy | None:
        """Return the step's own policy, or `None` where no retry option is given."""
        duration = self.max_duration if self.max_duration is not None else self.max_retry_duration
        given = (self.max_attempts, duration, self.initial_retry_interval, self.max_retry_interval)
        if self.retry_interval_factor is None and all(option is None for option in given):
            return None
        initial_ms, interval_ms_max = _intervals(
            _positive_ms("RunOptions(initial_retry_interval=...)", self.initial_retry_interval),
            _positive_ms("RunOptions(max_retry_interval=...)", self.max_retry_interval),
            defaults=(STEP_INITIAL_MS, STEP_INTERVAL_MS_MAX),
        )
        factor = _factor("RunOptions(retry_interval_factor=...)", self.retry_interval_factor)
        return RetryPolicy(
            initial_ms=initial_ms,
            factor=STEP_FACTOR if factor is None else factor,
            interval_ms_max=interval_ms_max,
            attempts_max=_attempts("RunOptions(max_attempts=...)", self.max_attempts),
            duration_ms_max=_positive_ms("RunOptions(max_duration=...)", duration),
        )

    def serde_of(self, action: Callable[..., Any]) -> Serde[Any]:
        """Return what writes and reads the result of `action`.

        In this order: a serde that knows its type, `type_hint`, the action's return annotation, JSON.

        Raises:
            DefinitionError: Pydantic does not know `type_hint`, or the annotation cannot be resolved.
        """
        if not isinstance(self.serde, DefaultSerde) or self.serde.type_hint is not None:
            return self.serde
        if self.type_hint is not None:
            return serde_for(self.type_hint)
        return serde_or_json(result_hint(action))


class InvocationRetry(NamedTuple):
    """An invocation's policy with nothing left open."""

    policy: RetryPolicy
    on_max_attempts: OnMaxAttempts


@dataclass(frozen=True, slots=True)
class InvocationRetryPolicy:
    """How failed attempts of an invocation are retried. What is unset falls back to service, app and defaults.

    Args:
        initial_interval: The delay after the first failure; 500 ms by default.
        exponentiation_factor: What each delay is multiplied by for the next, at least 1; 2 by default.
        max_interval: The longest delay; 60 s by default.
        max_attempts: Attempts in a row without progress, the first included, at least 1; 70 by default.
        on_max_attempts: Then "pause" (an operator looks and resumes), the default, or "kill" (fails for good).

    Raises:
        DefinitionError: A value is out of its bounds.
    """

    initial_interval: timedelta | None = None
    exponentiation_factor: float | None = None
    max_interval: timedelta | None = None
    max_attempts: int | None = None
    on_max_attempts: OnMaxAttempts | None = None

    def __post_init__(self) -> None:
        if self.on_max_attempts not in (None, "pause", "kill"):
            raise DefinitionError(
                f'InvocationRetryPolicy(on_max_attempts=...) is "pause" or "kill", not {self.on_max_attempts!r}.'
            )
        self.resolve()

    def over(self, fallback: InvocationRetryPolicy | None) -> InvocationRetryPolicy:
        """Return this policy with what it leaves unset taken from `fallback`."""
        if fallback is None:
            return self
        return InvocationRetryPolicy(
            _first(self.initial_interval, fallback.initial_interval),
            _first(self.exponentiation_factor, fallback.exponentiation_factor),
            _first(self.max_interval, fallback.max_interval),
            _first(self.max_attempts, fallback.max_attempts),
            _first(self.on_max_attempts, fallback.on_max_attempts),
        )

    def resolve(self) -> InvocationRetry:
        """Return the policy with the defaults in what is unset."""
        initial_ms, interval_ms_max = _intervals(
            _positive_ms("InvocationRetryPolicy(initial_interval=...)", self.initial_interval),
            _positive_ms("InvocationRetryPolicy(max_interval=...)", self.max_interval),
            defaults=(INVOCATION_INITIAL_MS, INVOCATION_INTERVAL_MS_MAX),
        )
        factor = _factor("InvocationRetryPolicy(exponentiation_factor=...)", self.exponentiation_factor)
        attempts = _attempts("InvocationRetryPolicy(max_attempts=...)", self.max_attempts)
        policy = RetryPolicy(
            initial_ms=initial_ms,
            factor=INVOCATION_FACTOR if factor is None else factor,
            interval_ms_max=interval_ms_max,
            attempts_max=INVOCATION_ATTEMPTS_MAX if attempts is None else attempts,
        )
        return InvocationRetry(policy, self.on_max_attempts or "pause")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """What holds for the invocations of a handler; `None` leaves it to the next level, and at last to the worker.

    Args:
        inactivity_timeout: How long an attempt waits in memory before it is suspended; zero suspends at once.
        journal_retention: How long the journal is kept after completion.
        idempotency_retention: How long the result is kept after completion, for those who ask for it again.
        invocation_retry_policy: How failed attempts are retried.
        workflow_retention: How long a workflow's result, state and promises are kept after its `main` ended.
        state_preload: Whether attempts begin with the state of their object or workflow; or the names that they read.

    Raises:
        DefinitionError: A duration is negative, beyond a century, or not a timedelta; or an option is of another type.
    """

    inactivity_timeout: timedelta | None = None
    journal_retention: timedelta | None = None
    idempotency_retention: timedelta | None = None
    invocation_retry_policy: InvocationRetryPolicy | None = None
    workflow_retention: timedelta | None = None
    state_preload: bool | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("inactivity_timeout", "journal_retention", "idempotency_retention", "workflow_retention"):
            _whole_ms(f"{name}=...", getattr(self, name), least_ms=0)
        if not isinstance(self.invocation_retry_policy, InvocationRetryPolicy | None):
            raise DefinitionError(
                f"invocation_retry_policy=... takes an InvocationRetryPolicy, not {self.invocation_retry_policy!r}."
            )
        if not _is_state_preload(self.state_preload):
            raise DefinitionError(
                f"state_preload=... is True, False or a list of names of state, not {self.state_preload!r}."
            )

    @property
    def inactivity_timeout_ms(self) -> int | None:
        """`inactivity_timeout` in milliseconds."""
        return _whole_ms("inactivity_timeout=...", self.inactivity_timeout, least_ms=0)

    @property
    def journal_retention_ms(self) -> int | None:
        """`journal_retention` in milliseconds."""
        return _whole_ms("journal_retention=...", self.journal_retention, least_ms=0)

    @property
    def idempotency_retention_ms(self) -> int | None:
        """`idempotency_retention` in milliseconds."""
        return _whole_ms("idempotency_retention=...", self.idempotency_retention, least_ms=0)

    @property
    def workflow_retention_ms(self) -> int | None:
        """`workflow_retention` in milliseconds."""
        return _whole_ms("workflow_retention=...", self.workflow_retention, least_ms=0)

    def over(self, fallback: HandlerOptions) -> HandlerOptions:
        """Return these options with what they leave unset taken from `fallback`, the retry policy field by field."""
        policy, other = self.invocation_retry_policy, fallback.invocation_retry_policy
        preload = fallback.state_preload if self.state_preload is None else self.state_preload
        return HandlerOptions(
            inactivity_timeout=_first(self.inactivity_timeout, fallback.inactivity_timeout),
            journal_retention=_first(self.journal_retention, fallback.journal_retention),
            idempotency_retention=_first(self.idempotency_retention, fallback.idempotency_retention),
            invocation_retry_policy=other if policy is None else policy.over(other),
            workflow_retention=_first(self.workflow_retention, fallback.workflow_retention),
            state_preload=preload,
        )

    def retry(self) -> InvocationRetry:
        """Return the retry policy with the defaults in what is unset."""
        return (self.invocation_retry_policy or InvocationRetryPolicy()).resolve()


def _first(mine: T | None, fallback: T | None) -> T | None:
    return fallback if mine is None else mine


def _is_state_preload(given: object) -> bool:
    if isinstance(given, tuple):
        return all(isinstance(name, str) and name for name in given)
    return given is None or isinstance(given, bool)


def _intervals(initial_ms: int | None, interval_ms_max: int | None, *, defaults: tuple[int, int]) -> tuple[int, int]:
    """Fill in what is unset; a default gives way to what was given, two given ones that contradict are refused."""
    if initial_ms is None:
        interval_ms_max = defaults[1] if interval_ms_max is None else interval_ms_max
        return min(defaults[0], interval_ms_max), interval_ms_max
    if interval_ms_max is None:
        return initial_ms, max(defaults[1], initial_ms)
    if initial_ms > interval_ms_max:
        raise DefinitionError(
            f"The initial interval of a retry policy ({initial_ms} ms) exceeds its max interval ({interval_ms_max} ms)."
        )
    return initial_ms, interval_ms_max


def _positive_ms(option: str, duration: timedelta | None) -> int | None:
    return _whole_ms(option, duration, least_ms=1)


def _whole_ms(option: str, duration: timedelta | None, *, least_ms: int) -> int | None:
    """The duration in milliseconds, rounded up."""
    if duration is None:
        return None
    if not isinstance(duration, timedelta):
        raise DefinitionError(f"{option} takes a timedelta, not {duration!r}.")
    floor_ms, rest = divmod(duration, timedelta(milliseconds=1))
    rounded_ms = floor_ms + bool(rest)
    if not least_ms <= rounded_ms <= DELAY_MS_MAX:
        least = "longer than zero" if least_ms else "zero or longer"
        raise DefinitionError(f"{option} must be {least} and at most a century, not {duration}.")
    return rounded_ms


def _attempts(option: str, attempts: int | None) -> int | None:
    if attempts is not None and (type(attempts) is not int or attempts < 1):
        raise DefinitionError(f"{option} must be an integer from 1 on (the first attempt counts), not {attempts!r}.")
    return attempts


def _factor(option: str, factor: float | None) -> float | None:
    if factor is not None and (type(factor) not in (int, float) or not 1 <= factor < float("inf")):
        raise DefinitionError(f"{option} must be a finite number from 1 on, not {factor!r}.")
    return factor
