"""Failures: what callers see, what is retried and how often, what diverges, what waits for a person."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from perdure.schemas.errors import TerminalError
from tests.waiting import PATIENCE, wait_until

from .catalogue import verifies
from .contract_failures import (
    FailureToPropagate,
    background_invoke_with_different_targets,
    call_different_method,
    call_terminally_failing_call,
    either_sleep_or_call,
    failing_call_with_eventual_success,
    set_different_key,
    side_effect_fails_after_given_attempts,
    side_effect_succeeds_after_given_attempts,
    terminally_failing_call,
    terminally_failing_side_effect,
)
from .contract_objects import counter
from .contract_services import count_executed_side_effects
from .core_cases import executions
from .core_failures import (
    Divergence,
    StepPolicy,
    await_added,
    call_and_fail,
    diverge,
    failing_step,
    fails_after_attempts,
    fails_around_progress,
    fails_for_good,
    interrupted_step,
    too_large,
    unstable_payload,
)
from .core_state import read_state
from .deployed import Deployed

FAILING: list[Any] = [
    pytest.param(terminally_failing_call, id="call"),
    pytest.param(call_terminally_failing_call, id="call-of-call"),
    pytest.param(terminally_failing_side_effect, id="step"),
]


@pytest.mark.parametrize("metadata", [{}, {"key1": "value1", "key2": "value2"}], ids=["plain", "metadata"])
@pytest.mark.parametrize("target", FAILING)
@verifies(
    "UserErrors",
    "invokeTerminallyFailingCall",
    "internalCallFailurePropagation",
    "sideEffectWithTerminalError",
    "invokeTerminallyFailingCallWithMetadata",
    "internalCallFailurePropagationWithMetadata",
    "sideEffectWithTerminalErrorWithMetadata",
)
async def test_a_terminal_failure_reaches_the_caller(deployed: Deployed, target: Any, metadata: dict[str, str]) -> None:
    """Message, code and metadata, from a handler, through a call, and out of a step."""
    with pytest.raises(TerminalError) as raised:
        await deployed.call(target, FailureToPropagate("my error", metadata), key=deployed.key())
    assert (raised.value.message, raised.value.status_code) == ("my error", 500)
    assert raised.value.metadata == metadata


@verifies("UserErrors", "failSeveralTimes")
async def test_a_failed_invocation_does_not_block_its_object(deployed: Deployed) -> None:
    """The same object fails three times in a row."""
    key = deployed.key()
    for number in range(3):
        with pytest.raises(TerminalError, match=f"error {number}"):
            await deployed.call(terminally_failing_call, FailureToPropagate(f"error {number}"), key=key)


@verifies("UserErrors", "callTerminallyFailingCallWithMetadata")
async def test_a_handler_catches_a_callees_failure(deployed: Deployed) -> None:
    """What a caller catches has code, message and metadata."""
    assert await deployed.call(call_and_fail, deployed.key()) == "500 the callee failed {'a': 'b'}"


@verifies("UserErrors", "invocationWithEventualSuccess")
async def test_an_attempt_is_retried_until_it_succeeds(deployed: Deployed) -> None:
    """Three failures that may pass, and the fourth attempt's result."""
    assert await deployed.call(failing_call_with_eventual_success, key=deployed.key()) == 4


@verifies("RunRetry", "withSuccess")
async def test_a_step_is_retried_until_it_succeeds(deployed: Deployed) -> None:
    """The step's own policy; the result is that of the execution that succeeded."""
    assert await deployed.call(side_effect_succeeds_after_given_attempts, 3, key=deployed.key()) == 3


@verifies("RunRetry", "executedOnlyOnce")
async def test_a_step_without_retries(deployed: Deployed) -> None:
    """One execution, then a TerminalError."""
    assert await deployed.call(side_effect_fails_after_given_attempts, 1, key=deployed.key()) == 1


@verifies("RunRetry", "withExhaustedAttempts")
async def test_a_step_whose_attempts_are_exhausted(deployed: Deployed) -> None:
    """As many executions as were allowed, then a TerminalError."""
    assert await deployed.call(side_effect_fails_after_given_attempts, 3, key=deployed.key()) == 3


@verifies("RunFlush", "flush")
@verifies("run", "ackProtocol")
async def test_a_steps_result_is_recorded_before_the_next_step(deployed: Deployed) -> None:
    """With a replay at every wait, the attempt that answers has executed nothing itself."""
    deployed.point.replays_or_skip()
    assert await deployed.call(count_executed_side_effects, 3) == 0


@verifies("run", "replayWithoutCompletion")
async def test_a_recorded_step_is_not_executed_again(deployed: Deployed) -> None:
    """An attempt that fails after a step costs the step no second execution."""
    assert await deployed.call(interrupted_step, key=deployed.key()) == 11


STEP_EXECUTIONS: dict[StepPolicy, int] = {
    "none": 4,
    "fixed": 4,
    "exponential": 4,
    "attempts 1": -1,
    "attempts 3": -3,
}


@pytest.mark.parametrize("policy", get_args(StepPolicy))
@verifies("run", "retryPolicies")
async def test_policies_of_steps(deployed: Deployed, policy: StepPolicy) -> None:
    """A step that fails three times: how often each policy has it executed; negative: it gave up."""
    executed = await deployed.call(failing_step, policy, key=deployed.key())
    # When the duration is over is the machine's affair; that it gave up at all is what is shown.
    assert executed in (-1, -2, -3) if policy == "duration" else executed == STEP_EXECUTIONS[policy]


@verifies("run", "counterResetByProgress")
async def test_progress_resets_the_count_of_failures(deployed: Deployed) -> None:
    """Nine failures with four attempts allowed in a row: a step in between is progress."""
    assert await deployed.call(fails_around_progress, key=deployed.key()) >= 9


NON_DETERMINISTIC: list[Any] = [
    pytest.param(either_sleep_or_call, id="eitherSleepOrCall"),
    pytest.param(call_different_method, id="callDifferentMethod"),
    pytest.param(background_invoke_with_different_targets, id="backgroundInvokeWithDifferentTargets"),
    pytest.param(set_different_key, id="setDifferentKey"),
]


@pytest.mark.parametrize("target", NON_DETERMINISTIC)
@verifies("NonDeterminismErrors", "method")
async def test_a_handler_that_diverges_never_succeeds(deployed: Deployed, target: Any) -> None:
    """Its replay pauses it, with both sides in the message, before anything of the second run takes effect."""
    deployed.point.replays_or_skip()
    key = deployed.key()
    handle = await deployed.send(target, key=key)
    await deployed.outside.becomes(handle.invocation_id, "paused")
    failure = await deployed.outside.failure(handle.invocation_id)
    assert "diverged from its journal at command 0" in failure
    assert await deployed.call(counter.get, key=key) == 0
    await deployed.outside.kill(handle.invocation_id)


@pytest.mark.parametrize("what", get_args(Divergence))
@verifies("failures", "mismatchPerCommand")
async def test_each_command_is_told_from_another(deployed: Deployed, what: Divergence) -> None:
    """Another command in its place, or none at all, pauses the invocation at that command."""
    handle = await deployed.send(diverge, what, key=deployed.key())
    await deployed.outside.becomes(handle.invocation_id, "paused")
    failure = await deployed.outside.failure(handle.invocation_id)
    assert "diverged from its journal at command 0" in failure
    await deployed.outside.kill(handle.invocation_id)


@verifies("failures", "unstablePayload")
async def test_payloads_may_differ(deployed: Deployed) -> None:
    """Other bytes in the same command are no divergence; what was recorded counts."""
    assert await deployed.call(unstable_payload, key=deployed.key()) >= 2


@pytest.mark.parametrize("what", ["run", "resolved"])
@verifies("failures", "awaitAddedAfterProgress")
async def test_an_await_is_added(deployed: Deployed, what: str) -> None:
    """A deployment may await what was only issued before, where the journal has its result."""
    assert await deployed.call(await_added, what, key=deployed.key()) == "value"


@pytest.mark.parametrize("what", ["sleep", "awakeable"])
@verifies("failures", "awaitAddedBeforeProgress")
async def test_an_await_is_added_that_was_never_over(deployed: Deployed, what: str) -> None:
    """It would have kept the handler from what it did next: that is a divergence, and pauses it at once."""
    handle = await deployed.send(await_added, what, key=deployed.key())
    await deployed.outside.becomes(handle.invocation_id, "paused")
    assert "the handler waits for an earlier command" in await deployed.outside.failure(handle.invocation_id)
    await deployed.outside.kill(handle.invocation_id)


@verifies("PauseResumeTest", "pauseAndResume")
async def test_a_paused_invocation_is_resumed(deployed: Deployed) -> None:
    """After its last attempt it waits for a person, and goes on from its journal when one says so."""
    name = deployed.key()
    handle = await deployed.send(fails_after_attempts, name)
    await deployed.outside.becomes(handle.invocation_id, "paused")
    assert "nobody has mended this" in await deployed.outside.failure(handle.invocation_id)
    executions[f"{name} mended"] += 1
    assert await deployed.outside.resume(handle.invocation_id)
    assert await handle.result(timeout=PATIENCE) == 1
    assert not await deployed.outside.resume(handle.invocation_id)


@pytest.mark.parametrize("what", ["step", "state"])
@verifies("InvokerMemoryTest", "pausedOverTheLimit")
async def test_what_is_too_large_is_not_recorded(deployed: Deployed, what: str) -> None:
    """A step's result or a value of the state over the limit fails the attempts, and then waits for a person."""
    key = deployed.key()
    handle = await deployed.send(too_large, what, key=key)
    await deployed.outside.becomes(handle.invocation_id, "paused")
    assert "at most" in await deployed.outside.failure(handle.invocation_id)
    await deployed.outside.kill(handle.invocation_id)
    assert await deployed.call(read_state, key=key) == {}


@pytest.mark.parametrize(("keep", "once"), [(0, 2), (1, 1)], ids=["anew", "from-prefix"])
@verifies("RestartAsNewInvocationTest", "restartCompletedWithTerminalException", "restartFromPrefix")
async def test_a_failed_invocation_is_restarted(deployed: Deployed, keep: int, once: int) -> None:
    """A new invocation has the same input, and the results of the commands that were kept."""
    name = deployed.key()
    handle = await deployed.send(fails_for_good, name)
    with pytest.raises(TerminalError, match="nobody has mended this"):
        await handle.result(timeout=PATIENCE)
    executions[f"{name} mended"] += 1
    fresh = await deployed.outside.restart(handle.invocation_id, keep=keep)
    assert fresh != handle.invocation_id
    assert await deployed.result(fresh) == once


@verifies("PauseResumeTest", "pauseByHand")
async def test_an_invocation_is_paused_by_hand(deployed: Deployed) -> None:
    """One that backs off is paused at once; a cancellation then ends it."""
    name = deployed.key()
    handle = await deployed.send(fails_after_attempts, name)
    await wait_until(lambda: executions[f"{name} once"])
    await deployed.outside.pause(handle.invocation_id)
    await deployed.outside.becomes(handle.invocation_id, "paused")
    executions[f"{name} mended"] += 1
    await deployed.outside.resume(handle.invocation_id)
    assert await handle.result(timeout=PATIENCE) == 1
