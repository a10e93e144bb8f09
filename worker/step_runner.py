"""The steps of one attempt while they are executed: a task each, with the step's own policy around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, Protocol

from perdure.schemas.commands import Lookup
from perdure.schemas.entries import Failure, Outcome, Run, StepFailed, Success
from perdure.schemas.errors import PerdureError, SerdeError
from perdure.schemas.ids import InvocationId

from .clock import Clock
from .journal_writer import JournalWriter
from .leash import raised_by_author
from .scope import SCOPE, StepInfo
from .sealing import Sealer
from .serde import encode_readable
from .steps import Again, AttemptFails, Exhausted, StepCall, as_failure, execute_in_thread, judge, terminal_cause

# What a named tuple's own __new__ does, for half of its price: every step makes three of them.
_tuple = tuple.__new__


class Asking(Protocol):
    """An attempt, as its steps see it."""

    invocation_id: InvocationId
    writer: JournalWriter
    clock: Clock
    threads: Executor

    def step_failed(self, error: BaseException, name: str) -> None:
        """A step without a policy failed."""

    def step_pauses(self) -> None:
        """A step begins to wait for its next execution."""


class StepRunner:
    """Executes steps and proposes their results.

    Args:
        attempt: Whose steps they are.
        payload_bytes_max: A longer result is refused.
        sealer: Of the application's payload codec.
        loop: The attempt's.
    """

    def __init__(
        self,
        attempt: Asking,
        *,
        payload_bytes_max: int,
        loop: asyncio.AbstractEventLoop,
        sealer: Sealer | None = None,
    ) -> None:
        self._sealer = sealer
        self._attempt = attempt
        self.backing_off: dict[int, float] = {}
        """Steps that wait for their next execution, and until when, in ms of the monotonic clock."""
        self.values: dict[int, Any] = {}
        """Results as the handler will see them, by command index, until they are handed out."""
        self._payload_bytes_max = payload_bytes_max
        self._loop = loop
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._given_up: set[int] = set()
        self._last = False
        self._cut = False
        self._ended = False

    def start(self, index: int, call: StepCall, failed: StepFailed | None) -> None:
        """Execute a step in a task of its own, in the context that it was asked for in."""
        # Made without the loop's task factory: a step's task is not the handler's.
        self._tasks[index] = asyncio.Task(self._run(index, call, failed), loop=self._loop, context=call.context)

    def look_up(self, index: int, kind: str, name: str, ask: Callable[[int], Awaitable[Outcome]]) -> None:
        """Ask the store for the handler, and propose what it answers."""
        self._tasks[index] = asyncio.Task(self._look_up(index, kind, name, ask), loop=self._loop, context=Context())

    async def _look_up(self, index: int, kind: str, name: str, ask: Callable[[int], Awaitable[Outcome]]) -> None:
        try:
            if self._attempt.writer.leaving:
                await self._attempt.writer.stayed()
            outcome = await ask(index)
            writer = self._attempt.writer
            writer.machine.propose(Lookup(kind, index, name, self._attempt.clock.now_ms(), False, outcome))
            writer.flush_soon()
        except PerdureError as error:
            self._attempt.step_failed(error, f"{kind} {name}")
        finally:
            del self._tasks[index]

    def give_up_pauses(self) -> list[int]:
        """Have no step tried again that waits for that; returns their command indices, each once."""
        given_up = [index for index in self.backing_off if index not in self._given_up]
        self._given_up.update(given_up)
        for index in given_up:
            self._tasks[index].cancel()
        return given_up

    async def executed(self) -> None:
        """Return when no action runs any more; from here on, no failed step is executed again."""
        self._last = True
        for index in self.backing_off:
            self._tasks[index].cancel()
        await self.all_done()

    async def all_done(self) -> None:
        """Return when every step that was started has a result."""
        # A task that was cancelled before it began stays among them.
        while tasks := [task for task in self._tasks.values() if not task.done()]:
            await asyncio.wait(tasks)

    def begin_no_more(self) -> None:
        """Execute nothing that is not being executed now: its result would not be recorded."""
        self._ended = True

    def cut(self) -> None:
        """Cancel every step. A thread cannot be cancelled; its result is dropped."""
        self._cut = True
        for task in self._tasks.values():
            task.cancel()

    async def stop(self) -> None:
        """Cancel every step and wait until they have ended."""
        tasks = list(self._tasks.values())
        self.cut()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, index: int, call: StepCall, failed: StepFailed | None) -> None:
        try:
            if failed is not None:
                # By the clock, but never longer than the policy's own delay: clocks of workers may differ.
                left_ms = failed.at_ms + failed.retry_ms - self._attempt.clock.now_ms()
                await self._pause(index, min(left_ms, failed.retry_ms))
            writer = self._attempt.writer
            while (entry := await self._execute(index, call, failed)) is not None:
                writer.machine.propose(entry)
                if isinstance(entry, Run):
                    # Where this was the only step, nothing else comes up in this turn.
                    if len(self._tasks) == 1:
                        writer.flush_now()
                    else:
                        writer.flush_soon()
                    return
                writer.flush_soon()
                if self._last:
                    return
                failed = entry
                await self._pause(index, failed.retry_ms)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not raised_by_author(error, self._tasks.get(index)):
                raise
            # A step whose task ended without a word would be waited for for ever.
            self._attempt.step_failed(error, call.name)
        finally:
            del self._tasks[index]

    async def _execute(self, index: int, call: StepCall, failed: StepFailed | None) -> Run | StepFailed | None:
        """Execute the action once; what to propose, or `None` where the attempt fails."""
        attempt, name = self._attempt, call.name
        if attempt.writer.leaving:
            await attempt.writer.stayed()
        if self._ended:
            raise asyncio.CancelledError("the attempt departs")
        started_ms = attempt.clock.monotonic_ms()
        execution = 1 if failed is None else failed.failures + 1
        SCOPE.set(_tuple(StepInfo, (attempt.invocation_id, name, index, execution)))
        outcome: Outcome
        try:
            if call.traits.is_async:
                value = await call.action(*call.args, **call.kwargs)
            else:
                value = await execute_in_thread(call, attempt.threads)
            what = f"The result of step {name!r}"
            raw, self.values[index] = encode_readable(call.traits.serde, value, what=what)
            if len(raw) > self._payload_bytes_max:
                raise SerdeError(
                    f"{what} has {len(raw)} bytes; at most {self._payload_bytes_max} fit into a journal. Store it "
                    "elsewhere and return where it is."
                )
            outcome = _tuple(Success, (raw if self._sealer is None else self._sealer.seal(raw),))
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self._cut:
                raise
            await self._stay_uncancelled()
            # A value that was refused is not what the handler sees.
            self.values.pop(index, None)
            verdict = self._verdict(index, call, error, failed=failed, started_ms=started_ms)
            if not isinstance(verdict, Failure):
                return verdict
            outcome = verdict if self._sealer is None else self._sealer.seal_outcome(verdict)
        spent_ms = int(attempt.clock.monotonic_ms() - started_ms)
        return _tuple(Run, (index, name, attempt.clock.now_ms(), spent_ms, outcome))

    async def _stay_uncancelled(self) -> None:
        """Take back that an action cancelled its own task, or the pause before its next execution would end at once."""
        task = asyncio.current_task()
        assert task is not None, "a step runs in a task"
        if not task.cancelling() or self._cut:
            return
        while task.uncancel():
            pass
        try:
            # A cancellation that was not raised yet is raised here.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._cut:
                raise

    def _verdict(
        self, index: int, call: StepCall, error: BaseException, *, failed: StepFailed | None, started_ms: float
    ) -> Failure | StepFailed | None:
        terminal = terminal_cause(error)
        if terminal is not None:
            return as_failure(terminal)
        spent_ms = int(self._attempt.clock.monotonic_ms() - started_ms)
        match judge(call, index, error, before=failed, spent_ms=spent_ms, at_ms=self._attempt.clock.now_ms()):
            case Exhausted(failure):
                return failure
            case AttemptFails(cause):
                self._attempt.step_failed(cause, call.name)
                return None
            case Again(again):
                return again

    async def _pause(self, index: int, delay_ms: float) -> None:
        if delay_ms <= 0:
            return
        self.backing_off[index] = self._attempt.clock.monotonic_ms() + delay_ms
        self._attempt.step_pauses()
        try:
            await self._attempt.clock.sleep(delay_ms / 1000)
        finally:
            del self.backing_off[index]
