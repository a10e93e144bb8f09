"""Options are checked where they are written, and resolved into policies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from perdure.journal.retry import RetryPolicy
from perdure.schemas.errors import DefinitionError
from perdure.worker.options import HandlerOptions, InvocationRetryPolicy, RunOptions
from perdure.worker.serde import BYTES, JSON, DefaultSerde, Serde, serde_for

SECOND = timedelta(seconds=1)


def price() -> Decimal:
    """A step."""
    return Decimal(1)


class Client:
    """A class that no serde knows."""


def connect() -> Client:
    """A step that a user would not annotate otherwise."""
    return Client()


def test_no_retry_option_leaves_the_step_to_the_invocation() -> None:
    """A serde or a type is not a retry option."""
    assert RunOptions[Any]().policy() is None
    assert RunOptions(serde=BYTES, type_hint=bytes).policy() is None


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (RunOptions(max_attempts=3), RetryPolicy(50, 2.0, 10_000, 3, None)),
        (RunOptions(max_duration=SECOND), RetryPolicy(50, 2.0, 10_000, None, 1000)),
        (RunOptions(max_retry_duration=SECOND), RetryPolicy(50, 2.0, 10_000, None, 1000)),
        (RunOptions(max_duration=SECOND, max_retry_duration=SECOND), RetryPolicy(50, 2.0, 10_000, None, 1000)),
        (RunOptions(initial_retry_interval=SECOND), RetryPolicy(1000, 2.0, 10_000, None, None)),
        (RunOptions(initial_retry_interval=20 * SECOND), RetryPolicy(20_000, 2.0, 20_000, None, None)),
        (RunOptions(max_retry_interval=timedelta(milliseconds=9)), RetryPolicy(9, 2.0, 9, None, None)),
        (RunOptions(retry_interval_factor=1), RetryPolicy(50, 1, 10_000, None, None)),
        (RunOptions(initial_retry_interval=timedelta(microseconds=1)), RetryPolicy(1, 2.0, 10_000, None, None)),
    ],
)
def test_any_retry_option_makes_a_policy_of_its_own(options: RunOptions[Any], policy: RetryPolicy) -> None:
    """50 ms, doubled, at most 10 s, for ever, each unless given; a default never contradicts what is given."""
    assert options.policy() == policy


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 1.5}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"max_duration": timedelta(0)}, "max_duration"),
        ({"max_duration": 5}, "max_duration"),
        ({"max_retry_duration": -SECOND}, "max_duration"),
        ({"initial_retry_interval": timedelta(0)}, "initial_retry_interval"),
        ({"max_retry_interval": timedelta.max}, "max_retry_interval"),
        ({"retry_interval_factor": 0.5}, "retry_interval_factor"),
        ({"retry_interval_factor": float("nan")}, "retry_interval_factor"),
        ({"retry_interval_factor": "2"}, "retry_interval_factor"),
        ({"initial_retry_interval": 2 * SECOND, "max_retry_interval": SECOND}, "exceeds its max interval"),
        ({"max_duration": SECOND, "max_retry_duration": 2 * SECOND}, "max_retry_duration"),
        ({"serde": DefaultSerde}, "serde"),
    ],
)
def test_a_wrong_step_option_is_refused_by_name(options: Mapping[str, Any], name: str) -> None:
    """At once, and not when the step first fails."""
    with pytest.raises(DefinitionError, match=name):
        RunOptions(**options)


@pytest.mark.parametrize(
    ("options", "action", "serde"),
    [
        (RunOptions(), price, serde_for(Decimal)),
        (RunOptions(), lambda: 1, JSON),
        (RunOptions(), connect, JSON),
        (RunOptions(type_hint=int), price, serde_for(int)),
        (RunOptions(serde=BYTES), price, BYTES),
        (RunOptions(serde=BYTES, type_hint=int), price, BYTES),
    ],
)
def test_a_steps_serde_comes_from_what_says_most(
    options: RunOptions[Any], action: Callable[..., Any], serde: Serde[Any]
) -> None:
    """A serde of one's own, then the type hint, then the annotation, then JSON."""
    assert options.serde_of(action) is serde


def test_a_default_serde_with_a_type_is_a_serde_of_ones_own() -> None:
    """Its type wins over the annotation."""
    serde: DefaultSerde[Any] = DefaultSerde(int)
    assert RunOptions(serde=serde).serde_of(price) is serde


def test_a_type_hint_that_nothing_reads_is_refused() -> None:
    """It was written for us, so it does not fall back to anything."""
    with pytest.raises(DefinitionError, match="Client"):
        RunOptions[Any](type_hint=Client).serde_of(price)


def test_options_are_values() -> None:
    """Options cannot be changed after they were checked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunOptions[Any]().max_attempts = 3  # type: ignore[misc]  # that it is refused is what is tested


def test_an_invocations_policy_has_defaults() -> None:
    """500 ms, doubled, at most 60 s, 70 attempts, then paused."""
    assert InvocationRetryPolicy().resolve() == (RetryPolicy(500, 2.0, 60_000, 70, None), "pause")
    assert HandlerOptions().retry() == InvocationRetryPolicy().resolve()
    given = InvocationRetryPolicy(SECOND, 3, 9 * SECOND, 4, "kill")
    assert given.resolve() == (RetryPolicy(1000, 3, 9000, 4, None), "kill")


def test_what_is_unset_falls_back_field_by_field() -> None:
    """The handler's factor, the service's interval and the application's attempts make one policy."""
    handler = HandlerOptions(
        inactivity_timeout=timedelta(0), invocation_retry_policy=InvocationRetryPolicy(exponentiation_factor=1.5)
    )
    service = HandlerOptions(
        inactivity_timeout=SECOND,
        journal_retention=timedelta(microseconds=1500),
        invocation_retry_policy=InvocationRetryPolicy(initial_interval=SECOND, exponentiation_factor=9),
    )
    application = HandlerOptions(
        journal_retention=SECOND,
        idempotency_retention=SECOND,
        invocation_retry_policy=InvocationRetryPolicy(max_attempts=3, on_max_attempts="kill"),
    )
    merged = handler.over(service).over(application)
    assert merged.retry() == (RetryPolicy(1000, 1.5, 60_000, 3, None), "kill")
    assert merged.inactivity_timeout_ms == 0
    assert merged.journal_retention_ms == 2
    assert merged.idempotency_retention_ms == 1000
    assert HandlerOptions().over(application) == application
    assert application.over(HandlerOptions()) == application


def test_levels_that_contradict_are_refused() -> None:
    """A handler's first delay cannot be longer than its service's longest."""
    handler = HandlerOptions(invocation_retry_policy=InvocationRetryPolicy(initial_interval=120 * SECOND))
    assert handler.retry().policy.interval_ms_max == 120_000
    service = HandlerOptions(invocation_retry_policy=InvocationRetryPolicy(max_interval=60 * SECOND))
    with pytest.raises(DefinitionError, match="exceeds its max interval"):
        handler.over(service)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"initial_interval": timedelta(0)}, "initial_interval"),
        ({"exponentiation_factor": 0}, "exponentiation_factor"),
        ({"max_interval": -SECOND}, "max_interval"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"on_max_attempts": "stop"}, '"pause" or "kill"'),
    ],
)
def test_a_wrong_invocation_policy_is_refused_by_name(options: Mapping[str, Any], name: str) -> None:
    """At once, and not when an invocation first fails."""
    with pytest.raises(DefinitionError, match=name):
        InvocationRetryPolicy(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"inactivity_timeout": -SECOND}, "inactivity_timeout"),
        ({"journal_retention": 5}, "journal_retention"),
        ({"idempotency_retention": timedelta.max}, "idempotency_retention"),
        ({"workflow_retention": -SECOND}, "workflow_retention"),
        ({"state_preload": ("",)}, "state_preload"),
        ({"invocation_retry_policy": RunOptions(max_attempts=1)}, "invocation_retry_policy"),
    ],
)
def test_a_wrong_handler_option_is_refused_by_name(options: Mapping[str, Any], name: str) -> None:
    """Durations are timedeltas, from zero to a century."""
    with pytest.raises(DefinitionError, match=name):
        HandlerOptions(**options)
