"""How an attempt's handler is ended: by itself, early, or, where it does not let itself be ended, without its consent.

An attempt departs by cancelling its handler's tasks, as asyncio does: `finally` blocks run, `except Exception` does not
see it. A handler that swallows the cancellation, at a bare `except:` say, goes on: nothing that it does is recorded any
more, `ctx` refuses it, it is named in the log, and after a while its tasks are let go (see `leash`). The worker goes on
without it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from .attempt_limits import AttemptLimits
from .delivering import Delivering
from .departures import Departure, Failing, Holding, Losing, Pausing, Releasing
from .futures import DurableFuture
from .handler import Handler
from .scope import refuse_in_step

logger = logging.getLogger(__name__)

OVERDUE_S = 10.0
"""After its cancellation, for a handler to tidy up; then it is let go."""

USES_MAX = 100
"""Uses of `ctx` by a handler that was ended; then it is let go. Each task that tidies up may make a few."""

REFUSALS_MAX = 10
"""So many of them raise. Later ones get a future, so that a loop that catches everything at least waits in between."""


class Departing(Delivering):
    """The end of one attempt's handler. `attempt.Attempt` makes it whole."""

    __slots__ = (
        "_cancellations",
        "_concluding",
        "_defiance",
        "_ended",
        "_forgiven",
        "_overdue",
        "_reported",
        "abandoned",
        "handler",
        "shaken",
    )

    handler: Handler
    limits: AttemptLimits
    _ended: bool
    _concluding: bool

    def __init__(self) -> None:
        super().__init__()
        self.abandoned = False
        """Whether its tasks are let go: whatever is thrown into them next is not shown to them any more."""
        self.shaken = False
        """Whether something was thrown into it since it last asked for a command."""
        self._cancellations = 0
        self._forgiven = 0
        self._defiance = 0
        self._reported = False
        self._overdue: asyncio.TimerHandle | None = None

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The one that the handler runs in, once it does."""
        return self._task

    def depart(self, departure: Departure) -> None:
        """End the handler early, by cancelling its tasks; the first reason counts."""
        if self._closed or self._concluding:
            return
        if self.departure is not None:
            if isinstance(self.departure, Failing) and isinstance(departure, Releasing | Losing):
                # It still waits for the results of other steps, which can be waited for no longer.
                self.steps.cut()
            return
        self.depart_quietly(departure)
        self._cancel_tasks()
        self._overdue = self.loop.call_later(OVERDUE_S, self._abandon)

    def depart_quietly(self, departure: Departure) -> None:
        """The handler has ended by itself, and this is why; the first reason counts."""
        if self.departure is None:
            self.departure = departure
            self._suspension.stop()
            if not isinstance(departure, Failing | Holding):
                # Those two wait for what is executed, the others drop it.
                self.steps.begin_no_more()

    def _cancel_tasks(self) -> None:
        for task in (self._task, *self._tasks):
            if task is not None:
                self._cancel(task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if task.done() or (task is self._task and self._concluding):
            return
        self._cancellations += task is self._task
        task.cancel()

    def steady(self) -> None:
        """The handler goes on with its program after something was thrown into it."""
        # A TaskGroup of which a task failed cancels who waits for it, and before Python 3.13 does not take it back.
        assert self._task is not None, "it runs"
        self.shaken, self._forgiven = False, self._task.cancelling()

    async def absorb(self) -> None:
        """Take the departure's own cancellations of the attempt's task back, also one that it has not come to yet."""
        if not self._cancellations:
            return
        assert self._task is not None, "it runs"
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        for _ in range(self._cancellations):
            self._task.uncancel()
        self._cancellations = 0

    @property
    def cancelled_from_outside(self) -> bool:
        """Whether the attempt's task was cancelled by others than its handler; once its own were absorbed."""
        assert self._task is not None, "it runs"
        return self._task.cancelling() > self._forgiven

    def end_handler(self) -> None:
        """The handler returned or raised: tasks that it left behind end here, at the same place in every replay."""
        self._ended = True
        for task in self._tasks:
            task.cancel()

    def handler_returned(self) -> None:
        """The handler came to its end although the attempt departs."""
        self._report("returned a result")

    def conclude(self) -> None:
        """What became of the attempt is about to be recorded; nothing ends it early any more."""
        self._concluding = True
        self._suspension.stop()
        self._stop_waiting_for_the_end()

    def _stop_waiting_for_the_end(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    @property
    def over(self) -> bool:
        """Whether what the handler does now comes too late."""
        return self._closed or self._ended or self.departure is not None

    def check_usable(self, what: str) -> None:
        """Refuse `ctx` where it must not be used.

        Raises:
            UsageError: Inside a step.
            asyncio.CancelledError: The attempt has ended.
        """
        self.usable(what)

    def usable(self, what: str) -> bool:
        """As `check_usable`, but `False` for a handler that was told often enough: it gets a future to wait for.

        Raises:
            UsageError: Inside a step.
            asyncio.CancelledError: The attempt has ended.
        """
        refuse_in_step(what)
        if not self.over:
            return True
        self._defied(f"called {what}")
        if self._defiance <= REFUSALS_MAX:
            raise asyncio.CancelledError(f"the attempt of {self.invocation_id} has ended")
        return False

    def awaiting(self, future: DurableFuture[Any]) -> None:
        """See `Awaited.awaiting`."""
        # `over`, spelled out: each step comes this way.
        if self.departure is None and not self._closed and not self._ended:
            super().awaiting(future)
            return
        task = asyncio.current_task()
        if task is not None:
            # It would wait for ever. Not now: it can be cancelled where it waits.
            self.loop.call_soon(self._cancel, task)
        self._defied(f"waited for {future.name or 'a command'}")

    def _defied(self, what: str) -> None:
        self._defiance += 1
        if not self._ended:
            # Tasks that were left behind do no harm by it.
            self._report(what)
        if self._defiance > USES_MAX:
            self._abandon()

    def _abandon(self) -> None:
        if self.abandoned:
            return
        self.abandoned = True
        self._report(f"did not end for {OVERDUE_S:.0f} s")
        self._cancel_tasks()

    def _report(self, what: str) -> None:
        # A mismatch is found while the handler runs, and it may not have come to where it can be cancelled.
        if self._reported or (isinstance(self.departure, Pausing) and not self.abandoned):
            return
        self._reported = True
        logger.warning(
            "handler %s of %s %s although its attempt had ended (%s). Nothing that it does now is recorded, and it is "
            "let go. Something in it swallows asyncio.CancelledError: a bare `except:`, an `except BaseException`, or "
            "a `finally` that goes on. Catch `Exception` instead, and use no ctx in `finally`.",
            self.handler.target,
            self.invocation_id,
            what,
            type(self.departure).__name__.lower(),
            extra={"invocation_id": self.invocation_id, "handler": self.handler.target},
        )

    async def close(self) -> None:
        """End everything that the handler and its steps left running; nothing is appended by them any more."""
        self._closed = True
        self._stop_waiting_for_the_end()
        self.writer.close()
        await self._suspension.close()
        await self.steps.stop()
        await self._end_tasks()
        # They know this attempt: without the circles it is freed at once, and not when garbage is looked for.
        self._futures.clear()
        self._calls.clear()
        self._others = self._awaited = None

    async def _end_tasks(self) -> None:
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            # Once is enough: a second cancellation would interrupt what the first one has it tidy up.
            if not task.cancelling():
                task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=OVERDUE_S)
            if left:
                self._abandon()
                await asyncio.wait(left, timeout=OVERDUE_S)
