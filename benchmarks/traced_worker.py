"""The worker of `breakdown`: the same, with the moments of each invocation as the last line that it writes.

Wraps what the moments stand between, from outside; nothing in the worker knows of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop

from perdure import Settings
from perdure.journal.redis_store import RedisStore
from perdure.journal.store import Claim, Concluded
from perdure.worker.attempts import Attempts
from perdure.worker.broker import Record
from perdure.worker.intake import Intake
from perdure.worker.main import run_worker

from .application import application

moments: list[tuple[str, float]] = []


def note(what: str) -> None:
    """Remember that this happened now. The clock is one for all processes of a machine."""
    moments.append((what, time.perf_counter()))


def wrap() -> None:
    """Have the worker's parts say when they are passed."""
    take: Callable[..., Awaitable[int]] = Intake.take
    start: Callable[..., None] = Attempts.start
    complete: Callable[..., Awaitable[Concluded]] = RedisStore.complete

    async def taking(intake: Intake, records: Sequence[tuple[Record, int]]) -> int:
        note("fetched")
        return await take(intake, records)

    def starting(attempts: Attempts, claim: Claim) -> None:
        note("admitted")
        start(attempts, claim)

    async def completing(store: RedisStore, *arguments: Any, **named: Any) -> Concluded:
        note("ran")
        concluded = await complete(store, *arguments, **named)
        note("completed")
        return concluded

    Intake.take = taking  # type: ignore[method-assign, assignment]
    Attempts.start = starting  # type: ignore[method-assign, assignment]
    RedisStore.complete = completing  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    wrap()
    code = uvloop.run(run_worker(application, Settings.load()))
    sys.stdout.write(json.dumps(moments) + "\n")
    sys.stdout.flush()
    sys.exit(code)
