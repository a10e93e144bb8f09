"""Cancelling and killing: what waits is interrupted, callees too, and objects are free again."""

from __future__ import annotations

from typing import get_args

import pytest

from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import id_of_workflow
from tests.waiting import PATIENCE, wait_until

from .catalogue import verifies
from .contract_failures import (
    BlockingOperation,
    is_unlocked,
    recursive_call,
    singleton_is_unlocked,
    start_call_tree,
    start_test,
    verify_test,
)
from .contract_objects import has_awakeable, list_object, unlock
from .contract_services import cancel_invocation
from .core_cases import (
    await_after_cancel,
    cancels_its_callee,
    compensate,
    executions,
    sends_and_waits,
    waits_for_ever,
    waits_for_workflow,
)
from .deployed import Deployed

OPERATIONS = get_args(BlockingOperation)


async def _blocked(deployed: Deployed, operation: BlockingOperation) -> tuple[str, str]:
    """A runner whose callee is blocked: its key, and its id."""
    key = deployed.key()
    handle = await deployed.send(start_test, operation, key=key)
    await deployed.held(key)
    await deployed.call(unlock, "go", key=key)
    return key, handle.invocation_id


async def _is_cancelled(deployed: Deployed, key: str) -> None:
    async def cancelled() -> bool:
        return await deployed.call(verify_test, key=key)

    await wait_until(cancelled, description="the runner saw the cancellation")
    await deployed.call(is_unlocked, key=key)


@pytest.mark.parametrize("operation", OPERATIONS)
@verifies("Cancellation", "cancelFromAdminAPI")
async def test_cancelled_from_outside(deployed: Deployed, operation: BlockingOperation) -> None:
    """The callee's wait is interrupted, its caller sees a TerminalError 409, and the object is free."""
    key, invocation_id = await _blocked(deployed, operation)
    assert await deployed.outside.cancel(invocation_id)
    await _is_cancelled(deployed, key)


@pytest.mark.parametrize("operation", OPERATIONS)
@verifies("Cancellation", "cancelFromContext")
async def test_cancelled_by_a_handler(deployed: Deployed, operation: BlockingOperation) -> None:
    """`ctx.cancel_invocation` does the same."""
    key, invocation_id = await _blocked(deployed, operation)
    await deployed.call(cancel_invocation, invocation_id)
    await _is_cancelled(deployed, key)


@verifies("KillInvocation", "kill")
async def test_a_killed_call_tree_frees_its_objects(deployed: Deployed) -> None:
    """Killing the root of calls that wait for one another ends all of them."""
    key = deployed.key()
    handle = await deployed.send(start_call_tree, key=key)
    await deployed.held(key)
    await deployed.call(unlock, "go", key=key)
    assert await deployed.outside.kill(handle.invocation_id)
    await deployed.call(singleton_is_unlocked, key=key)
    with pytest.raises(TerminalError) as raised:
        await handle.result(timeout=PATIENCE)
    assert raised.value.status_code == 409


@verifies("KillInvocation", "killTwice")
async def test_killing_again_changes_nothing(deployed: Deployed) -> None:
    """The first kill is the outcome."""
    key = deployed.key()
    handle = await deployed.send(recursive_call, None, key=key)
    await deployed.held(key)
    assert await deployed.outside.kill(handle.invocation_id)
    assert not await deployed.outside.kill(handle.invocation_id)
    assert not await deployed.outside.cancel(handle.invocation_id)


@verifies("implicit_cancellation", "callThenCancel")
async def test_a_cancellation_runs_compensations(deployed: Deployed) -> None:
    """Interrupted, a handler may go on: with steps, sleeps, and a result of its own; nothing is done twice."""
    key = deployed.key()
    handle = await deployed.send(compensate, key=key)
    await deployed.held(key)
    assert await deployed.outside.cancel(handle.invocation_id)
    assert await handle.result(timeout=PATIENCE) == "409 compensated"
    assert {name: executions[f"{key} {name}"] for name in ("do", "undo")} == {"do": 1, "undo": 1}


@verifies("implicit_cancellation", "secondCancellation")
async def test_a_second_cancellation_interrupts_again(deployed: Deployed) -> None:
    """A wait that goes on after a cancellation is ended by the next one."""
    key = deployed.key()
    handle = await deployed.send(await_after_cancel, key=key)
    await deployed.held(key)
    await deployed.outside.cancel(handle.invocation_id)

    async def saw_it() -> bool:
        return await deployed.call(list_object.get, key=key) == ["cancelled 409"]

    await wait_until(saw_it)
    await deployed.outside.cancel(handle.invocation_id)
    with pytest.raises(TerminalError) as raised:
        await handle.result(timeout=PATIENCE)
    assert raised.value.status_code == 409


@verifies("implicit_cancellation", "futureOutlivesCancellation")
async def test_an_interrupted_future_can_be_awaited_again(deployed: Deployed) -> None:
    """The cancellation was not the future's result: it can still be resolved."""
    key = deployed.key()
    handle = await deployed.send(await_after_cancel, key=key)
    await deployed.held(key)
    await deployed.outside.cancel(handle.invocation_id)

    async def saw_it() -> bool:
        return await deployed.call(list_object.get, key=key) == ["cancelled 409"]

    await wait_until(saw_it)
    await deployed.call(unlock, "in the end", key=key)
    assert await handle.result(timeout=PATIENCE) == "in the end"


@verifies("implicit_cancellation", "sendsAreNotCancelled")
async def test_what_was_sent_is_not_cancelled(deployed: Deployed) -> None:
    """A cancellation goes on to callees and not to what was sent."""
    key, other = deployed.key(), deployed.key()
    handle = await deployed.send(sends_and_waits, other, key=key)
    await deployed.held(key)
    await deployed.held(other)
    await deployed.outside.cancel(handle.invocation_id)
    with pytest.raises(TerminalError):
        await handle.result(timeout=PATIENCE)
    assert await deployed.call(has_awakeable, key=other)
    await deployed.call(unlock, "done", key=other)
    # The object is free once its invocation has returned.
    after = await deployed.send(waits_for_ever, None, key=other)
    await deployed.held(other)
    await deployed.outside.kill(after.invocation_id)


@pytest.mark.parametrize("by_name", [False, True], ids=["function", "name"])
@verifies("implicit_cancellation", "workflowsAreCallees")
async def test_a_cancellation_goes_on_to_workflows(deployed: Deployed, by_name: bool) -> None:
    """A workflow that was called, by its function or by name, is cancelled with its caller."""
    key = deployed.key()
    handle = await deployed.send(waits_for_workflow, by_name, key=key)
    workflow = id_of_workflow("BlockAndWaitWorkflow", key)
    await deployed.outside.known(workflow)
    await deployed.outside.cancel(handle.invocation_id)
    for cancelled in (handle.invocation_id, workflow):
        with pytest.raises(TerminalError) as raised:
            await deployed.result(cancelled)
        assert raised.value.status_code == 409


@verifies("implicit_cancellation", "cancelByFuture")
async def test_a_call_is_cancelled_by_its_future(deployed: Deployed) -> None:
    """`cancel_invocation` of a call ends the callee; its caller sees the 409 as the call's result."""
    key, callee = deployed.key(), deployed.key()
    result = await deployed.call(cancels_its_callee, callee, key=key)
    assert result.startswith("409 inv_")
    await deployed.outside.becomes(result.split()[1], "completed")


@verifies("implicit_cancellation", "cancelBeforeItBegan")
async def test_what_waits_for_its_object_is_cancelled_at_once(deployed: Deployed) -> None:
    """An invocation in the queue of an object ends as cancelled, and those behind it go on."""
    key = deployed.key()
    first = await deployed.send(waits_for_ever, None, key=key)
    await deployed.held(key)
    second = await deployed.send(waits_for_ever, None, key=key)
    await deployed.outside.becomes(second.invocation_id, "pending")
    await deployed.outside.cancel(second.invocation_id)
    with pytest.raises(TerminalError) as raised:
        await second.result(timeout=PATIENCE)
    assert raised.value.status_code == 409
    assert await deployed.outside.status(first.invocation_id) in ("running", "suspended", "ready")
    await deployed.call(unlock, "go", key=key)
    await first.result(timeout=PATIENCE)
