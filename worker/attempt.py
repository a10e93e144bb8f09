"""One attempt: the driver around the machine, the handler and the store.

The handler runs in the attempt's own task; everything else happens in callbacks of the loop:

```
ctx.run/sleep --> issue --> machine --Execute--> a task for the step --propose--> machine
handler awaits a future --> pump: hand out Ready results, start steps     machine --drain--> store.append
the store answers --> machine.receive --> pump
```

**When results are handed out.** The machine's contract wants the handler blocked before each `Ready`. While the handler
is a single task, it is blocked exactly when it awaits one of our futures (`_awaited`): results go out at once, without
a turn of the loop, which is what makes replay fast. When it has tasks of its own, or waits through asyncio
(`gather`, `wait`), `_settle` hands out one result at a time, whenever all its tasks were seen blocked in several
consecutive turns: a callback of asyncio's takes a turn to run, and one that ends in another (a gather of gathers, a
`wait_for` of a shielded task) takes as many as there are links until a task has a done waiter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from datetime import timedelta
from typing import Any, TypeVar

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Ready, Suspend, Wait
from perdure.journal.store import Claim, Store
from perdure.schemas.entries import Input, Success
from perdure.schemas.errors import JournalMismatchError, UsageError
from perdure.schemas.ids import InvocationId

from .actions import Actions
from .attempt_limits import AttemptLimits, TimerSink
from .clock import Clock
from .departures import Departure, Failing, Losing, Pausing, Releasing
from .futures import DurableFuture, complete, durable_future
from .handler import Handler
from .journal_writer import JournalWriter
from .options import RunOptions
from .scope import SCOPE, is_blocked, refuse_in_step
from .serde import JSON
from .step_runner import StepRunner
from .steps import StepCall, check_step
from .suspension import Suspension

T = TypeVar("T")

CALM_TURNS = 6
"""Turns of the loop in which all of the handler must be seen blocked: futures and tasks may be wrapped five deep, each
level without a task of its own. A turn costs some 2 µs."""


class Attempt:
    """The state of one attempt, and what its context, its futures and its callbacks do with it.

    `conclusion.run_attempt` begins it, calls the handler and ends it.

    Args:
        claim: The lease and the journal so far.
        handler: What to run.
        store: Where the journal is.
        clock: Time.
        threads: Where sync steps run.
        timers: Told when deadlines of this invocation fall due.
        limits: What holds for it.
        actions: The worker's memory of steps' actions.
    """

    def __init__(
        self,
        claim: Claim,
        handler: Handler,
        *,
        store: Store,
        clock: Clock,
        threads: Executor,
        timers: TimerSink,
        limits: AttemptLimits,
        actions: Actions,
    ) -> None:
        self.claim = claim
        self.invocation_id: InvocationId = claim.lease.invocation_id
        self.handler = handler
        self.limits = limits
        self.store = store
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.departure: Departure | None = None
        self.machine = Machine()
        self.threads = threads
        self.wakes_ms: dict[int, float] = {}
        self.writer = JournalWriter(
            claim, self.machine, store=store, on_news=self._progress, on_loss=self._lost, loop=self.loop
        )
        self.steps = StepRunner(self, payload_bytes_max=limits.payload_bytes_max, loop=self.loop)
        self._suspension = Suspension(
            self, inactivity_ms=limits.inactivity_ms, always_replay=limits.always_replay, loop=self.loop
        )
        self._timers = timers
        self._actions = actions
        self._task: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._ended = False
        self._concluding = False
        self._calls: dict[int, StepCall] = {}
        self._futures: dict[int, DurableFuture[Any]] = {}
        self._awaited: DurableFuture[Any] | None = None
        self._calm = 0
        self._settling = False

    @property
    def input(self) -> Input:
        """The invocation's first entry."""
        entry = self.claim.entries[0].entry
        assert isinstance(entry, Input), "the first entry of a journal is its input"
        return entry

    def begin(self) -> None:
        """Take the calling task for the handler's and the claim's entries for the journal.

        Raises:
            JournalMismatchError: The journal holds what this version does not know.
        """
        self._task = asyncio.current_task()
        self.machine.receive(self.claim.entries)

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
        for task in (self._task, *self._tasks):
            if task is not None:
                task.cancel()

    def depart_quietly(self, departure: Departure) -> None:
        """The handler has ended by itself, and this is why; the first reason counts."""
        if self.departure is None:
            self.departure = departure
            self._suspension.stop()

    def end_handler(self) -> None:
        """The handler returned or raised: tasks that it left behind end here, at the same place in every replay."""
        self._ended = True
        for task in self._tasks:
            task.cancel()

    def conclude(self) -> None:
        """What became of the attempt is about to be recorded; nothing ends it early any more."""
        self._concluding = True
        self._suspension.stop()

    def poke(self, length: int) -> None:
        """The journal is said to have that many entries: learn those that are not known here."""
        if length > self.machine.length and not self._closed:
            self.writer.fetch_soon()

    def fetch(self) -> None:
        """Others may have appended: learn what."""
        if not self._closed:
            self.writer.fetch_soon()

    @property
    def waiting(self) -> bool:
        """Whether the attempt only waits: none of its steps is being executed, and all of the handler is blocked."""
        busy = self.machine.executing - self.steps.backing_off.keys()
        return not busy and not self.writer.busy and not self.machine.deliverable and self.blocked

    async def finish_steps(self) -> None:
        """Return when every step that was asked for has its result in the journal, or the attempt departs."""
        while self.departure is None:
            self._start_steps()
            await self.steps.all_done()
            await self.writer.quiet()
            if not (self.machine.executing or self.writer.busy):
                return

    async def close(self) -> None:
        """End everything that the handler and its steps left running; nothing is appended by them any more."""
        self._closed = True
        self.writer.close()
        await self._suspension.close()
        await self.steps.stop()
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            # Once is enough: a second cancellation would interrupt what the first one has it tidy up.
            if not task.cancelling():
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # They know this attempt: without the circles it is freed at once, and not when garbage is looked for.
        self._futures.clear()
        self._calls.clear()
        self._awaited = None
        del self.writer, self.steps, self._suspension

    @property
    def unfired(self) -> list[int]:
        """Command indices of timers that have not fired."""
        return sorted(self.machine.awaiting)

    def run_step(
        self,
        name: str,
        action: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: RunOptions[T],
    ) -> DurableFuture[T]:
        """Issue a step; its action starts at once unless the journal has its result."""
        if SCOPE.get() is not self or self._ended or self.departure is not None:
            # Asked for here, too, because spelling the call out would be most of the asking.
            self.check_usable(f"ctx.run({name!r})")
        check_step(name, action)
        traits = self._actions.traits(action, options)
        try:
            index = self.machine.issue_run(name)
        except JournalMismatchError as error:
            return self._diverged(error, name)
        call = (name, action, args, kwargs, options, traits, copy_context())
        self._calls[index] = tuple.__new__(StepCall, call)
        return self._issued(durable_future(self, index, name, loop=self.loop))

    def sleep(self, name: str, delta: timedelta) -> DurableFuture[None]:
        """Issue a durable timer."""
        self.check_usable("ctx.sleep")
        if not isinstance(delta, timedelta):
            raise UsageError(f"ctx.sleep takes a timedelta, not {delta!r:.200}.")
        now_ms, duration_ms = self.clock.now_ms(), max(0, -(-delta // timedelta(milliseconds=1)))
        try:
            index = self.machine.issue_sleep(name, at_ms=now_ms, duration_ms=duration_ms)
        except JournalMismatchError as error:
            return self._diverged(error, name)
        if not self.machine.resolved(index):
            recorded = self.machine.sleeping(index)
            # A guess of when to look, by this machine's clock: what decides is the deadline in the store.
            left_ms = recorded.at_ms + recorded.duration_ms - now_ms
            self.wakes_ms[index] = self.clock.monotonic_ms() + left_ms
            if left_ms <= self.limits.inactivity_ms:
                self._timers.expect(self.invocation_id, in_ms=left_ms)
        return self._issued(durable_future(self, index, name or "sleep", loop=self.loop))

    def check_usable(self, what: str) -> None:
        """Refuse `ctx` where it must not be used.

        Raises:
            UsageError: Inside a step.
            asyncio.CancelledError: The attempt has ended.
        """
        refuse_in_step(what)
        if self._closed or self._ended or self.departure is not None:
            raise asyncio.CancelledError(f"the attempt of {self.invocation_id} has ended")

    def _diverged(self, error: JournalMismatchError, name: str) -> DurableFuture[Any]:
        # Not raised: a handler's own `except Exception` must not hide it.
        self.depart(Pausing(error))
        return durable_future(self, -1, name, loop=self.loop)

    def _issued(self, future: DurableFuture[T]) -> DurableFuture[T]:
        self._futures[future.command_index] = future
        machine = self.machine
        if machine.deliverable:
            self._settle_soon()
        else:
            self._start_steps()
            if machine.pending:
                self.writer.flush_soon()
        return future

    def _start_steps(self) -> None:
        # What `poll(deliver=False)` answers as `Execute`, without making the answer.
        machine = self.machine
        while (index := machine.next_step()) is not None:
            self.steps.start(index, self._calls[index], machine.failed(index))

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The handler started a task of its own."""
        if task is not self._task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def awaiting(self, future: DurableFuture[Any]) -> None:
        """The handler is about to wait for `future`."""
        if self._closed:
            return
        if self._tasks:
            self._settle_soon()
        else:
            self._awaited = future
            self._pump()

    def watched(self) -> None:
        """Something waits for one of our futures through a callback."""
        if self._awaited is None or self._awaited.done():
            self._settle_soon()

    def _progress(self) -> None:
        if self._closed or self.departure is not None:
            return
        self._suspension.reset()
        if self.machine.length > self.limits.journal_entries_max:
            self.depart(Pausing(self.limits.too_long(self.invocation_id, self.machine.length)))
        elif self._tasks or self._awaited is None or self._awaited.done():
            self._settle_soon()
        else:
            self._pump()

    def _pump(self) -> None:
        # The handler is one task, and blocked on `_awaited`.
        awaited, machine, holding = self._awaited, self.machine, self._suspension.holding
        while awaited is not None and not awaited.done():
            match machine.poll(deliver=not holding):
                case Ready() as ready:
                    self._deliver(ready)
                case Execute(index, failed):
                    self.steps.start(index, self._calls[index], failed)
                case Wait():
                    self._check_blocked()
                    if self.steps.backing_off or holding:
                        self._suspension.consider()
                    return
                case Suspend():
                    self._check_blocked()
                    self._suspension.consider()
                    return
        self._awaited = None

    def _check_blocked(self) -> None:
        if not self._suspension.holding:
            try:
                self.machine.check_blocked()
            except JournalMismatchError as error:
                self.depart(Pausing(error))

    def _settle_soon(self) -> None:
        if not self._settling:
            self._settling = True
            self.loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        if self._closed or self.departure is not None:
            return
        self._start_steps()
        if self.machine.pending:
            self.writer.flush_soon()
        if not self.machine.deliverable or self._suspension.holding:
            self._calm = 0
            self._suspension.consider()
            return
        self._calm = self._calm + 1 if self.blocked else 0
        if self._calm >= CALM_TURNS:
            self._calm = 0
            ready = self.machine.poll()
            assert isinstance(ready, Ready), "the machine is deliverable"
            self._deliver(ready)
        self._settle_soon()

    @property
    def blocked(self) -> bool:
        """Whether all tasks of the handler are blocked."""
        return self._task is not None and is_blocked(self._task) and all(map(is_blocked, self._tasks))

    @property
    def certain(self) -> bool:
        """Whether the handler is known to wait for nothing but a durable future."""
        return self._awaited is not None and not self._awaited.done() and not self._tasks

    def step_failed(self, error: BaseException, name: str) -> None:
        """A step without a policy failed."""
        self.depart(Failing(error, f'run "{name}"'))

    def step_pauses(self) -> None:
        """A step begins to wait for its next execution."""
        self._suspension.consider()

    def _lost(self, error: BaseException) -> None:
        self.depart(Losing(error))

    def _deliver(self, ready: Ready) -> None:
        index, outcome = ready
        future, call, values = self._futures.pop(index), self._calls.pop(index, None), self.steps.values
        self.wakes_ms.pop(index, None)
        if index in values:
            # Read back already, when it was executed here.
            value = values.pop(index)
            if type(outcome) is Success and not future.done():
                future.set_result(value)
                return
        if not future.done():
            complete(future, outcome, JSON if call is None else call.traits.serde)
