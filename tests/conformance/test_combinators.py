"""Waiting for several things: who won is what the journal says, in every replay."""

from __future__ import annotations

import pytest

from perdure import Handle
from perdure.schemas.errors import TerminalError
from tests.waiting import PATIENCE, wait_until

from .catalogue import verifies
from .contract_objects import list_object, unlock
from .contract_services import SignalToResolve, reject_signal, resolve_signal
from .core_cases import await_twice, combinator_then_more, nested, partly_resolved, shared_futures, timed_out
from .deployed import Deployed
from .interpreter import (
    TIMED_OUT,
    AwaitableCommand,
    AwaitAllCompleted,
    AwaitAllSucceededOrFirstFailed,
    AwaitAny,
    AwaitAnySuccessful,
    AwaitAwakeableOrTimeout,
    AwaitFirstCompleted,
    AwaitFirstSucceededOrAllFailed,
    AwaitOne,
    Command,
    CreateAwakeable,
    CreateSignal,
    GetEnvVariable,
    Program,
    RejectAwakeable,
    ResolveAwakeable,
    RunReturns,
    RunThrowTerminalException,
    Sleep,
    get_results,
    interpret_commands,
    interpreter_has_awakeable,
    reject_awakeable,
    resolve_awakeable,
)

LONG_MS = 3_600_000


async def _start(deployed: Deployed, *commands: Command) -> tuple[str, Handle[str]]:
    key = deployed.key()
    return key, await deployed.send(interpret_commands, Program(list(commands)), key=key)


async def _has(deployed: Deployed, key: str, awakeable: str) -> None:
    async def has() -> bool:
        return await deployed.call(interpreter_has_awakeable, awakeable, key=key)

    await wait_until(has, description=f"{key} has the awakeable {awakeable}")


async def _signal(deployed: Deployed, handle: Handle[str], name: str, value: str) -> None:
    await deployed.call(resolve_signal, SignalToResolve(handle.invocation_id, name, value))


async def _reject(deployed: Deployed, handle: Handle[str], name: str, reason: str) -> None:
    await deployed.call(reject_signal, SignalToResolve(handle.invocation_id, name, reason))


def _signals(count: int) -> list[CreateSignal]:
    return [CreateSignal(f"sig{number}") for number in range(count)]


@verifies("Combinators", "awakeableOrTimeoutUsingAwaitAny")
async def test_the_first_of_an_awakeable_and_a_sleep(deployed: Deployed) -> None:
    """The awakeable wins while the sleep goes on, and is what the object remembers."""
    key, handle = await _start(deployed, AwaitAny([CreateAwakeable("awk1"), Sleep(LONG_MS)]))
    await _has(deployed, key, "awk1")
    await deployed.call(resolve_awakeable, ResolveAwakeable("awk1", "Here"), key=key)
    assert await handle.result(timeout=PATIENCE) == "Here"
    assert await deployed.call(get_results, key=key) == ["Here"]


@verifies("Combinators", "awakeableOrTimeoutUsingAwakeableTimeoutCommand")
async def test_an_awakeable_that_does_not_come_in_time(deployed: Deployed) -> None:
    """The timeout is a terminal failure of the handler's own."""
    key, handle = await _start(deployed, AwaitAwakeableOrTimeout("awk1", 50))
    with pytest.raises(TerminalError, match=TIMED_OUT):
        await handle.result(timeout=PATIENCE)
    assert await deployed.call(get_results, key=key) == []


@verifies("Combinators", "firstSuccessfulCompletedAwakeable")
async def test_a_rejected_awakeable_is_passed_over(deployed: Deployed) -> None:
    """The first that succeeds counts, though another one was done before."""
    key, handle = await _start(deployed, AwaitAnySuccessful([CreateAwakeable("awk1"), CreateAwakeable("awk2")]))
    await _has(deployed, key, "awk2")
    await deployed.call(reject_awakeable, RejectAwakeable("awk1", "no"), key=key)
    await deployed.call(resolve_awakeable, ResolveAwakeable("awk2", "yes"), key=key)
    assert await handle.result(timeout=PATIENCE) == "yes"


@verifies("Combinators", "signalFirstSuccessfulOrAllFailed")
async def test_first_success_of_signals(deployed: Deployed) -> None:
    """Failures are passed over until one succeeds, or all failed."""
    _, handle = await _start(deployed, AwaitFirstSucceededOrAllFailed([*_signals(3)]))
    await _reject(deployed, handle, "sig0", "no")
    await _signal(deployed, handle, "sig1", "val1")
    assert await handle.result(timeout=PATIENCE) == "val1"
    _, handle = await _start(deployed, AwaitFirstSucceededOrAllFailed([*_signals(2)]))
    await _reject(deployed, handle, "sig0", "err0")
    await _reject(deployed, handle, "sig1", "err1")
    with pytest.raises(TerminalError, match=r"err[01]"):
        await handle.result(timeout=PATIENCE)


@verifies("Combinators", "signalAllSuccessfulOrFirstFailed")
async def test_all_signals_or_the_first_failure(deployed: Deployed) -> None:
    """All values in the order asked for; one failure ends the wait while others are open."""
    _, handle = await _start(deployed, AwaitAllSucceededOrFirstFailed([*_signals(2)]))
    await _signal(deployed, handle, "sig1", "val1")
    await _signal(deployed, handle, "sig0", "val0")
    assert await handle.result(timeout=PATIENCE) == "val0|val1"
    _, handle = await _start(deployed, AwaitAllSucceededOrFirstFailed([*_signals(2)]))
    await _reject(deployed, handle, "sig1", "err1")
    with pytest.raises(TerminalError, match="err1"):
        await handle.result(timeout=PATIENCE)


@verifies("Combinators", "signalAllCompleted")
async def test_all_signals_however_they_end(deployed: Deployed) -> None:
    """Every outcome, in the order asked for."""
    _, handle = await _start(deployed, AwaitAllCompleted([*_signals(3)]))
    await _signal(deployed, handle, "sig2", "val2")
    await _reject(deployed, handle, "sig1", "err1")
    await _signal(deployed, handle, "sig0", "val0")
    assert await handle.result(timeout=PATIENCE) == "ok:val0|err:err1|ok:val2"


@verifies("Combinators", "signalFirstCompleted")
async def test_the_first_signal(deployed: Deployed) -> None:
    """The one that came, whichever it is."""
    _, handle = await _start(deployed, AwaitFirstCompleted([*_signals(2)]))
    await _signal(deployed, handle, "sig1", "val1")
    assert await handle.result(timeout=PATIENCE) == "val1"


@verifies("Combinators", "mixedRunWinsRaceAgainstSignal")
async def test_a_step_wins_against_a_signal(deployed: Deployed) -> None:
    """A step and a signal race; nobody sends the signal."""
    _, handle = await _start(deployed, AwaitFirstCompleted([RunReturns("run"), CreateSignal("sig0")]))
    assert await handle.result(timeout=PATIENCE) == "run"


@verifies("Combinators", "mixedSignalWinsAfterRunFails")
async def test_a_signal_wins_after_a_step_failed(deployed: Deployed) -> None:
    """The failed step is passed over."""
    commands = AwaitFirstSucceededOrAllFailed([RunThrowTerminalException("no"), CreateSignal("sig0")])
    _, handle = await _start(deployed, commands)
    await _signal(deployed, handle, "sig0", "signal")
    assert await handle.result(timeout=PATIENCE) == "signal"


@verifies("Combinators", "mixedAllSucceededRunAndSignal")
async def test_a_step_and_a_signal_together(deployed: Deployed) -> None:
    """Both values."""
    _, handle = await _start(deployed, AwaitAllSucceededOrFirstFailed([RunReturns("run"), CreateSignal("sig0")]))
    await _signal(deployed, handle, "sig0", "signal")
    assert await handle.result(timeout=PATIENCE) == "run|signal"


@verifies("Combinators", "mixedAllCompletedRunSignalAndFailedRun")
async def test_steps_and_a_signal_however_they_end(deployed: Deployed) -> None:
    """Every outcome."""
    waited: list[AwaitableCommand] = [RunReturns("run"), CreateSignal("sig0"), RunThrowTerminalException("failed run")]
    _, handle = await _start(deployed, AwaitAllCompleted(waited))
    await _signal(deployed, handle, "sig0", "signal")
    assert await handle.result(timeout=PATIENCE) == "ok:run|ok:signal|err:failed run"


@verifies("Combinators", "wholeVocabulary")
async def test_commands_one_after_the_other(deployed: Deployed) -> None:
    """One program of every other command; each result is kept in the object."""
    key, handle = await _start(
        deployed,
        AwaitOne(RunReturns("one")),
        AwaitOne(Sleep(1)),
        GetEnvVariable("A_VARIABLE_THAT_NOBODY_SETS"),
        AwaitAny([RunReturns("any"), CreateAwakeable("mine")]),
        ResolveAwakeable("mine", "by its own hand"),
        RejectAwakeable("mine", "too late"),
        AwaitAnySuccessful([RunThrowTerminalException("no"), RunReturns("last")]),
    )
    assert await handle.result(timeout=PATIENCE) == "last"
    assert await deployed.call(get_results, key=key) == [
        "one", "sleep", "", "any", "", "", "last",
    ]  # fmt: skip


@verifies("Signals", "resolve")
async def test_a_signal_is_resolved(deployed: Deployed) -> None:
    """Its value is what the waiter gets, from a handler and from outside."""
    key, handle = await _start(deployed, AwaitOne(CreateSignal("mine")), AwaitOne(CreateSignal("mine")))
    await _signal(deployed, handle, "mine", "first")

    async def first_came() -> bool:
        return await deployed.call(get_results, key=key) == ["first"]

    # A handler's signal is on its way when the handler has returned.
    await wait_until(first_came)
    await deployed.outside.resolve_signal(handle.invocation_id, "mine", "second")
    assert await handle.result(timeout=PATIENCE) == "second"


@verifies("Signals", "reject")
async def test_a_signal_is_rejected(deployed: Deployed) -> None:
    """Its waiter sees a TerminalError."""
    _, handle = await _start(deployed, AwaitOne(CreateSignal("mine")))
    await _reject(deployed, handle, "mine", "not today")
    with pytest.raises(TerminalError, match="not today"):
        await handle.result(timeout=PATIENCE)


@verifies("Signals", "bufferedBeforeTheWait")
async def test_signals_that_come_early_are_kept(deployed: Deployed) -> None:
    """Two signals of one name that come before the wait for them are taken in the order in which they came."""
    key, handle = await _start(
        deployed, AwaitOne(CreateAwakeable("gate")), AwaitOne(CreateSignal("s")), AwaitOne(CreateSignal("s"))
    )
    await _has(deployed, key, "gate")
    for value in ("first", "second"):
        await deployed.outside.resolve_signal(handle.invocation_id, "s", value)
    await deployed.call(resolve_awakeable, ResolveAwakeable("gate", "open"), key=key)
    assert await handle.result(timeout=PATIENCE) == "second"
    assert await deployed.call(get_results, key=key) == ["open", "first", "second"]


@verifies("AwakeableIngressEndpointTest", "completeWithSuccess", "completeWithFailure")
async def test_awakeables_are_completed_from_outside(deployed: Deployed) -> None:
    """With a value, or with a failure that the waiter sees; the first completion counts."""
    key, handle = await _start(deployed, AwaitOne(CreateAwakeable("a")), AwaitOne(CreateAwakeable("b")))
    await _has(deployed, key, "a")
    first = (await deployed.outside.state(f"VirtualObjectCommandInterpreter/{key}"))["awk-a"]
    assert await deployed.outside.resolve_awakeable(first, "resolved")
    assert not await deployed.outside.reject_awakeable(first, "too late")
    await _has(deployed, key, "b")
    second = (await deployed.outside.state(f"VirtualObjectCommandInterpreter/{key}"))["awk-b"]
    await deployed.outside.reject_awakeable(second, "rejected from outside")
    with pytest.raises(TerminalError, match="rejected from outside"):
        await handle.result(timeout=PATIENCE)
    assert await deployed.call(get_results, key=key) == ["resolved"]


@verifies("async_result", "awaitTheSameHandleTwice")
async def test_a_future_is_awaited_twice(deployed: Deployed) -> None:
    """It has the same result each time, whatever lies in between."""
    assert await deployed.call(await_twice, key=deployed.key()) == ["a", "a"]


@verifies("async_result", "combinatorsShareHandles")
async def test_combinators_share_futures(deployed: Deployed) -> None:
    """One future in several combinators and by itself."""
    assert await deployed.call(shared_futures, key=deployed.key()) == ["a", "a", "b", "a", "b"]


@verifies("async_result", "suspensionWithPartialResolution")
async def test_a_wait_that_is_partly_resolved(deployed: Deployed) -> None:
    """What came is kept while the rest is waited for, in memory or outside of it."""
    key = deployed.key()
    handle = await deployed.send(partly_resolved, key=key)

    async def both_named() -> bool:
        return len(await deployed.call(list_object.get, key=key)) == 2

    await wait_until(both_named)
    names = await deployed.call(list_object.get, key=key)
    await deployed.outside.resolve_awakeable(names[1], "second")
    await deployed.outside.becomes(handle.invocation_id, "running", "suspended")
    await deployed.outside.resolve_awakeable(names[0], "first")
    assert await handle.result(timeout=PATIENCE) == ["first", "second"]


@verifies("async_result", "combinatorFollowedByAnotherEntry")
async def test_commands_after_a_race(deployed: Deployed) -> None:
    """What follows a race is replayed under the same winner."""
    key = deployed.key()
    handle = await deployed.send(combinator_then_more, key=key)
    await deployed.held(key)
    await deployed.call(unlock, "here", key=key)
    assert await handle.result(timeout=PATIENCE) == ["answer"] * 3


@verifies("async_result", "combinatorsNested")
async def test_combinators_in_tasks(deployed: Deployed) -> None:
    """Combinators inside of `asyncio.gather` and beside a `TaskGroup` replay as they ran."""
    assert await deployed.call(nested, key=deployed.key()) == ["quick", ["a", "b"], "c", "d"]


@verifies("async_result", "timeoutThenMore")
async def test_commands_after_a_timeout(deployed: Deployed) -> None:
    """A timeout is decided once, and what follows it is replayed under that decision."""
    assert await deployed.call(timed_out, key=deployed.key()) == "timed out"
