"""A real worker process, or a supervisor with its own: started, killed, frozen, asked to stop.

Law: it is the child of a watchdog that ends it when the test run ends, however that ends; what it starts itself is its
own affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from perdure.worker import watchdog
from tests.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).resolve().parents[2]
TARGET = "tests.process.application:application"
READY = "partitions are assigned"
LOG_TAIL_CHARACTERS = 3_000


class WorkerProcess:
    """One `perdure worker`.

    Args:
        environment: Its variables, in addition to this process's own.
        log_path: Where its output goes.
        flags: Of the command, such as `--processes 2`.
        target: The application.
        module: What is run instead of the command, with the same arguments.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        log_path: Path,
        flags: tuple[str, ...] = (),
        target: str = TARGET,
        module: str = "perdure",
    ) -> None:
        self.log_path = log_path
        self.pid = 0
        self._environment = {**os.environ, **environment}
        self._command = [sys.executable, "-m", module, "worker", target, *flags]
        self._watchdog: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it; it is not ready when this returns."""
        self.pid = await asyncio.to_thread(self._spawn)

    async def ready(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Return once Kafka has given it its partitions, maybe none."""
        await wait_until(lambda: self.said(READY), timeout_s=timeout_s, description=f"{self.log_path.name} is ready")

    def said(self, text: str) -> int:
        """How often that text is in its log."""
        return self.log().count(text)

    def log(self) -> str:
        """Everything it logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def alive(self) -> bool:
        """Whether it runs; a frozen one does."""
        return self._watchdog is not None and self._watchdog.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, and to nothing that it started."""
        assert self.alive, f"it has ended:\n{self.log()[-LOG_TAIL_CHARACTERS:]}"
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.send(signal.SIGKILL)
        await self.exit_code()

    async def terminate(self, *, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM, and return its exit code."""
        self.send(signal.SIGTERM)
        return await self.exit_code(timeout_s=timeout_s)

    async def exit_code(self, *, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end; 128 + n where signal n ended it."""
        process = self._watchdog
        assert process is not None, "it was not started"
        await wait_until(lambda: process.poll() is not None, timeout_s=timeout_s, description=f"{self.pid} ends")
        return process.returncode

    async def close(self) -> None:
        """End it by whatever means, and leave nothing behind."""
        process, self._watchdog = self._watchdog, None
        if process is not None:
            await asyncio.to_thread(_end, process)

    def _spawn(self) -> int:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, str(self.log_path), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            cwd=ROOT,
            start_new_session=True,
        )
        self._watchdog = process
        return int(_pipe(process.stdout).readline())


def _end(process: subprocess.Popen[bytes]) -> None:
    with process, contextlib.suppress(BrokenPipeError):
        _pipe(process.stdin).close()
        _pipe(process.stdout).read()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the watchdog is always started with pipes"
    return pipe
