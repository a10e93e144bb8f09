"""Many waits for one outcome, on one or many clients of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from perdure.worker.client import Client
from perdure.worker.clock import SystemClock

LISTEN_S = 300.0
"""For one wait: above what any run takes, so that only a lost outcome ends it."""

WORD = "open"
"""What the outcome is."""


class Told(NamedTuple):
    """How many were told the right thing, when the last of them was, and how many outcomes of their own were right."""

    right: int
    at_ms: int
    own: int = 0


async def told(clients: Sequence[Client], invocation_id: str, waits: int) -> Told:
    """Have each client wait so often for one outcome, and return what they were told."""
    timeout = timedelta(seconds=LISTEN_S)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(client.result(invocation_id, timeout=timeout)) for client in clients for _ in range(waits)
        ]
    return Told(sum(task.result() == WORD for task in tasks), SystemClock().now_ms())
