"""No scenario is forgotten: each is shown by a test or omitted with a reason, and the page names all of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

from .catalogue import OMITTED, Scenario, scenarios_of
from .report import PAGE, Result, page

HERE = Path(__file__).parent

# This file, and programs that are no scenarios.
OWN = (Path(__file__).stem, "test_random_programs")

# As the suites that they are from name them; of those with one reason for all of them, the class.
CONTRACT = """
CallOrdering: ordering
Cancellation: cancelFromAdminAPI cancelFromContext
Combinators: awakeableOrTimeoutUsingAwaitAny awakeableOrTimeoutUsingAwakeableTimeoutCommand
Combinators: firstSuccessfulCompletedAwakeable signalFirstSuccessfulOrAllFailed signalAllSuccessfulOrFirstFailed
Combinators: signalAllCompleted signalFirstCompleted mixedRunWinsRaceAgainstSignal mixedSignalWinsAfterRunFails
Combinators: mixedAllSucceededRunAndSignal mixedAllCompletedRunSignalAndFailedRun
Custom: *
Ingress: headersPassThrough rawHandler
KillInvocation: kill
KillRuntime: startAndKillRuntimeRetainsTheState
StopRuntime: startAndStopRuntimeRetainsTheState
NonDeterminismErrors: method
ProxyRequestSigning: requestSigningPass
RunFlush: flush
RunRetry: withSuccess executedOnlyOnce withExhaustedAttempts
ServiceToServiceCommunication: regularCall oneWayCall oneWayCallWithIdempotencyKey callWithIdempotencyKey
ServiceToServiceCommunication: oneWayCallWithDelay
ServiceToServiceScopeConcurrency: scopeAndLimitKeyArePropagatedOnServiceToServiceCalls
Signals: resolve reject
Sleep: sleep manySleeps
SleepWithFailures: sleepAndKillServiceEndpoint sleepAndTerminateServiceEndpoint
State: add proxyOneWayAdd listStateAndClearAll
UserErrors: invokeTerminallyFailingCall failSeveralTimes internalCallFailurePropagation sideEffectWithTerminalError
UserErrors: invokeTerminallyFailingCallWithMetadata internalCallFailurePropagationWithMetadata
UserErrors: sideEffectWithTerminalErrorWithMetadata callTerminallyFailingCallWithMetadata
UserErrors: setStateThenFailShouldPersistState invocationWithEventualSuccess
WorkflowAPI: setAndResolve
AwakeableIngressEndpointTest: completeWithSuccess completeWithFailure
AwakeableLeaderTransferTest: completionSurvivesTheWorker
BackwardCompatibilityTest: *
ForwardCompatibilityTest: *
ConcurrencyLimitTest: *
IngressTest: idempotentInvokeVirtualObject idempotentInvokeService idempotentSend idempotentSendThenAttach
IngressTest: privateService
InvokerMemoryTest: allCompleteUnderMemoryPressure pausedOverTheLimit
JournalRetentionTest: journalAfterCompletion
KafkaTest: callWorkflowHandler callSharedWorkflowHandler callObjectHandler callServiceHandler shouldGenerateTraces
OpenAPITest: *
PauseResumeTest: pauseAndResume
PauseResumeChangingDeploymentTest: resumeOnAFixedDeployment
RestartAsNewInvocationTest: restartCompletedWithTerminalException restartFromPrefix
ScopeIsolationTest: *
StatePatchingTest: mutateState
TracingTest: *
UpgradeTest: *
"""


def contract() -> set[Scenario]:
    """Every scenario that has to be shown or omitted."""
    lines = [line.partition(": ") for line in CONTRACT.strip().splitlines()]
    return {Scenario(group, name) for group, _, names in lines for name in names.split()}


def every_test() -> Iterator[Callable[..., object]]:
    """Every test of the folder but those in this file."""
    for path in sorted(HERE.glob("test_*.py")):
        if path.stem not in OWN:
            module = importlib.import_module(f"tests.conformance.{path.stem}")
            yield from (value for name, value in vars(module).items() if name.startswith("test_"))


SHOWN = {scenario for test in every_test() for scenario in scenarios_of(test)}


def test_each_test_names_its_scenarios() -> None:
    """A test without a scenario would be missing on the page."""
    assert [test.__name__ for test in every_test() if not scenarios_of(test)] == []


def test_each_scenario_is_shown_or_omitted() -> None:
    """None of the contract is forgotten, and none is both."""
    omitted = {omitted.scenario for omitted in OMITTED}
    assert contract() - SHOWN - omitted == set()
    assert SHOWN & omitted == set()
    assert all(omitted.reason for omitted in OMITTED)


def test_the_page_is_of_these_scenarios() -> None:
    """docs/conformance.md names every scenario and every reason, and nothing failed in its run."""
    text = PAGE.read_text(encoding="utf-8")
    assert {str(scenario) for scenario in SHOWN if f"| {scenario} |" not in text} == set()
    assert [omitted for omitted in OMITTED if f"| {omitted.scenario} | {omitted.reason} |" not in text] == []
    assert "FAILS" not in text


def test_a_failure_is_on_the_page() -> None:
    """One failed test of several makes its scenario fail at that point."""
    scenario = Scenario("Group", "name")
    results = [Result((scenario,), "plain-1", True), Result((scenario,), "plain-1", False)]
    text = page({"embedded": [*results, Result((scenario,), "replay-3", True)], "apache": []})
    assert "| Group.name | replay-3; FAILS at plain-1 | - |" in text
