"""`python -m tests.chaos.worker worker TARGET`: `perdure worker`, which can also be blocked and have its clock moved.

SIGUSR1 blocks the event loop for `BLOCK_S`, wherever it is. SIGUSR2 moves the clock of the process by an hour, and back
the next time. A thread says when the process had stood still.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

from perdure.worker.cli import main
from tests.process.effects import DIRECTORY_VARIABLE

from .marks import Mark, Marks

BLOCK_S = 3.0
"""Longer than a lease and a session of these runs."""

SHIFT_NS = 3_600 * 10**9

STALL_S = 0.5
"""A pause that a worker's thread did not ask for and that is worth telling: a quarter of a lease."""

LOOK_S = 0.1


class MovableClock:
    """`time.time` and `time.time_ns` of this process, moved by an hour when asked."""

    def __init__(self) -> None:
        self.shifted = False
        self._true_ns = time.time_ns

    def time_ns(self) -> int:
        """Nanoseconds since the epoch, or an hour more."""
        return self._true_ns() + (SHIFT_NS if self.shifted else 0)

    def time(self) -> float:
        """Seconds since the epoch, or an hour more."""
        return self.time_ns() / 1e9

    def install(self) -> None:
        """Be the clock of every module of this process, aiokafka's and redis's, too."""
        time.time_ns = self.time_ns
        time.time = self.time


def monotonic_ms() -> int:
    """By the clock that all processes of the machine share."""
    return int(time.monotonic() * 1000)


def obey(marks: Marks) -> None:
    """Install the clock, the two signals, and the thread that notices stalls."""
    clock = MovableClock()
    clock.install()

    def block(_number: int, _frame: FrameType | None) -> None:
        begin_ms = monotonic_ms()
        time.sleep(BLOCK_S)
        marks.append(Mark("blocked", os.getpid(), begin_ms, monotonic_ms()))

    def move(_number: int, _frame: FrameType | None) -> None:
        clock.shifted = not clock.shifted
        now_ms = monotonic_ms()
        marks.append(Mark("clock", os.getpid(), now_ms, now_ms, "an hour ahead" if clock.shifted else "right again"))

    def watch() -> None:
        last = time.monotonic()
        while True:
            time.sleep(LOOK_S)
            now = time.monotonic()
            if now - last > LOOK_S + STALL_S:
                marks.append(Mark("stalled", os.getpid(), int(last * 1000), int(now * 1000)))
            last = now

    signal.signal(signal.SIGUSR1, block)
    signal.signal(signal.SIGUSR2, move)
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    obey(Marks(Path(os.environ[DIRECTORY_VARIABLE])))
    main()
