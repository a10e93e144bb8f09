"""Which scenarios there are: `@verifies` names the one that a test shows; those that do not apply say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


class Scenario(NamedTuple):
    """One scenario: the class that it is from, and its name there."""

    group: str
    name: str

    def __str__(self) -> str:
        """As it is looked for."""
        return f"{self.group}.{self.name}"


_ATTRIBUTE: Final = "__scenarios__"


def verifies(group: str, *names: str) -> Callable[[Test], Test]:
    """Say which scenarios a test shows."""

    def mark(test: Test) -> Test:
        setattr(test, _ATTRIBUTE, (*(Scenario(group, name) for name in names), *scenarios_of(test)))
        return test

    return mark


def scenarios_of(test: object) -> tuple[Scenario, ...]:
    """What a test function shows; empty where it does not say."""
    found: tuple[Scenario, ...] = getattr(test, _ATTRIBUTE, ())
    return found


class Omitted(NamedTuple):
    """A scenario that no test shows, and why."""

    scenario: Scenario
    reason: str


_NO_SCOPES = "there are no scopes and limit keys: concurrency is bounded by worker, and by key with objects"

OMITTED: Final = (
    Omitted(Scenario("Custom", "*"), "its tests are shell commands that each SDK brings; there is nothing to verify"),
    Omitted(
        Scenario("ProxyRequestSigning", "requestSigningPass"),
        "workers take work from Kafka and are called by nobody: Kafka's own authentication stands in this place",
    ),
    Omitted(
        Scenario("ServiceToServiceScopeConcurrency", "scopeAndLimitKeyArePropagatedOnServiceToServiceCalls"), _NO_SCOPES
    ),
    Omitted(Scenario("ConcurrencyLimitTest", "*"), _NO_SCOPES),
    Omitted(Scenario("ScopeIsolationTest", "*"), _NO_SCOPES),
    Omitted(Scenario("BackwardCompatibilityTest", "*"), "there is one released format so far"),
    Omitted(Scenario("ForwardCompatibilityTest", "*"), "there is one released format so far"),
    Omitted(
        Scenario("IngressTest", "privateService"),
        "there is no ingress to hide a service from: who may produce to a topic is an ACL of Kafka",
    ),
    Omitted(
        Scenario("InvokerMemoryTest", "allCompleteUnderMemoryPressure"),
        "a worker bounds how many attempts run, not their memory",
    ),
    Omitted(Scenario("KafkaTest", "shouldGenerateTraces"), "there is no tracing yet"),
    Omitted(Scenario("OpenAPITest", "*"), "there is no ingress to describe"),
    Omitted(Scenario("TracingTest", "*"), "there is no tracing yet"),
    Omitted(
        Scenario("UpgradeTest", "*"),
        "all workers of a namespace run one version, apart from the minutes of a rolling deployment: an invocation in "
        "flight goes on with the new code, and is paused with a diff where that diverges",
    ),
    Omitted(
        Scenario("failures", "mismatchPolicies"),
        "a divergence pauses the invocation with both sides in the message; there is no policy to fail or to follow",
    ),
    Omitted(
        Scenario("implicit_cancellation", "childrenCancellationDisabled"),
        "a cancellation always goes on to callees; what is to outlive its caller is sent",
    ),
)
