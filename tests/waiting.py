"""Waiting for what another process or task will have done, with a deadline and a name for it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

# Between two looks: short enough that a wait costs a test nothing that one would notice.
INTERVAL_S = 0.01

# How long a test waits for what will be soon. It costs a test that passes nothing, and a machine of which others take
# most makes a second's work last half a minute; the deadline of a test leaves room for more than one such wait.
PATIENCE_S = 60.0
PATIENCE = timedelta(seconds=PATIENCE_S)


async def wait_until(
    predicate: Callable[[], object] | Callable[[], Awaitable[object]],
    *,
    timeout_s: float = PATIENCE_S,
    description: str = "",
) -> None:
    """Return as soon as `predicate()` is true.

    Args:
        predicate: A plain or an async function without arguments; asked every 10 ms.
        timeout_s: Seconds after which it is given up.
        description: What is waited for, for the failure's message.

    Raises:
        AssertionError: It was still false after `timeout_s`; the message holds the description and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > deadline:
            waited_for = description or _source(predicate)
            raise AssertionError(f"Not within {timeout_s} s: {waited_for} (the last answer was {answer!r}).")
        await asyncio.sleep(INTERVAL_S)


def _source(predicate: Callable[[], object]) -> str:
    try:
        return inspect.getsource(predicate).strip()
    except (OSError, TypeError):
        # A built-in, a partial, or code that was typed: its name has to do.
        return repr(predicate)
