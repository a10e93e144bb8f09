"""The event loop of a worker process: uvloop where it is installed, which halves the cost of a step."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def run_to_end(main: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine on a loop of its own, as `asyncio.run`."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    # Imported here: it is not there on Windows and on other interpreters than CPython.
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
