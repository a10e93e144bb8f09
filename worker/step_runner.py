"""The steps of one attempt while they are executed: a task each, with the step's own policy around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from perdure.schemas.entries import Failure, Outcome, Run, StepFailed, Success
from perdure.schemas.errors import SerdeError
from perdure.schemas.ids import InvocationId

from .clock import Clock
from .journal_writer import JournalWriter
from .scope import SCOPE, StepInfo
from .serde import encode_readable
from .steps import Again, AttemptFails, Exhausted, StepCall, as_failure, execute_in_thread, judge, terminal_cause


class StepRunner:
    """Executes steps and proposes their results.

    Args:
        invocation_id: Whose steps they are.
        writer: Where results are proposed.
        clock: For durations and pauses.
        threads: Where sync actions run.
        on_failure: Called with the error and the step's name where a step without a policy failed.
        on_pause: Called when a step begins to wait for its next execution.
        payload_bytes_max: A longer result is refused.
    """

    def __init__(
        self,
        invocation_id: InvocationId,
        writer: JournalWriter,
        *,
        clock: Clock,
        threads: Executor,
        on_failure: Callable[[BaseException, str], None],
        on_pause: Callable[[], None],
        payload_bytes_max: int,
    ) -> None:
        self.backing_off: dict[int, float] = {}
        """Steps that wait for their next execution, and until when, in ms of the monotonic clock."""
        self.values: dict[int, Any] = {}
        """Results as the handler will see them, by command index, until they are handed out."""
        self._invocation_id = invocation_id
        self._writer = writer
        self._clock = clock
        self._threads = threads
        self._on_failure = on_failure
        self._on_pause = on_pause
        self._payload_bytes_max = payload_bytes_max
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last = False

    def start(self, index: int, call: StepCall, failed: StepFailed | None) -> None:
        """Execute a step in a task of its own, in the context that it was asked for in."""
        # Made without the loop's task factory: a step's task is not the handler's.
        self._tasks[index] = asyncio.Task(self._run(index, call, failed), loop=self._loop, context=call.context)

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

    def cut(self) -> None:
        """Cancel every step. A thread cannot be cancelled; its result is dropped."""
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
                left_ms = failed.at_ms + failed.retry_ms - self._clock.now_ms()
                await self._pause(index, min(left_ms, failed.retry_ms))
            while (entry := await self._execute(index, call, failed)) is not None:
                self._writer.machine.propose(entry)
                if isinstance(entry, Run):
                    # Where this was the only step, nothing else comes up in this turn.
                    if len(self._tasks) == 1:
                        self._writer.flush_now()
                    else:
                        self._writer.flush_soon()
                    return
                self._writer.flush_soon()
                if self._last:
                    return
                failed = entry
                await self._pause(index, failed.retry_ms)
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            # A step whose task ended without a word would be waited for for ever.
            self._on_failure(error, call.name)
        finally:
            del self._tasks[index]

    async def _execute(self, index: int, call: StepCall, failed: StepFailed | None) -> Run | StepFailed | None:
        """Execute the action once; what to propose, or `None` where the attempt fails."""
        if self._writer.leaving:
            await self._writer.stayed()
        started_ms = self._clock.monotonic_ms()
        execution = 1 if failed is None else failed.failures + 1
        SCOPE.set(StepInfo(self._invocation_id, call.name, index, execution))
        outcome: Outcome
        try:
            if call.traits.is_async:
                value = await call.action(*call.args, **call.kwargs)
            else:
                value = await execute_in_thread(call, self._threads)
            what = f"The result of step {call.name!r}"
            raw, self.values[index] = encode_readable(call.traits.serde, value, what=what)
            if len(raw) > self._payload_bytes_max:
                raise SerdeError(
                    f"{what} has {len(raw)} bytes; at most {self._payload_bytes_max} fit into a journal. Store it "
                    "elsewhere and return where it is."
                )
            outcome = Success(raw)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            verdict = self._verdict(index, call, error, failed=failed, started_ms=started_ms)
            if not isinstance(verdict, Failure):
                return verdict
            outcome = verdict
        spent_ms = int(self._clock.monotonic_ms() - started_ms)
        return Run(index, call.name, self._clock.now_ms(), spent_ms, outcome)

    def _verdict(
        self, index: int, call: StepCall, error: BaseException, *, failed: StepFailed | None, started_ms: float
    ) -> Failure | StepFailed | None:
        terminal = terminal_cause(error)
        if terminal is not None:
            return as_failure(terminal)
        spent_ms = int(self._clock.monotonic_ms() - started_ms)
        match judge(call, index, error, before=failed, spent_ms=spent_ms, at_ms=self._clock.now_ms()):
            case Exhausted(failure):
                return failure
            case AttemptFails(cause):
                self._on_failure(cause, call.name)
                return None
            case Again(again):
                return again

    async def _pause(self, index: int, delay_ms: float) -> None:
        if delay_ms <= 0:
            return
        self.backing_off[index] = self._clock.monotonic_ms() + delay_ms
        self._on_pause()
        try:
            await self._clock.sleep(delay_ms / 1000)
        finally:
            del self.backing_off[index]
