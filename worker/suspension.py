"""When an attempt that only waits leaves memory.

An attempt waits in memory with its lease renewed, and is suspended in the store when nothing happened for its
inactivity timeout, or at once when it waits for timers that are further away than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context

from perdure.journal.machine import Machine

from .clock import Clock
from .departures import Departure, Releasing, Suspending
from .journal_writer import JournalWriter
from .step_runner import StepRunner

EXPECTED_MS_MAX = 60_000
"""Only nearer deadlines are kept in this worker's mind: ten thousand sleepers must cost it no memory."""


class Suspension:
    """Watches one attempt.

    Args:
        machine: The attempt's.
        writer: The attempt's.
        steps: The attempt's.
        clock: Time.
        wakes_ms: When its timers fall due, by command index, in ms of the monotonic clock; a guess.
        inactivity_ms: How long it waits in memory.
        always_replay: Leave at every wait and after every result.
        blocked: Whether all tasks of the handler are blocked.
        certain: Whether the handler is known to wait for nothing but a durable future.
        depart: Ends the attempt.
    """

    def __init__(
        self,
        machine: Machine,
        writer: JournalWriter,
        steps: StepRunner,
        *,
        clock: Clock,
        wakes_ms: Mapping[int, float],
        inactivity_ms: int,
        always_replay: bool,
        blocked: Callable[[], bool],
        certain: Callable[[], bool],
        depart: Callable[[Departure], None],
    ) -> None:
        self._machine = machine
        self._writer = writer
        self._steps = steps
        self._clock = clock
        self._wakes_ms = wakes_ms
        self._inactivity_ms = inactivity_ms
        self._always_replay = always_replay
        self._blocked = blocked
        self._certain = certain
        self._depart = depart
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def holding(self) -> bool:
        """Whether results are held back, because they are to be seen by a replay."""
        return self._always_replay and self._writer.learned

    def consider(self) -> None:
        """Nothing can be handed out now: see to it that the attempt leaves if that lasts."""
        if self._timer is None and self._leaving is None and not self._closed and self._waits():
            self._timer = self._loop.call_later(self._patience_ms() / 1000, self._expired)

    def reset(self) -> None:
        """Something happened; patience begins anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Watch no more; a suspension that is on its way to the store cannot be taken back."""
        self._closed = True
        self.reset()

    async def close(self) -> None:
        """Watch no more, and wait for what is under way."""
        self.stop()
        if self._leaving is not None and not self._leaving.done():
            self._leaving.cancel()
            await asyncio.wait([self._leaving])

    def _waits(self) -> bool:
        """Whether nothing here makes progress by itself: no action runs, nothing is on its way to the store."""
        if self._writer.busy or self._machine.executing - self._steps.backing_off.keys():
            return False
        if self.holding or self._steps.backing_off:
            return True
        return self._machine.stalled and bool(self._machine.awaiting)

    def _patience_ms(self) -> float:
        if self._always_replay:
            return 0
        if self._certain():
            now_ms = self._clock.monotonic_ms()
            awaited = (self._wakes_ms.get(index, 0.0) for index in self._machine.awaiting)
            if min((*awaited, *self._steps.backing_off.values())) - now_ms > self._inactivity_ms:
                return 0
        return self._inactivity_ms

    def _expired(self) -> None:
        self._timer = None
        if self._closed or not self._waits() or (self._machine.deliverable and not self.holding):
            return
        if not self._blocked():
            self.consider()
        elif self.holding:
            self._depart(Releasing())
        else:
            # In a context of its own: in the handler's it would be taken for one of the handler's tasks.
            self._leaving = self._loop.create_task(self._leave(), context=Context())

    async def _leave(self) -> None:
        left = self._closed or await self._suspended()
        self._leaving = None
        if not left:
            # What arrived need not be what the handler waits for, and nothing else would ask again.
            self.consider()

    async def _suspended(self) -> bool:
        if not self._waits() or not self._blocked():
            # Something began between the decision and this turn of the loop.
            return False
        now_ms = self._clock.monotonic_ms()
        retries = [max(0, int(until_ms - now_ms)) for until_ms in self._steps.backing_off.values()]
        timers = [self._wakes_ms[index] - now_ms for index in self._machine.awaiting if index in self._wakes_ms]
        if await self._writer.suspend(wake_in_ms=min(retries) if retries else None):
            due_in_ms = min((*retries, *timers), default=None)
            self._depart(Suspending(None if due_in_ms is None or due_in_ms > EXPECTED_MS_MAX else due_in_ms))
            return True
        return False
