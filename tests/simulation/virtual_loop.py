"""Event loops in virtual time: each simulated process has one, one scheduler runs them all in one thread.

```
Scheduler.run: pick a loop that has something ready, by the seed -> run one callback of it -> pick again
               nothing ready anywhere -> time jumps to the next timer
```

Law: within one loop callbacks run in the order in which they were asked for, as asyncio promises; between loops any
order may be, and the seed chooses. Nothing here looks at a clock, a thread or a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from perdure.worker.clock import Clock

Callback = Callable[..., object]

EPOCH_MS = 1_800_000_000_000
"""What the clocks of simulated machines say at the beginning: a round instant in 2027."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set depends on nothing but the order of creation: `TaskGroup` and `wait` keep sets."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class NumberedFuture(asyncio.Future[Any]):
    """Likewise."""

    number = 0

    def __hash__(self) -> int:
        return self.number


# What a simulation never asks a loop for (sockets, processes, signals) is left as asyncio leaves it: not implemented.
_Loop: Any = asyncio.AbstractEventLoop


class VirtualLoop(_Loop):  # type: ignore[misc]  # so that it need not repeat the 34 methods of which it has none
    """The loop of one simulated process.

    Args:
        scheduler: Runs it.
        name: For messages.
        on_error: Told what no callback caught.
    """

    def __init__(self, scheduler: Scheduler, name: str, on_error: Callable[[str, dict[str, Any]], None]) -> None:
        self.name = name
        self.ready: deque[asyncio.Handle] = deque()
        self.frozen = False
        self.dead = False
        self.steps = 0
        self.trap: tuple[int, Callable[[], None]] | None = None
        self._remains: list[object] = []
        self._scheduler = scheduler
        self._on_error = on_error
        self._factory: Any = None
        self._numbers = 0

    def time(self) -> float:
        """Seconds of the scheduler's time, which do not go back."""
        return self._scheduler.now_s

    def call_soon(self, callback: Callback, *args: Any, context: Context | None = None) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self.ready:
            self._scheduler.runnable(self)
        self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callback, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return VirtualLoop.call_at(self, self._scheduler.now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callback, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._scheduler.set_timer(when, self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio's hook; a cancelled timer is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """See asyncio."""
        self._numbers += 1
        future = NumberedFuture(loop=self)
        future.number = self._numbers
        return future

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        """See asyncio."""
        if self._factory is None:
            task = self.make_task(self, coro, context=context)
        else:
            task = self._factory(self, coro, **({} if context is None else {"context": context}))
        if name is not None:
            task.set_name(name)
        return task

    def make_task(self, loop: Any, coro: Any, context: Context | None = None) -> NumberedTask:
        """What a task factory makes."""
        task = NumberedTask(coro, loop=self, context=context, name=self.name)
        self._numbers += 1
        task.number = self._numbers
        return task

    def set_task_factory(self, factory: Any) -> None:
        """See asyncio."""
        self._factory = factory

    def get_task_factory(self) -> Any:
        """See asyncio; never `None`, so that who wraps it makes numbered tasks."""
        return self._factory or self.make_task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """What would run in a thread runs in a later turn of this loop."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        VirtualLoop.call_soon(self, work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See asyncio."""
        if not self.dead:
            self._on_error(self.name, context)

    def get_debug(self) -> bool:
        """See asyncio."""
        return False

    def is_running(self) -> bool:
        """See asyncio."""
        return not self.dead

    def is_closed(self) -> bool:
        """See asyncio."""
        return False

    def freeze(self) -> None:
        """Run nothing until `thaw`: what falls due meanwhile, or arrives, waits."""
        self.frozen = True
        self._scheduler.not_runnable(self)

    def thaw(self) -> None:
        """Go on."""
        self.frozen = False
        if self.ready and not self.dead:
            self._scheduler.runnable(self)

    def end(self) -> None:
        """The process is killed: nothing of it runs any more, not even to clean up."""
        self.dead = True
        self._scheduler.not_runnable(self)
        # Kept until all is over: what Python lets go of says its last words, at a moment of its own choosing.
        self._remains += [*self.ready, *asyncio.all_tasks(self)]
        self.ready.clear()

    def bury(self) -> None:
        """Let go of what a killed process has left, unseen by anybody."""
        self.end()
        for task in self._remains:
            if isinstance(task, asyncio.Task) and inspect.iscoroutine(task.get_coro()):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own, for its own runner
                _close(task.get_coro())
        self._remains.clear()


def _close(coroutine: Any) -> None:
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        # What it was to await was not begun, either.
        for value in coroutine.cr_frame.f_locals.values():
            if inspect.iscoroutine(value):
                _close(value)
    # A `finally` that awaits refuses to be closed; the next try ends it there. Whatever else they raise, nobody hears.
    for _ in range(CLOSINGS_MAX):
        with contextlib.suppress(BaseException):
            coroutine.close()
            return


CLOSINGS_MAX = 20
"""Blocks of one coroutine that may refuse to be closed."""


class Scheduler:
    """Virtual time, and whose turn it is.

    Args:
        seed: Of every choice here.
    """

    def __init__(self, seed: str) -> None:
        self.now_s = 0.0
        self.steps = 0
        self._random = random.Random(seed)
        self._runnable: list[VirtualLoop] = []
        self._timers: list[tuple[float, int, VirtualLoop, asyncio.Handle]] = []
        self._number = 0

    def runnable(self, loop: VirtualLoop) -> None:
        """A loop has got something ready."""
        if not (loop.frozen or loop.dead):
            self._runnable.append(loop)

    def not_runnable(self, loop: VirtualLoop) -> None:
        """A loop is not to be run for now."""
        if loop in self._runnable:
            self._runnable.remove(loop)

    def set_timer(self, when: float, loop: VirtualLoop, handle: asyncio.Handle) -> None:
        """Have a callback ready at that time."""
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, loop, handle))

    def run(self, until: Callable[[], bool], *, until_s: float) -> None:
        """Run until that is so, looked at between two callbacks, or until that time."""
        events._set_running_loop(None)
        try:
            while not until():
                if self._runnable:
                    self._step()
                elif not self._timers or self._timers[0][0] > until_s:
                    self.now_s = max(self.now_s, until_s)
                    return
                else:
                    self._jump()
        finally:
            events._set_running_loop(None)

    def _step(self) -> None:
        runnable = self._runnable
        at = 0 if len(runnable) == 1 else int(self._random.random() * len(runnable))
        loop = runnable[at]
        handle = loop.ready.popleft()
        if not loop.ready:
            del runnable[at]
        if handle._cancelled:
            return
        self.steps += 1
        loop.steps += 1
        events._set_running_loop(loop)
        handle._run()
        if loop.trap is not None and loop.steps >= loop.trap[0]:
            events._set_running_loop(None)
            spring, loop.trap = loop.trap[1], None
            spring()

    def _jump(self) -> None:
        when, _, loop, handle = heapq.heappop(self._timers)
        self.now_s = max(self.now_s, when)
        if handle._cancelled or loop.dead:
            return
        if not loop.ready:
            self.runnable(loop)
        loop.ready.append(handle)


class VirtualClock(Clock):
    """The clock of one simulated machine: its wall clock may be wrong, and may jump."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.skew_ms = 0
        self._scheduler = scheduler

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return EPOCH_MS + int(self._scheduler.now_s * 1000) + self.skew_ms

    def monotonic_ms(self) -> float:
        """See `Clock.monotonic_ms`."""
        return self._scheduler.now_s * 1000.0

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)
