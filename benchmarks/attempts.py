"""Attempts without a worker around them, for scenarios that measure the engine by itself."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

from perdure import InvocationRetryPolicy
from perdure.journal.store import Claim, Due, Store
from perdure.schemas.entries import Entry
from perdure.schemas.ids import InvocationId
from perdure.worker.actions import Actions
from perdure.worker.attempt import Attempt
from perdure.worker.attempt_limits import AttemptLimits
from perdure.worker.clock import Clock
from perdure.worker.conclusion import run_attempt
from perdure.worker.departures import AttemptEnd
from perdure.worker.handler import Handler

LIMITS = AttemptLimits(
    inactivity_ms=5_000,
    retention_ms=3_600_000,
    journal_retention_ms=3_600_000,
    retry=InvocationRetryPolicy().resolve(),
)
"""The defaults of a worker."""


class NoTimers:
    """For handlers that do not sleep."""

    def expect(self, invocation_id: InvocationId, *, in_ms: float) -> None:
        """See `TimerSink`."""


class NoOutward:
    """Nothing here leaves its journal."""

    def send(self, origin: InvocationId, position: int, entry: Entry, *, target: str) -> None:
        """See `attempt_limits.Outward`."""

    def follow(self) -> None:
        """See `Outward`: nothing follows here."""

    def act(self, due: Sequence[Due]) -> None:
        """See `attempt_limits.Outward`."""

    async def cancel_callees(self, origin: InvocationId, told: Collection[tuple[int, InvocationId]]) -> None:
        """See `attempt_limits.Outward`: there are no callees here."""


class Attempts:
    """Makes attempts on one store, as a worker does.

    Args:
        store: Where the invocations are.
        clock: Time.
        threads: Where sync steps run.
    """

    def __init__(self, store: Store, *, clock: Clock, threads: Executor) -> None:
        self._store = store
        self._clock = clock
        self._threads = threads
        self._actions = Actions()

    def run(self, claim: Claim, handler: Handler) -> Coroutine[Any, Any, AttemptEnd]:
        """Return an attempt to be awaited in a task of its own."""
        attempt = Attempt(
            claim,
            handler,
            store=self._store,
            clock=self._clock,
            threads=self._threads,
            timers=NoTimers(),
            actions=self._actions,
            limits=LIMITS,
            outward=NoOutward(),
        )
        return run_attempt(attempt)
