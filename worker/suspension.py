"""When an attempt that only waits leaves memory.

An attempt waits in memory with its lease renewed, and is suspended in the store when nothing happened for its
inactivity timeout, or at once when it waits for timers that are further away than that.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Protocol

from perdure.journal.machine import Machine

from .clock import Clock
from .departures import Departure, Releasing, Suspending
from .journal_writer import JournalWriter
from .step_runner import StepRunner

EXPECTED_MS_MAX = 60_000
"""Only nearer deadlines are kept in this worker's mind: ten thousand sleepers must cost it no memory."""


CALM_TURNS = 6
"""Turns of the loop in which all of the handler must be seen blocked: futures and tasks may be wrapped five deep, each
level without a task of its own. A turn costs some 2 µs."""


class Watched(Protocol):
    """An attempt, as it is watched."""

    machine: Machine
    writer: JournalWriter
    steps: StepRunner
    clock: Clock
    wakes_ms: dict[int, float]
    """When its timers fall due, by command index, in ms of the monotonic clock; a guess."""

    @property
    def blocked(self) -> bool:
        """Whether all tasks of the handler are blocked."""

    @property
    def certain(self) -> bool:
        """Whether the handler is known to wait for nothing but a durable future."""

    def check_blocked(self) -> None:
        """The handler waits for what its journal does not say it waited for: find that."""

    def depart(self, departure: Departure) -> None:
        """End the attempt."""


class Suspension:
    """Watches one attempt.

    Args:
        attempt: The one.
        inactivity_ms: How long it waits in memory.
        always_replay: Leave at every wait and after every result.
        loop: The attempt's.
    """

    def __init__(
        self, attempt: Watched, *, inactivity_ms: int, always_replay: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._attempt = attempt
        self._inactivity_ms = inactivity_ms
        self._always_replay = always_replay
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def holding(self) -> bool:
        """Whether results are held back, because they are to be seen by a replay."""
        return self._always_replay and self._attempt.writer.learned

    def consider(self) -> None:
        """Nothing can be handed out now: see to it that the attempt leaves if that lasts."""
        if self._timer is None and self._leaving is None and not self._closed and self._waits():
            self._timer = self._loop.call_later(self._patience_ms() / 1000, self._expired)

    def reset(self) -> None:
        """Something happened; patience begins anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hurry(self) -> None:
        """If the attempt waits, it has waited long enough."""
        if self._timer is not None and not self._attempt.steps.backing_off:
            self._timer.cancel()
            self._expired()

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
        machine, backing_off = self._attempt.machine, self._attempt.steps.backing_off
        if self._attempt.writer.busy or machine.executing - backing_off.keys():
            return False
        if self.holding or backing_off:
            return True
        return machine.stalled and (bool(machine.awaiting) or machine.deferred)

    def _patience_ms(self) -> float:
        if self._always_replay:
            return 0
        attempt = self._attempt
        if attempt.certain:
            now_ms = attempt.clock.monotonic_ms()
            awaited = (attempt.wakes_ms.get(index, 0.0) for index in attempt.machine.awaiting)
            if min((*awaited, *attempt.steps.backing_off.values())) - now_ms > self._inactivity_ms:
                return 0
        return self._inactivity_ms

    def _expired(self, calm_turns: int = 0) -> None:
        self._timer = None
        if self._closed or not self._waits() or (self._attempt.machine.deliverable and not self.holding):
            return
        if not self._attempt.blocked:
            self.consider()
        elif self.holding:
            self._attempt.depart(Releasing())
        elif self._attempt.machine.behind:
            # Another attempt would come no further. Certain once all callbacks among the handler's tasks have run.
            if calm_turns < CALM_TURNS:
                self._loop.call_soon(self._expired, calm_turns + 1)
            else:
                self._attempt.check_blocked()
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
        if not self._waits() or not self._attempt.blocked:
            # Something began between the decision and this turn of the loop.
            return False
        attempt = self._attempt
        now_ms, wakes_ms = attempt.clock.monotonic_ms(), attempt.wakes_ms
        retries = [max(0, int(until_ms - now_ms)) for until_ms in attempt.steps.backing_off.values()]
        timers = [wakes_ms[index] - now_ms for index in attempt.machine.awaiting if index in wakes_ms]
        if await attempt.writer.suspend(wake_in_ms=min(retries) if retries else None):
            due_in_ms = min((*retries, *timers), default=None)
            attempt.depart(Suspending(None if due_in_ms is None or due_in_ms > EXPECTED_MS_MAX else due_in_ms))
            return True
        return False
