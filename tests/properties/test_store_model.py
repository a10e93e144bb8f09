"""Memory and Redis are one store: whatever rivals, people and callers do to both, and however late it arrives.

The store in memory is the model; `store_side_by_side` does the same to both and compares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission, Admitted, Appended, Lease
from perdure.schemas.entries import Entry
from perdure.worker.clock import system_random
from tests.journal.store_contract import Bench, MemoryBench, redis_bench

from .store_with_clients import WithClients


class Honest(MemoryStore):
    """No bug: what is noticed in the other is the plant."""


class Unfenced(MemoryStore):
    """Planted bug: appends are not fenced."""

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Appended]:
        """Append under whatever lease is in force."""
        record = self._record(lease.invocation_id)
        if record is not None and record.token is not None:
            lease = lease._replace(epoch=record.epoch, token=record.token)
        return super().append(lease, entries, after=after, seq=seq, progress=progress)


class Unqueued(MemoryStore):
    """Planted bug: nobody waits for an object."""

    def admit(self, admission: Admission, *, lease_ms: int) -> asyncio.Future[Admitted]:
        """Admit it as if it were a shared handler."""
        return super().admit(admission._replace(mode=""), lease_ms=lease_ms)


BOUND = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],
)


def check(
    open_benches: Callable[[AsyncExitStack], Awaitable[Sequence[Bench]]], *, examples_max: int = BOUND.max_examples
) -> None:
    """Run the machine within the bound."""

    class Opened(WithClients):
        def __init__(self) -> None:
            super().__init__(open_benches)

    run_state_machine_as_test(Opened, settings=settings(BOUND, max_examples=examples_max))


@pytest.mark.timeout(300)  # bounded by its examples, not by a machine that others load
def test_memory_and_redis_are_one_store(redis_url: str) -> None:
    """Whatever two rivals do and however late it arrives, both stores answer and hold the same."""

    async def open_benches(exits: AsyncExitStack) -> Sequence[Bench]:
        name = f"m{system_random().randrange(10**9)}"
        return (MemoryBench(name), await exits.enter_async_context(redis_bench(name, redis_url)))

    check(open_benches)


@pytest.mark.parametrize("planted", [Unfenced, Unqueued])
def test_a_planted_bug_is_noticed(planted: type[MemoryStore]) -> None:
    """The property has teeth: a missing fence or queue is found, and nothing without it."""

    def beside(kind: type[MemoryStore]) -> Callable[[AsyncExitStack], Awaitable[Sequence[Bench]]]:
        async def open_benches(_exits: AsyncExitStack) -> Sequence[Bench]:
            return (MemoryBench("m"), MemoryBench("m", kind))

        return open_benches

    check(beside(Honest), examples_max=20)
    with pytest.raises(AssertionError):
        check(beside(planted), examples_max=600)
