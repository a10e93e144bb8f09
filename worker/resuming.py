"""Ready invocations: they go on here as soon as there is room, before new work, and elsewhere where there is none soon.

A worker that works off a backlog has no room at any moment, and a free place every few milliseconds; by way of Kafka a
ready invocation would pass through a dozen turns of a busy event loop before it takes one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from perdure.journal.store import ResumeDue

from .clock import Clock

WAIT_MS = 100
"""For a free place. One that works off a backlog has some hundred in that time; one whose handlers take long has none,
and others may."""

WAITING_MAX = 500
"""What falls due at the same moment beyond this goes to all workers by way of Kafka."""


class Resuming:
    """What is ready, and waits for a place in one worker.

    Args:
        resume: Claims one for this worker; whether there was a place for it.
        runs: Whether a service runs here.
        produce: Has one go to all workers, by way of Kafka.
        clock: Time.
        spawn: Runs something on the side; errors are logged there.
    """

    def __init__(
        self,
        *,
        resume: Callable[[ResumeDue], bool],
        runs: Callable[[str], bool],
        produce: Callable[[ResumeDue], None],
        clock: Clock,
        spawn: Callable[[Awaitable[object]], None],
    ) -> None:
        self._resume = resume
        self._runs = runs
        self._produce = produce
        self._clock = clock
        self._spawn = spawn
        self._waiting: deque[tuple[float, ResumeDue]] = deque()
        self._watched = False
        self._leaving = False

    def put(self, due: ResumeDue) -> None:
        """Have a ready invocation go on: here if there is a place now or soon, or wherever there is one."""
        if not self._waiting and self._resume(due):
            return
        if self._leaving or len(self._waiting) >= WAITING_MAX or not self._runs(due.service):
            self._produce(due)
            return
        self._waiting.append((self._clock.monotonic_ms() + WAIT_MS, due))
        if not self._watched:
            self._watched = True
            self._spawn(self._watch())

    def freed(self) -> None:
        """There may be a place now: it is for who waits longest."""
        while self._waiting and self._resume(self._waiting[0][1]):
            self._waiting.popleft()

    def leave(self) -> None:
        """Have all go on elsewhere, from here on."""
        self._leaving = True
        while self._waiting:
            self._produce(self._waiting.popleft()[1])

    async def _watch(self) -> None:
        try:
            while self._waiting:
                await self._clock.sleep(max(0.0, self._waiting[0][0] - self._clock.monotonic_ms()) / 1000)
                while self._waiting and self._waiting[0][0] <= self._clock.monotonic_ms():
                    self._produce(self._waiting.popleft()[1])
        finally:
            self._watched = False
