"""Many deadlines on one timer: for waits that nearly always end before their time is up.

A timer of the event loop's own, made and cancelled for each wait, costs several times what is done here. The price is
`GRAIN_S`: a deadline is never early, and late by up to that much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

GRAIN_S: Final = 0.01
"""Deadlines within one such span fall due together. Shorter than anybody notices who waited for nothing."""

_ARM_S_MAX: Final = 3_600.0
"""The timer looks at least this often: loops refuse timers that are years away, and a look costs nothing."""


class Deadline:
    """One callback that is due once, unless it is cancelled before."""

    __slots__ = ("_slot", "_slots", "callback")

    def __init__(self, slots: dict[int, dict[Deadline, None]], slot: int, callback: Callable[[], None]) -> None:
        self.callback = callback
        self._slots = slots
        self._slot = slot

    def cancel(self) -> None:
        """Have it never called. Safe to repeat, and after it was called."""
        due = self._slots.get(self._slot)
        if due is not None:
            due.pop(self, None)
            if not due:
                del self._slots[self._slot]


class Limit:
    """As `asyncio.timeout`: cancels the task that is inside when time is up, and turns that into a `TimeoutError`."""

    __slots__ = ("_cancelling", "_deadline", "_deadlines", "_expired", "_seconds", "_task")

    def __init__(self, deadlines: Deadlines, seconds: float | None) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        if self._seconds is None:
            return
        task = asyncio.current_task()
        assert task is not None, "a limit is for the code of a task"
        self._task = task
        self._cancelling = task.cancelling()
        self._deadline = self._deadlines.call_in(self._seconds, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._seconds is None:
            return
        self._deadline.cancel()
        # Somebody else's cancellation goes on, also where it meets ours.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


class Deadlines:
    """Deadlines that share a timer. For one event loop at a time; `close` it where that ends."""

    def __init__(self) -> None:
        # By the number of the span at whose end they are due; none is empty.
        self._slots: dict[int, dict[Deadline, None]] = {}
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = 0

    def call_in(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Have `callback` called in so many seconds, or up to `GRAIN_S` later. It must neither block nor raise."""
        loop = asyncio.get_running_loop()
        slot = int((loop.time() + seconds) / GRAIN_S) + 1
        deadline = Deadline(self._slots, slot, callback)
        due = self._slots.get(slot)
        if due is None:
            self._slots[slot] = {deadline: None}
            if self._armed is None or slot < self._armed_for:
                self._arm(loop, slot)
        else:
            due[deadline] = None
        return deadline

    def within(self, seconds: float | None) -> Limit:
        """Bound the block of a `with` statement in time; `None` leaves it unbounded.

        Raises:
            TimeoutError: From the block: its time was up.
        """
        return Limit(self, seconds)

    def close(self) -> None:
        """Forget all of them."""
        self._slots.clear()
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self, loop: asyncio.AbstractEventLoop, slot: int) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_for = slot
        self._armed = loop.call_at(min(slot * GRAIN_S, loop.time() + _ARM_S_MAX), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = None
        # Timers of a loop may be early by what its clock rounds off.
        now = int(loop.time() / GRAIN_S + 0.001)
        for slot in sorted(slot for slot in self._slots if slot <= now):
            # One of them may cancel another of the same span.
            while due := self._slots.get(slot):
                deadline = next(iter(due))
                deadline.cancel()
                deadline.callback()
        if self._slots and self._armed is None:
            self._arm(loop, min(self._slots))
