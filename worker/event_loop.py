"""The event loop of a worker process: uvloop where it is installed, which halves the cost of a step."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

logger = logging.getLogger(__name__)

STEP_THREADS = "perdure-step"
"""What the names of threads begin with in which steps run."""

IDLE_THREAD_S = 0.2
"""For a thread without a step to notice that it is not needed any more."""

GARBAGE_THRESHOLD = 50_000
"""New objects between two looks for cycles, against CPython's 700: a replay makes tens of thousands that all stay, and
an attempt leaves few cycles behind. Measured: 22 % off the CPU of a no-op attempt."""

Answer = TypeVar("Answer")


def run_to_end(main: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine on a loop of its own, as `asyncio.run`."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def collect_rarely() -> None:
    """Look for garbage less often, and never again at what has been loaded so far. For processes that only work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def leave(code: int) -> int:
    """Return `code` for an ordinary end, or end here and now where a step still blocks its thread.

    The interpreter joins all threads at its end, and would wait for that step for ever.
    """
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(STEP_THREADS)]
    for thread in threads:
        thread.join(IDLE_THREAD_S)
    if any(thread.is_alive() for thread in threads):
        logger.warning("steps still run in threads; ending the process without them")
        end_process(code)
    return code


def end_process(code: int) -> NoReturn:
    """End this process without waiting for anything but what was logged and printed."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _new_loop() -> asyncio.AbstractEventLoop:
    # Imported here: it is not there on Windows and on other interpreters than CPython.
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
