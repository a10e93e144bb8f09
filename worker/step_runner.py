"""The steps of one attempt while they are executed: a task each, with the step's own policy around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from perdure.schemas.entries import Outcome, Run, StepFailed, Success
from perdure.schemas.errors import SerdeError
from perdure.schemas.ids import InvocationId

from .clock import Clock
from .journal_writer import JournalWriter
from .scope import OWNER, STEP, StepInfo
from .serde import encode_readable
from .steps import Again, AttemptFails, Exhausted, StepCall, as_failure, execute, judge, terminal_cause


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

    def start(self, index: int, call: StepCall, failed: StepFailed | None) -> None:
        """Execute a step in a task of its own, in the context that it was asked for in."""
        context = call.context
        context.run(OWNER.set, None)
        task = self._loop.create_task(self._run(index, call, failed), context=context)
        self._tasks[index] = task
        task.add_done_callback(lambda _: self._tasks.pop(index, None))

    async def executed(self) -> None:
        """Return when no action runs any more; steps that wait for their next execution are left waiting."""
        while running := [task for index, task in self._tasks.items() if index not in self.backing_off]:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def all_done(self) -> None:
        """Return when every step that was started has a result."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def stop(self) -> None:
        """Cancel every step and wait until they have ended. A thread cannot be cancelled; its result is dropped."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, index: int, call: StepCall, before: StepFailed | None) -> None:
        if before is not None:
            # By the clock, but never longer than the policy's own delay: clocks of workers may differ.
            left_ms = before.at_ms + before.retry_ms - self._clock.now_ms()
            await self._pause(index, min(left_ms, before.retry_ms))
        while True:
            started_ms = self._clock.monotonic_ms()
            failures = 0 if before is None else before.failures
            STEP.set(StepInfo(self._invocation_id, call.name, index, failures + 1))
            outcome: Outcome
            try:
                value = await execute(call, self._threads)
                raw, seen = encode_readable(call.traits.serde, value, what=f"The result of step {call.name!r}")
                if len(raw) > self._payload_bytes_max:
                    raise SerdeError(
                        f"The result of step {call.name!r} has {len(raw)} bytes; at most {self._payload_bytes_max} fit "
                        "into a journal. Store it elsewhere and return where it is."
                    )
            except asyncio.CancelledError:
                raise
            except (Exception, SystemExit) as error:
                verdict = self._verdict(index, call, error, before=before, started_ms=started_ms)
                if verdict is None:
                    return
                if isinstance(verdict, StepFailed):
                    before = verdict
                    await self._pause(index, before.retry_ms)
                    continue
                outcome = verdict
            else:
                self.values[index] = seen
                outcome = Success(raw)
            spent_ms = int(self._clock.monotonic_ms() - started_ms)
            self._writer.machine.propose(Run(index, call.name, self._clock.now_ms(), spent_ms, outcome))
            self._writer.flush_soon()
            return

    def _verdict(
        self, index: int, call: StepCall, error: BaseException, *, before: StepFailed | None, started_ms: float
    ) -> Outcome | StepFailed | None:
        terminal = terminal_cause(error)
        if terminal is not None:
            return as_failure(terminal)
        spent_ms = int(self._clock.monotonic_ms() - started_ms)
        match judge(call, index, error, before=before, spent_ms=spent_ms, at_ms=self._clock.now_ms()):
            case Exhausted(failure):
                return failure
            case AttemptFails(cause):
                self._on_failure(cause, call.name)
                return None
            case Again(failed):
                self._writer.machine.propose(failed)
                self._writer.flush_soon()
                return failed

    async def _pause(self, index: int, delay_ms: float) -> None:
        if delay_ms <= 0:
            return
        self.backing_off[index] = self._clock.monotonic_ms() + delay_ms
        self._on_pause()
        try:
            await self._clock.sleep(delay_ms / 1000)
        finally:
            del self.backing_off[index]
