"""The engine by itself: Python's time for a step of machine and driver over the store in memory."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission, Claim, Claimed
from perdure.schemas.codec import encode
from perdure.schemas.entries import Input, Positioned, Run, Success
from perdure.schemas.ids import new_invocation_id
from perdure.worker.clock import SystemClock, system_random
from perdure.worker.departures import Completed
from perdure.worker.handler_timers import prepare_loop

from .application import PAYLOAD_BYTES, application, step
from .attempts import Attempts
from .measuring import Measured, Moment, Plan, Window

STEPS = 100
INVOCATIONS = 50
"""In one window: a tenth of a second or more, so that the clock's grain does not show."""

UNITS = {"per_step": "µs", "store": "µs", "action": "µs", "codec": "µs"}
"""CPU of all of a step, and how much of it is the store in memory, the step's own function, and encoding its entry
(which the store in memory does as well)."""


async def engine(plan: Plan) -> Measured:
    """Run 50 invocations of 100 steps side by side, in this process."""
    undo = prepare_loop(asyncio.get_running_loop())
    try:
        windows: list[Window] = []
        for number in range(plan.windows + 1):
            moment = Moment({})
            values = {"per_step": await _attempts_us(), **await _parts_us()}
            window = moment.until_now(INVOCATIONS * STEPS, values)
            windows += [window] if number else []
        return Measured(UNITS, "step", windows, PAYLOAD_BYTES, 1)
    finally:
        undo()


async def _attempts_us() -> float:
    clock = SystemClock()
    store = MemoryStore(clock)
    handler = application.handlers["Bench", "steps"]
    with ThreadPoolExecutor(1) as threads:
        attempts = Attempts(store, clock=clock, threads=threads)
        began_s = time.process_time()
        claims = [await _admitted(store) for _ in range(INVOCATIONS)]
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(attempts.run(claim, handler)) for claim in claims]
        assert all(isinstance(end.result(), Completed) for end in ends), "an attempt ended otherwise"
        return (time.process_time() - began_s) / (INVOCATIONS * STEPS) * 1e6


async def _admitted(store: MemoryStore) -> Claim:
    admission = Admission(
        new_invocation_id("Bench", None, system_random()),
        "Bench",
        "steps",
        None,
        Input(0, "w", (), str(STEPS).encode()),
        token="a",
        worker="w",
    )
    admitted = await store.admit(admission, lease_ms=600_000)
    assert isinstance(admitted, Claimed), "nobody knows this id"
    first = Positioned(1, 1, admission.input)
    return Claim(admitted.lease, "Bench", "steps", None, "", 0, 0, [first])


async def _parts_us() -> dict[str, float]:
    store = MemoryStore(SystemClock())
    lease = (await _admitted(store)).lease
    result = Success(b'"' + b"x" * (PAYLOAD_BYTES - 2) + b'"')
    rows = [Run(index, "s", 1_700_000_000_000, 1, result) for index in range(INVOCATIONS * STEPS)]
    began_s = time.process_time()
    for index, row in enumerate(rows):
        await store.append(lease, [row], after=1 + index, seq=1 + index, progress=False)
    stored_s = time.process_time()
    for _ in rows:
        await step()
    acted_s = time.process_time()
    for row in rows:
        encode(row)
    coded_s = time.process_time()
    spent = {"store": stored_s - began_s, "action": acted_s - stored_s, "codec": coded_s - acted_s}
    return {name: seconds / len(rows) * 1e6 for name, seconds in spent.items()}
