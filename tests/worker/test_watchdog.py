"""The process between a server and whoever started it: `worker/watchdog.py`, executed as it is in production."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.worker import watchdog

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


class Watched:
    """A watchdog over `command`, spoken to over its pipes."""

    def __init__(self, log_path: Path, command: list[str]) -> None:
        self.log_path = log_path
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, str(log_path), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.server_pid = int(self.stdout.readline())

    def send(self, number: int) -> None:
        """Write one line of the watchdog's protocol."""
        self.stdin.write(f"{number}\n")
        self.stdin.flush()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Watched]:
    """A watchdog over a process that waits for signals."""
    watched = Watched(tmp_path / "log", SLEEPER)
    with watched.process:
        yield watched


def ended(watched: Watched) -> bool:
    """Whether the server is gone: its watchdog reaps it and only then closes its own output."""
    return watched.stdout.read() == ""


def test_the_end_of_the_pipe_is_the_end_of_the_server(sleeper: Watched) -> None:
    """Closing standard input, as the kernel does for a killed parent, kills the server."""
    sleeper.stdin.close()
    assert ended(sleeper)
    with pytest.raises(ProcessLookupError):
        signal_zero(sleeper.server_pid)


def test_signals_are_passed_on_and_the_exit_code_tells_of_them(sleeper: Watched) -> None:
    """A line with a number sends that signal; the exit code is 128 + n, as a shell has it."""
    sleeper.send(signal.SIGTERM)
    assert sleeper.process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_watchdog_that_is_asked_to_end_takes_the_server_along(sleeper: Watched, number: signal.Signals) -> None:
    """A signal to the watchdog itself leaves no orphan."""
    sleeper.process.send_signal(number)
    assert ended(sleeper)
    with pytest.raises(ProcessLookupError):
        signal_zero(sleeper.server_pid)


def test_output_goes_to_the_log_and_the_exit_code_is_the_servers(tmp_path: Path) -> None:
    """Both streams are appended to the log file; a server that ends by itself ends its watchdog."""
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr); raise SystemExit(7)"
    (tmp_path / "log").write_text("before\n")
    watched = Watched(tmp_path / "log", [sys.executable, "-c", program])
    with watched.process:
        assert watched.process.wait() == 7
    assert watched.log_path.read_text() == "before\nout\nerr\n"


def signal_zero(pid: int) -> None:
    """Ask whether a process exists.

    Raises:
        ProcessLookupError: It does not.
    """
    os.kill(pid, 0)
