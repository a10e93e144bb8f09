"""Keeping leases alive: `perdure.worker.leases`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Lease
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId
from perdure.worker.clock import SystemClock
from perdure.worker.leases import RETRY_S_MAX, LoopRenewal, ThreadRenewal
from tests.waiting import wait_until

LEASE = Lease(InvocationId("inv_a"), 1, "token", "me")
OTHER = Lease(InvocationId("inv_b"), 1, "token", "me")


class Renewer:
    """Renews what a test lets it renew; used in the thread."""

    def __init__(self) -> None:
        self.calls: list[list[Lease]] = []
        self.lengths: dict[Lease, int | None] = {}
        self.error: Exception | None = None
        self.closed = False

    def renew(self, leases: Sequence[Lease], lease_ms: int) -> list[int | None]:
        """See `BlockingRenewer.renew`."""
        self.calls.append(list(leases))
        if self.error is not None:
            raise self.error
        return [self.lengths.get(lease, 1) for lease in leases]

    def close(self) -> None:
        """See `BlockingRenewer.close`."""
        self.closed = True


class Waits(threading.Event):
    """Writes down for how long it was asked to wait, and waits for less."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event.wait`."""
        self.waited_s.append(timeout)
        return super().wait(0.01)


class Held:
    """What a worker holds."""

    def __init__(self) -> None:
        self.leases: list[Lease] = [LEASE]
        self.asked: list[Lease] = []
        self.answers: list[tuple[Lease, int | None]] = []

    def held(self) -> Sequence[Lease]:
        """See `HeldLeases.held`."""
        return list(self.leases)

    def expected(self) -> Sequence[Lease]:
        """See `HeldLeases.expected`."""
        return list(self.asked)

    def renewed(self, lease: Lease, length: int | None) -> None:
        """See `HeldLeases.renewed`."""
        self.answers.append((lease, length))


@asynccontextmanager
async def renewing(renewer: Renewer, held: Held, *, block_ms_max: int = 60_000) -> AsyncIterator[None]:
    """Renew while the block runs, some dozens of times a second."""
    renewal = ThreadRenewal(lambda: renewer, clock=SystemClock(), lease_ms=60, block_ms_max=block_ms_max)
    task = asyncio.create_task(renewal.run(held))
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_what_is_held_and_expected_is_renewed() -> None:
    """Answers come for what is held; of what is only expected, nothing can be learnt."""
    renewer, held = Renewer(), Held()
    held.asked = [OTHER]
    renewer.lengths = {LEASE: 7, OTHER: None}
    async with renewing(renewer, held):
        await wait_until(lambda: len(held.answers) >= 2)
    assert set(held.answers) == {(LEASE, 7)}
    assert renewer.calls[0] == [LEASE, OTHER]
    assert renewer.closed


async def test_a_lost_lease_is_told() -> None:
    """Whoever holds it learns that it is not theirs any more."""
    renewer, held = Renewer(), Held()
    renewer.lengths = {LEASE: None}
    async with renewing(renewer, held):
        await wait_until(lambda: held.answers)
    assert held.answers[0] == (LEASE, None)


async def test_nothing_held_asks_nobody() -> None:
    """An idle worker renews nothing."""
    renewer, held = Renewer(), Held()
    held.leases = []
    async with renewing(renewer, held):
        held.leases = [OTHER]
        await wait_until(lambda: renewer.calls)
    assert all(call == [OTHER] for call in renewer.calls)


async def test_a_store_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and renewing goes on by itself."""
    renewer, held = Renewer(), Held()
    renewer.error = StoreError("away")
    with caplog.at_level(logging.WARNING):
        async with renewing(renewer, held):
            await wait_until(lambda: len(renewer.calls) >= 4)
            assert held.answers == []
            renewer.error = None
            await wait_until(lambda: held.answers)
    assert len([line for line in caplog.messages if "cannot be renewed" in line]) == 1


async def test_a_failed_renewal_is_tried_again_soon() -> None:
    """Not an interval later: leases may be about to end. Once it succeeds the pace is the usual one again."""
    renewer, held = Renewer(), Held()
    renewer.error = StoreError("away")
    waits = Waits()
    renewal = ThreadRenewal(lambda: renewer, clock=SystemClock(), lease_ms=9_000, block_ms_max=60_000)
    renewal._stop = waits
    task = asyncio.create_task(renewal.run(held))
    await wait_until(lambda: len(renewer.calls) >= 3)
    renewer.error = None
    await wait_until(lambda: len(held.answers) >= 2)
    task.cancel()
    await asyncio.wait([task])
    assert waits.waited_s[:3] == [3.0, RETRY_S_MAX, RETRY_S_MAX]
    assert waits.waited_s[-1] == 3.0


async def test_a_blocked_loop_keeps_its_leases_for_a_while() -> None:
    """While the loop does not turn, the thread renews."""
    renewer, held = Renewer(), Held()
    async with renewing(renewer, held):
        await wait_until(lambda: held.answers)
        before = len(renewer.calls)
        until = time.monotonic() + 5
        while len(renewer.calls) < before + 3 and time.monotonic() < until:
            pass
        assert len(renewer.calls) >= before + 3


async def test_a_loop_that_is_blocked_too_long_lets_go(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the limit nothing is renewed, so that other workers take over; it is said."""
    renewer, held = Renewer(), Held()
    async with renewing(renewer, held, block_ms_max=300):
        await wait_until(lambda: held.answers)
        until = time.monotonic() + 10
        while "blocked the event loop" not in caplog.text and time.monotonic() < until:
            pass
        renewed = len(renewer.calls)
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        assert len(renewer.calls) == renewed
        await wait_until(lambda: len(renewer.calls) > renewed)


async def test_renewing_in_the_loop() -> None:
    """The other implementation, through the store itself, tells the same."""
    held = Held()
    task = asyncio.create_task(
        LoopRenewal(MemoryStore(SystemClock(), slots=1), clock=SystemClock(), lease_ms=30).run(held)
    )
    await wait_until(lambda: held.answers)
    task.cancel()
    await asyncio.wait([task])
    assert held.answers[0] == (LEASE, None)
