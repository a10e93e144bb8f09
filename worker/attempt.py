"""One attempt: the driver around the machine, the handler and the store.

The handler runs in the attempt's own task; everything else happens in callbacks of the loop:

```
ctx.run/sleep --> issue --> machine --Execute--> a task for the step --propose--> machine
handler awaits a future --> pump: hand out Ready results, start steps     machine --drain--> store.append
the store answers --> machine.receive --> pump
```

When results reach the handler is in `delivering`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextvars import Context as VariablesOf
from contextvars import copy_context
from datetime import timedelta
from typing import Any, TypeVar

from perdure.journal.machine import Machine
from perdure.journal.store import Claim, Due, Follow, Store
from perdure.schemas.commands import ClearAll, ClearState, SetState
from perdure.schemas.entries import OUTGOING, Entry, Input, Outcome, Waiting, Written
from perdure.schemas.errors import JournalMismatchError, UsageError
from perdure.schemas.ids import InvocationId

from .actions import Actions
from .attempt_commands import Commands, Settle
from .attempt_limits import AttemptLimits, Outward, TimerSink
from .changed_arguments import changed
from .clock import Clock
from .context import AttemptFinishedEvent, Context
from .departing import Departing
from .departures import Departure, Holding
from .futures import DurableFuture, bind, durable_future
from .handler import Handler
from .handler_timers import SECONDS_MAX, DurableTimer
from .journal_writer import JournalWriter
from .options import RunOptions
from .scope import SCOPE
from .source_lines import handler_line
from .state_view import StateView
from .step_runner import StepRunner
from .steps import StepCall, check_step
from .suspension import Suspension

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Attempt(Departing):
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
        outward: Told what has to reach something beside the journal.
    """

    __slots__ = (
        "__weakref__",
        "_actions",
        "_commands",
        "_outward",
        "_timers",
        "claim",
        "context",
        "finished",
        "store",
        "threads",
    )

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
        outward: Outward,
    ) -> None:
        super().__init__()
        self.claim = claim
        self.invocation_id: InvocationId = claim.lease.invocation_id
        self.handler = handler
        self.limits = limits
        self.store = store
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.machine = Machine()
        self.threads = threads
        self.wakes_ms: dict[int, float] = {}
        self.writer = JournalWriter(
            claim,
            self.machine,
            store=store,
            on_news=self._progress,
            on_loss=self._lost,
            on_sent=self.sent,
            loop=self.loop,
        )
        self.steps = StepRunner(self, payload_bytes_max=limits.payload_bytes_max, loop=self.loop, sealer=limits.sealer)
        self._suspension = Suspension(
            self, inactivity_ms=limits.inactivity_ms, always_replay=limits.always_replay, loop=self.loop
        )
        self._timers = timers
        self._actions = actions
        self._outward = outward
        self._commands: Commands | None = None
        self.context: Context | None = None
        self.finished: AttemptFinishedEvent | None = None
        self.departure: Departure | None = None
        self._closed = False
        self._ended = False
        self._concluding = False

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
        self.machine.begin()
        if self._missed:
            self.fetch()
        if self.machine.pause_asked:
            self.depart_quietly(Holding())
            raise asyncio.CancelledError(f"an operator pauses {self.invocation_id}")

    @property
    def replaying(self) -> bool:
        """Whether the handler repeats what an earlier attempt did."""
        return self.machine.replaying

    def log_fields(self) -> dict[str, Any]:
        """Whose line it is that the handler logs."""
        claim = self.claim
        fields: dict[str, Any] = {"service": claim.service, "handler": claim.handler}
        if claim.key is not None:
            fields["key"] = claim.key
        return fields | {"invocation_id": self.invocation_id, "attempt": claim.lease.epoch}

    @property
    def commands(self) -> Commands:
        """What its context can do beside steps and timers."""
        if self._commands is None:
            preload = self.handler.state_preload
            state = None if preload is False else self.claim.state
            self._commands = Commands(
                self,
                state=StateView(state, names=preload if isinstance(preload, tuple) else None),
                sealer=self.limits.sealer,
                mains=self.limits.mains,
            )
        return self._commands

    def sent(self, position: int, entry: Entry) -> None:
        """The entry at that position has to reach something beside the journal."""
        self._outward.send(self.invocation_id, position, entry, target=self.claim.lease.target)

    def act(self, due: Sequence[Due]) -> None:
        """See `Issuer.act`."""
        self._outward.act(due)

    async def cancel_callees(self) -> None:
        """Return when the callees that a cancellation of this invocation goes on to know of it."""
        await self._outward.cancel_callees(self.invocation_id, self.machine.cancelled_callees)

    def follow(self) -> Follow | None:
        """How the next invocation of its object is claimed with this one's outcome."""
        return self._outward.follow()

    def make_room(self) -> None:
        """Others want to begin: leave memory at once, if all there is to do is to wait for the outside."""
        if not self._closed and self.departure is None and not self._concluding:
            self._suspension.hurry()

    async def finish_steps(self) -> None:
        """Return when every step that was asked for has its result in the journal, or the attempt departs."""
        while self.departure is None:
            self._start_steps()
            await self.steps.all_done()
            if not self.machine.executing and self.writer.concludable:
                return
            await self.writer.quiet()

    async def close(self) -> None:
        """End everything that the handler and its steps left running; nothing is appended by them any more."""
        if self.finished is not None:
            self.finished.finish()
        await super().close()
        self._commands = self.context = None
        del self.writer, self.steps, self._suspension

    @property
    def unfired(self) -> list[int]:
        """Command indices of timers that have not fired."""
        return self.machine.unfired

    def run_step(
        self,
        name: str,
        action: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: RunOptions[T],
    ) -> DurableFuture[T]:
        """Issue a step; its action starts at once unless the journal has its result."""
        # Asked for here, too, because spelling the call out would be most of the asking.
        suspicious = SCOPE.get() is not self or self._ended or self.departure is not None
        if suspicious and not self.usable(f"ctx.run({name!r})"):
            return self._never(name)
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
        if not self.usable("ctx.sleep"):
            return self._never(name)
        if not isinstance(delta, timedelta):
            raise UsageError(f"ctx.sleep takes a timedelta, not {delta!r:.200}.")
        # Rounded up: never early.
        whole_ms, rest = divmod(delta, timedelta(milliseconds=1))
        now_ms, duration_ms = self.clock.now_ms(), max(0, whole_ms + bool(rest))
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

    def set_timer(
        self, delay_s: float, callback: Callable[..., object], args: tuple[Any, ...], context: VariablesOf | None
    ) -> asyncio.TimerHandle | None:
        """See `TaskOwner.set_timer`."""
        if self.over or not self.by_handler:
            # What tidies up may wait for things, and is recorded nowhere.
            return None
        seconds = min(max(0.0, delay_s), SECONDS_MAX)
        future = self.sleep("asyncio", timedelta(seconds=seconds))
        when = self.loop.time() + seconds
        timer = DurableTimer(future, callback, args, when=when, loop=self.loop, context=context)
        self.others.timers[future.command_index] = timer
        return timer

    def issue(
        self,
        what: str,
        command: Callable[[int], Waiting | Written],
        settle: Settle | None = None,
        future: DurableFuture[Any] | None = None,
    ) -> DurableFuture[Any]:
        """See `Issuer.issue`."""
        usable, index = self.usable(what), self.machine.next_index
        made = bind(DurableFuture(loop=self.loop) if future is None else future, self, index, what)
        if not usable:
            return made
        entry = command(index)
        try:
            outcome = self.machine.issue(entry)
            if (recorded := self.machine.replayed(index)) is not None:
                self._compare(what, recorded, entry)
        except JournalMismatchError as error:
            self.diverged(error, handler_line(None))
            return made
        if self.machine.executable:
            # It may be the last one that is recorded, and nobody else asks now.
            self._settle_soon()
        if isinstance(entry, OUTGOING):
            self.writer.sends = True
        if isinstance(entry, SetState | ClearState | ClearAll):
            self.writer.flush_later()
        elif settle is None:
            self.writer.flush_soon()
        elif outcome is not None:
            self._known(made, outcome, settle)
        else:
            self.others.settles[index] = settle
            self._issued(made)
        return made

    def look_up(
        self,
        what: str,
        kind: str,
        name: str,
        *,
        known: Outcome | None,
        ask: Callable[[int], Awaitable[Outcome]],
        settle: Settle,
    ) -> DurableFuture[Any]:
        """See `Issuer.look_up`."""
        usable, made = self.usable(what), bind(DurableFuture(loop=self.loop), self, self.machine.next_index, what)
        if not usable:
            return made
        try:
            index, outcome = self.machine.issue_lookup(kind, name, at_ms=self.clock.now_ms(), known=known)
        except JournalMismatchError as error:
            self.diverged(error, handler_line(None))
            return made
        if outcome is not None:
            if self.machine.executable:
                self._settle_soon()
            self._known(made, outcome, settle)
            self.writer.flush_later()
            return made
        self.others.settles[index] = settle
        self.others.lookups[index] = (kind, name, ask)
        return self._issued(made)

    def _known(self, future: DurableFuture[Any], outcome: Outcome, settle: Settle) -> None:
        # There at the call, in every replay, too.
        future.completed_as = self._delivered = self._delivered + 1
        self._settle_with(future, outcome, settle)

    def _diverged(self, error: JournalMismatchError, name: str) -> DurableFuture[Any]:
        # Not raised: a handler's own `except Exception` must not hide it.
        self.diverged(error, handler_line(None))
        return self._never(name)

    def _compare(self, what: str, recorded: Waiting | Written, issued: Waiting | Written) -> None:
        difference = changed(recorded, issued, self.limits.sealer)
        if difference is None:
            return
        where = handler_line(None)
        if self.limits.strict_arguments:
            raise JournalMismatchError(
                index=recorded.command_index,
                recorded=str(recorded.identity),
                issued=f"the same with {difference}",
                likely="Other arguments are only a warning in production, where the recorded ones count.",
            )
        logger.warning(
            "%s of %s (%s) has %s; what was recorded counts. It depends on something that is not recorded.",
            what,
            self.invocation_id,
            where,
            difference,
            extra={"invocation_id": self.invocation_id, "handler": self.handler.target},
        )

    def _never(self, name: str) -> DurableFuture[Any]:
        return durable_future(self, -1, name, loop=self.loop)

    def _issued(self, future: DurableFuture[T]) -> DurableFuture[T]:
        self._futures[future.command_index] = future
        if self.shaken:
            self.steady()
        machine = self.machine
        if machine.deliverable:
            self._settle_soon()
        else:
            self._start_steps()
            if machine.pending:
                self.writer.flush_soon()
        return future
