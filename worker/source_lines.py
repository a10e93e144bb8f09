"""Where in its author's code a handler is: for messages about what it does, never on its way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .leash import leashed

_OURS = ("perdure.", "asyncio.", "contextlib")

_DEPTH_MAX = 1_000


def handler_line(task: asyncio.Task[Any] | None) -> str:
    """The innermost line outside of Perdure and asyncio: of the running code, or of where that task waits.

    Returns:
        `file:line, in function`; empty where it is not known.
    """
    running = task is None or task is asyncio.current_task()
    frames = _calls() if running else reversed(list(_waits(task)))
    for frame in frames:
        if not frame.f_globals.get("__name__", "").startswith(_OURS):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
    return ""


def function_line(fn: Callable[..., Any]) -> str:
    """Where a function begins; empty where it is not known."""
    code = getattr(fn, "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}, in {code.co_name}"


def _calls() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _waits(task: asyncio.Task[Any] | None) -> Iterator[FrameType]:
    """The frames of coroutines that wait for one another, the outermost first."""
    waiting: Any = None if task is None else task.get_coro()
    for _ in range(_DEPTH_MAX):
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is None:
            return
        yield frame
        if frame.f_code is leashed.__code__:
            # It drives what it holds by hand.
            waiting = frame.f_locals.get("coroutine")
        else:
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
