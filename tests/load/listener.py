"""A process that waits for one outcome very often, and for as many of its own: `python -m tests.load.listener ID N`.

Prints, as JSON, how many were told what, and when; its settings come from the environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta

from perdure.worker.client import Client
from perdure.worker.settings import Settings

from .told import LISTEN_S, Told, told


async def listen(invocation_id: str, waits: int) -> Told:
    """Wait for that outcome with so many waits, and for so many others."""
    async with Client(Settings.load()) as client:
        own = [await client.send("Load/record", number) for number in range(waits)]
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            shared = group.create_task(told([client], invocation_id, waits))
            others = [group.create_task(handle.result(timeout=timedelta(seconds=LISTEN_S))) for handle in own]
        right = sum(task.result() == number for number, task in enumerate(others))
    return shared.result()._replace(own=right)


if __name__ == "__main__":
    result = asyncio.run(listen(sys.argv[1], int(sys.argv[2])))
    sys.stdout.write(json.dumps(result._asdict()) + "\n")
