"""Workflows: one run for each key, shared handlers beside it, durable promises."""

from __future__ import annotations

import pytest

from tests.waiting import wait_until

from .catalogue import verifies
from .contract_services import block_and_wait, get_state, unblock
from .core_cases import attaches, calls_workflow
from .core_state import peek, reject, resolve, run
from .deployed import Deployed


@verifies("WorkflowAPI", "setAndResolve")
async def test_a_workflow_is_submitted_and_resolved(deployed: Deployed) -> None:
    """A shared handler resolves what the run waits for; submitted again, it is the same run with the same id."""
    key = deployed.key()
    submitted = await deployed.submit(block_and_wait, "Francesco", key=key)

    async def began() -> bool:
        return await deployed.call(get_state, key=key) == "Francesco"

    await wait_until(began)
    await deployed.call(unblock, "Till", key=key)
    assert await deployed.result(submitted) == "Till"
    assert await deployed.call(get_state, key=key) == "Francesco"
    assert await deployed.submit(block_and_wait, "Another", key=key) == submitted
    assert await deployed.result(submitted) == "Till"
    assert await deployed.call(get_state, key=key) == "Francesco"
    assert await deployed.call(attaches, submitted, key=deployed.key()) == "Till"


@verifies("calls", "workflowsFromHandlers")
async def test_handlers_submit_workflows(deployed: Deployed) -> None:
    """However often and in whatever way a handler submits a workflow, it runs once, and all calls get its result."""
    result = await deployed.call(calls_workflow, deployed.key(), key=deployed.key())
    assert result == ["sent", "unblocked", '"unblocked"']


@verifies("promise", "getSuccess", "getNull", "getFailure")
async def test_promises_are_awaited(deployed: Deployed) -> None:
    """Each is awaited with what completed it: a value, nothing, a failure."""
    key = deployed.key()
    submitted = await deployed.submit(run, key=key)
    assert await deployed.call(reject, "failure", key=key) == "rejected"
    assert await deployed.call(resolve, {"value": {"a": 1}}, key=key) == "resolved"
    assert await deployed.call(resolve, {"null": None}, key=key) == "resolved"
    assert await deployed.result(submitted) == [{"a": 1}, None, "418 rejected by hand"]


@verifies("promise", "peekOpen", "peekSuccess", "peekFailure")
async def test_promises_are_peeked_at(deployed: Deployed) -> None:
    """Nothing while it is open, then what completed it."""
    key = deployed.key()
    assert await deployed.call(peek, "value", key=key) is None
    await deployed.call(resolve, {"value": 7}, key=key)
    await deployed.call(reject, "failure", key=key)
    assert await deployed.call(peek, "value", key=key) == 7
    assert await deployed.call(peek, "failure", key=key) == "418 rejected by hand"


@pytest.mark.parametrize("again", ["resolve", "reject"])
@verifies("promise", "completeTwice")
async def test_a_promise_is_completed_once(deployed: Deployed, again: str) -> None:
    """Completing it again is a TerminalError 409, and changes nothing."""
    key = deployed.key()
    await deployed.call(resolve, {"value": 1}, key=key)
    if again == "resolve":
        answer = await deployed.call(resolve, {"value": 2}, key=key)
    else:
        answer = await deployed.call(reject, "value", key=key)
    assert answer == "409 promise was already completed"
    assert await deployed.call(peek, "value", key=key) == 1


@verifies("promise", "resolvedBeforeTheRun")
async def test_promises_that_are_completed_before_the_run(deployed: Deployed) -> None:
    """A run that begins later finds them."""
    key = deployed.key()
    for name in ("value", "null"):
        await deployed.call(resolve, {name: name}, key=key)
    await deployed.call(reject, "failure", key=key)
    submitted = await deployed.submit(run, key=key)
    assert await deployed.result(submitted) == ["value", "null", "418 rejected by hand"]
