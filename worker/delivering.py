"""Handing results to the handler: the half of an attempt that drives the machine.

**When results are handed out.** The machine's contract wants the handler blocked before each `Ready`. While the handler
is a single task, it is blocked exactly when it awaits one of our futures (`_awaited`): results go out at once, without
a turn of the loop, which is what makes replay fast. When it has tasks of its own, or waits through asyncio
(`gather`, `wait`), `_settle` hands out one result at a time, whenever all its tasks were seen blocked in several
consecutive turns: a callback of asyncio's takes a turn to run, and one that ends in another (a gather of gathers, a
`wait_for` of a shielded task) takes as many as there are links until a task has a done waiter.

A cancellation is handed out like a result: it is raised in everything that waits at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

from perdure.journal.machine import Machine
from perdure.journal.moves import Execute, Interrupt, Ready, Suspend, Wait
from perdure.schemas.commands import Lookup
from perdure.schemas.entries import CancelChild, Failure, Outcome, Run, StepFailed, Success
from perdure.schemas.errors import JournalMismatchError, SerdeError, TerminalError
from perdure.schemas.ids import InvocationId

from .attempt_commands import Settle
from .attempt_limits import AttemptLimits
from .clock import Clock
from .departures import Departure, Failing, Holding, Losing, Pausing
from .futures import DurableFuture, complete, durable_future
from .handler_timers import DurableTimer
from .journal_writer import JournalWriter
from .scope import is_blocked
from .serde import JSON
from .source_lines import handler_line
from .step_runner import StepRunner
from .steps import StepCall
from .suspension import CALM_TURNS, Suspension

CANCELLED = Failure(409, "cancelled")
"""What a cancellation is to the handler, and the result of what it kept from running."""


class Others(NamedTuple):
    """Commands that are no steps and have no result yet, by index.

    Attributes:
        settles: What gives their futures their results.
        lookups: Of lookups: type, name, and what asks the store.
        timers: What asyncio holds of those timers that it has set.
    """

    settles: dict[int, Settle]
    lookups: dict[int, tuple[str, str, Callable[[int], Awaitable[Outcome]]]]
    timers: dict[int, DurableTimer]


class Delivering:
    """What drives one attempt's machine. `attempt.Attempt` makes it whole."""

    # An attempt has more attributes than Python keeps at hand without slots.
    __slots__ = (
        "_awaited",
        "_calls",
        "_calm",
        "_closed",
        "_delivered",
        "_futures",
        "_missed",
        "_others",
        "_settling",
        "_suspension",
        "_task",
        "_tasks",
        "clock",
        "departure",
        "invocation_id",
        "limits",
        "loop",
        "machine",
        "playing",
        "steps",
        "wakes_ms",
        "writer",
    )

    invocation_id: InvocationId
    clock: Clock
    limits: AttemptLimits
    loop: asyncio.AbstractEventLoop
    machine: Machine
    writer: JournalWriter
    steps: StepRunner
    departure: Departure | None
    wakes_ms: dict[int, float]
    _suspension: Suspension
    _closed: bool

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._missed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls: dict[int, StepCall] = {}
        self._futures: dict[int, DurableFuture[Any]] = {}
        self._others: Others | None = None
        self._awaited: DurableFuture[Any] | None = None
        self.playing = False
        """Whether the handler itself runs, and not what is around it."""
        self._delivered: int = 0
        self._calm = 0
        self._settling = False

    def depart(self, departure: Departure) -> None:
        """End the handler early."""
        raise NotImplementedError

    def sleep(self, name: str, delta: timedelta) -> DurableFuture[None]:
        """Issue a durable timer."""
        raise NotImplementedError

    def _start_steps(self) -> None:
        # What `poll(deliver=False)` answers as `Execute`, without making the answer.
        machine = self.machine
        while (index := machine.next_step()) is not None:
            self._execute(index, machine.failed(index))

    def _execute(self, index: int, failed: StepFailed | None) -> None:
        call = self._calls.get(index)
        if call is not None:
            self.steps.start(index, call, failed)
        else:
            self.steps.look_up(index, *self.others.lookups[index])

    @property
    def others(self) -> Others:
        """What is known of the commands that are no steps."""
        if self._others is None:
            self._others = Others({}, {}, {})
        return self._others

    def poke(self, length: int) -> None:
        """The journal is said to have that many entries: learn those that are not known here."""
        if length > self.machine.length:
            self.fetch()

    def fetch(self) -> None:
        """Others may have appended: learn what."""
        if self._task is None:
            # The machine takes the claim's entries first, in `begin`.
            self._missed = True
        elif not self._closed:
            self.writer.fetch_soon()

    @property
    def waiting(self) -> bool:
        """Whether the attempt only waits: none of its steps is being executed, and all of the handler is blocked."""
        busy = self.machine.executing - self.steps.backing_off.keys()
        return not busy and not self.writer.busy and not self.machine.deliverable and self.blocked

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The handler started a task of its own."""
        if task is not self._task and self.by_handler:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @property
    def by_handler(self) -> bool:
        """Whether the running code is the handler's: a task of it, or a callback.

        Context managers around attempts may start tasks, which inherit the handler's context, and are their own affair.
        """
        running = asyncio.current_task()
        return self.playing and (running is None or running is self._task or running in self._tasks)

    def awaiting(self, future: DurableFuture[Any]) -> None:
        """The handler is about to wait for `future`."""
        if self._tasks or future._callbacks:
            # Its callbacks come first, as they did when it was not done yet.
            self._awaited = None
            self._settle_soon()
        else:
            self._awaited = future
            # What `_pump` would find for a step that was just started, which is nearly always.
            if not self.machine.engaged or self.steps.backing_off or self.limits.always_replay:
                self._pump()

    def watched(self) -> None:
        """Something waits for one of our futures through a callback."""
        if self._awaited is None or self._awaited.done():
            self._settle_soon()

    def _progress(self) -> None:
        if self._closed or self.departure is not None:
            return
        self._suspension.reset()
        machine = self.machine
        if machine.pause_asked:
            self.depart(Holding())
        elif machine.length > self.limits.journal_entries_max:
            self.depart(Pausing(self.limits.too_long(self.invocation_id, machine.length)))
        elif self.writer.payload_bytes > self.limits.journal_bytes_max:
            self.depart(Pausing(self.limits.too_large(self.invocation_id, self.writer.payload_bytes)))
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
                    future = self._futures[ready.command_index]
                    watched = future is not awaited and future.watched
                    self._deliver(ready)
                    if watched:
                        # Its callbacks may do anything; until they have, the handler is not blocked.
                        self._settle_soon()
                        break
                case Interrupt() as interrupt:
                    self._interrupt(interrupt)
                case Execute(index, failed):
                    self._execute(index, failed)
                case Wait():
                    self._check_blocked()
                    if machine.cancelling and self.steps.backing_off:
                        self._give_up_pauses()
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
            self.check_blocked()

    def check_blocked(self) -> None:
        """All of the handler waits, and nothing can be handed out: it must have come as far as its journal."""
        try:
            self.machine.check_blocked()
        except JournalMismatchError as error:
            self.diverged(error, handler_line(self._task))

    def diverged(self, error: JournalMismatchError, where: str) -> None:
        """The handler is not the one that wrote its journal: show where it is, and pause."""
        self.depart(Pausing(error.at(where)))

    def _settle_soon(self) -> None:
        if not self._settling:
            self._settling = True
            self.loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        if self._closed or self.departure is not None:
            return
        if not (self.machine.cancelling and self._interruptible):
            # A step that has not begun when a cancellation is there does not begin.
            self._start_steps()
        if self.machine.pending:
            self.writer.flush_soon()
        if self.machine.cancelling and self.steps.backing_off:
            self._give_up_pauses()
        if not self._deliverable or self._suspension.holding:
            self._calm = 0
            self._suspension.consider()
            return
        self._calm = self._calm + 1 if self.blocked else 0
        if self._calm >= CALM_TURNS:
            self._calm = 0
            match self.machine.take():
                case Ready() as ready:
                    self._deliver(ready)
                case Interrupt() as interrupt:
                    self._interrupt(interrupt)
                case None:
                    # A signal that nobody waits for yet.
                    pass
        self._settle_soon()

    @property
    def _deliverable(self) -> bool:
        """Whether the machine has something for the handler, and the handler something that can take it."""
        # Where it waits for nothing durable, a cancellation is seen where it does next.
        return self.machine.deliverable and (not self.machine.cancelling or self._interruptible)

    @property
    def _interruptible(self) -> bool:
        timers = {} if self._others is None else self._others.timers
        return any(
            future.watched if (timer := timers.get(index)) is None else timer.sleeper is not None
            for index, future in self._futures.items()
        )

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
        future.completed_as = self._delivered = self._delivered + 1
        if call is None:
            self._settle_other(index, future, outcome)
        elif index in values:
            # Read back already, when it was executed here.
            value = values.pop(index)
            if type(outcome) is Success and not future.done():
                future.set_result(value)
        elif not future.done():
            serde = call.traits.serde
            if self.limits.sealer is None:
                complete(future, outcome, serde)
            else:
                self._settle_with(future, outcome, lambda sealed, opened: complete(sealed, opened, serde))

    def _settle_other(self, index: int, future: DurableFuture[Any], outcome: Outcome) -> None:
        settle: Settle | None = None
        if self._others is not None:
            settle = self._others.settles.pop(index, None)
            self._others.lookups.pop(index, None)
            self._others.timers.pop(index, None)
        if future.done():
            return
        if settle is None:
            complete(future, outcome, JSON)
        else:
            self._settle_with(future, outcome, settle)

    def _settle_with(self, future: DurableFuture[Any], outcome: Outcome, settle: Settle) -> None:
        sealer = self.limits.sealer
        if sealer is not None:
            try:
                outcome = sealer.open_outcome(outcome)
            except SerdeError as error:
                future.set_exception(error)
                return
        settle(future, outcome)

    def _interrupt(self, interrupt: Interrupt) -> None:
        """Raise the cancellation in everything that waits, and have it go on to the callees."""
        now_ms = self.clock.now_ms()
        for index in interrupt.dropped:
            self.machine.propose(self._cancelled(index, now_ms))
        for child in interrupt.children:
            self.machine.propose(CancelChild(now_ms, interrupt.cause, child))
            self.writer.sends = True
        error = TerminalError(CANCELLED.message, CANCELLED.code)
        for index, future in list(self._futures.items()):
            if (timer := self.others.timers.get(index)) is not None:
                timer.interrupt(error)
            elif future is self._awaited or future.watched:
                future.completed_as = self._delivered = self._delivered + 1
                self._futures[index] = future.interrupt(error)
        self.writer.flush_soon()

    def forsaken(self, future: DurableFuture[Any]) -> DurableFuture[Any] | None:
        """See `Awaited.forsaken`."""
        index = future.command_index
        if self.departure is not None or self._futures.get(index) is not future:
            return None
        successor = self._futures[index] = durable_future(self, index, future.name, loop=self.loop)
        return successor

    def _cancelled(self, index: int, at_ms: int) -> Run | Lookup:
        call = self._calls.get(index)
        if call is not None:
            return Run(index, call.name, at_ms, 0, CANCELLED)
        kind, name, _ = self.others.lookups[index]
        return Lookup(kind, index, name, at_ms, False, CANCELLED)

    def _give_up_pauses(self) -> None:
        """A cancellation waits for what runs, and not for steps that wait to be tried again."""
        for index in self.steps.give_up_pauses():
            self.machine.propose(self._cancelled(index, self.clock.now_ms()))
        self.writer.flush_soon()
