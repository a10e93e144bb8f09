"""Several worker processes on one machine: started, missed at once when they die, started again, ended together.

Law: the supervisor does no work and holds nothing. A child's death is told to Redis so that its invocations go on
elsewhere at once, instead of when its lease ends; without the supervisor they still do, later.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from perdure.schemas.errors import PerdureError

from .clock import Clock
from .lifeline import Pulse, lifeline

logger = logging.getLogger(__name__)

RESTART_S_MIN = 0.1
RESTART_S_MAX = 30.0
"""Between a death and the next start, doubled while children die soon."""

HEALTHY_S = 60.0
"""A child that lived so long did not die of how it was started: back-off begins anew."""

KILL_MARGIN_S = 10.0
"""How much longer than its grace a child may take to end before it is killed; it ends itself somewhat earlier."""

REPORT_TIMEOUT_S = 5.0
"""For telling Redis of a death; after it the lease ends by itself."""

PULSE_LOOK_S = 0.5
"""Between two looks at whether a child's loop turns, which it shows five times a second."""

NOT_WORTH_A_RESTART = 2
"""A child's exit code for bad settings or a bad application: the next one would say the same."""


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """How many children, and how they end.

    Attributes:
        processes: At least 1.
        name: What the children's names begin with; no other supervisor's do.
        grace_s: How long a child may take after SIGTERM.
        environment: The children's whole environment.
        frozen_s: A child whose event loop has turned once, and then not for so long, is killed.
    """

    processes: int
    name: str
    grace_s: float
    environment: Mapping[str, str]
    frozen_s: float


class Supervisor:
    """Runs the children until `stop`.

    Args:
        settings: See there.
        command: The program and its arguments for a child's name, the descriptor of its lifeline, and the one of its
            pulse.
        report: Tells others that the child of that name is dead. Bounded and protected here.
        clock: For back-off.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        *,
        command: Callable[[str, int, int], Sequence[str]],
        report: Callable[[str], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._command = command
        self._report = report
        self._clock = clock
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._exit_code = 0

    @property
    def pids(self) -> dict[str, int]:
        """The running children's process ids by their names."""
        return {name: process.pid for name, process in self._running.items()}

    def stop(self) -> None:
        """Begin to end: SIGTERM for each child, SIGKILL after its grace; the second time SIGKILL at once."""
        again = self._stopping.is_set()
        self._stopping.set()
        for process in self._running.values():
            _signal(process, signal.SIGKILL if again else signal.SIGTERM)

    async def run(self) -> int:
        """Run until all children have ended after `stop`, or one said that starting it is useless.

        Returns:
            0 after an orderly end; 2 where a child refused its settings or application; 1 where one had to be killed.
        """
        with lifeline() as descriptor:
            async with asyncio.TaskGroup() as tasks:
                for index in range(self._settings.processes):
                    tasks.create_task(self._keep(index, descriptor))
        return self._exit_code

    async def _keep(self, index: int, descriptor: int) -> None:
        pause_s = RESTART_S_MIN
        generation = 0
        while not self._stopping.is_set():
            generation += 1
            # A new name for each, so that what is said of the dead is not said of the living.
            name = f"{self._settings.name}-{index}.{generation}"
            started_ms = self._clock.monotonic_ms()
            code = await self._run_child(name, descriptor)
            if self._stopping.is_set():
                break
            if code == NOT_WORTH_A_RESTART:
                logger.error("worker process %s refused its settings or its application; ending", name)
                self._exit_code = NOT_WORTH_A_RESTART
                self.stop()
                break
            if self._clock.monotonic_ms() - started_ms >= HEALTHY_S * 1000:
                pause_s = RESTART_S_MIN
            logger.warning("worker process %s %s; starting another in %g s", name, _ending(code), pause_s)
            report = asyncio.create_task(self._tell(name))
            try:
                await self._pause(pause_s)
            finally:
                await report
            pause_s = min(2 * pause_s, RESTART_S_MAX)

    async def _run_child(self, name: str, descriptor: int) -> int:
        with Pulse() as pulse:
            process = await asyncio.create_subprocess_exec(
                *self._command(name, descriptor, pulse.child_end),
                env=dict(self._settings.environment),
                pass_fds=[descriptor, pulse.child_end],
                # Ctrl-C goes to the terminal's whole foreground group: the children hear of it from us, once.
                start_new_session=True,
            )
            self._running[name] = process
            logger.info("worker process %s runs with pid %d", name, process.pid)
            watching = asyncio.create_task(self._watch(process, name, pulse))
            try:
                if self._stopping.is_set():
                    _signal(process, signal.SIGTERM)
                return await self._wait(process, name)
            finally:
                watching.cancel()
                del self._running[name]

    async def _watch(self, process: asyncio.subprocess.Process, name: str, pulse: Pulse) -> None:
        """Kill the child when its loop stands still: it would hold its place, and run nothing, for ever."""
        heard_ms: float | None = None
        while True:
            await self._clock.sleep(PULSE_LOOK_S)
            # What was written while this process itself stood still counts as heard now.
            if self._stopping.is_set():
                # From here on it has its grace.
                return
            if pulse.heard():
                heard_ms = self._clock.monotonic_ms()
            elif heard_ms is not None and self._clock.monotonic_ms() - heard_ms > self._settings.frozen_s * 1000:
                logger.error(
                    "worker process %s is killed: something has blocked its event loop for %g s",
                    name,
                    self._settings.frozen_s,
                )
                _signal(process, signal.SIGKILL)
                return

    async def _wait(self, process: asyncio.subprocess.Process, name: str) -> int:
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait([ended], timeout=self._settings.grace_s + KILL_MARGIN_S)
            if not ended.done():
                logger.error("worker process %s did not end within its grace and is killed", name)
                self._exit_code = self._exit_code or 1
                _signal(process, signal.SIGKILL)
            code = await ended
        finally:
            stopping.cancel()
            if not ended.done():
                # The supervisor itself is being cancelled: no child outlives it.
                _signal(process, signal.SIGKILL)
                await process.wait()
        if self._stopping.is_set() and code != 0:
            await self._tell(name)
        return code

    async def _tell(self, name: str) -> None:
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                await self._report(name)
        except (TimeoutError, PerdureError) as error:
            logger.warning("Redis was not told of the death of %s; its leases end by themselves: %s", name, error)

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            return


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `variables` over it."""
    return {**os.environ, **variables}


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
