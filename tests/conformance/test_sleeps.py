"""Sleeps, suspensions, and what stands in the journal afterwards."""

from __future__ import annotations

import asyncio

from perdure.schemas.entries import AttemptStarted, Completion, Input, Output, Sleep
from perdure.worker.clock import SystemClock
from tests.waiting import PATIENCE

from .catalogue import verifies
from .contract_objects import unlock
from .contract_services import sleep_concurrently
from .core_cases import waits_for_ever
from .core_failures import sleep_once
from .deployed import Deployed


@verifies("Sleep", "sleep")
async def test_a_sleep_lasts_as_long_as_it_was_asked_for(deployed: Deployed) -> None:
    """Never less."""
    clock = SystemClock()
    started_ms = clock.monotonic_ms()
    await deployed.call(sleep_concurrently, [10])
    assert clock.monotonic_ms() - started_ms >= 10


@verifies("Sleep", "manySleeps")
async def test_many_sleeps_at_once(deployed: Deployed) -> None:
    """Fifty invocations with twenty sleeps each; ten where each sleep costs a replay of each before it."""
    millis = [number % 7 * 5 for number in range(20)]
    count = 10 if deployed.point.always_replay else 50
    handles = await asyncio.gather(*(deployed.send(sleep_concurrently, millis) for _ in range(count)))
    await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))


@verifies("JournalRetentionTest", "journalAfterCompletion")
async def test_the_journal_after_completion(deployed: Deployed) -> None:
    """The input, the sleep, its completion, the output, and the events of later attempts."""
    handle = await deployed.send(sleep_once)
    assert await handle.result(timeout=PATIENCE) == "slept"
    journal = await deployed.outside.journal(handle.invocation_id)
    assert [type(entry) for entry in journal if not isinstance(entry, AttemptStarted)] == [
        Input,
        Sleep,
        Completion,
        Output,
    ]


@verifies("suspensions", "waitingLeavesMemory")
async def test_a_wait_for_others_is_suspended(deployed: Deployed) -> None:
    """With a replay at every wait, what waits for an awakeable is no attempt; its completion makes it one again."""
    deployed.point.replays_or_skip()
    key = deployed.key()
    handle = await deployed.send(waits_for_ever, key=key)
    await deployed.held(key)
    await deployed.outside.becomes(handle.invocation_id, "suspended")
    await deployed.call(unlock, "go", key=key)
    await handle.result(timeout=PATIENCE)
