"""Replay: how long an attempt needs from its claim to its first new step, for each step that the journal holds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission, Claim, Claimed
from perdure.schemas.entries import AttemptStarted, Entry, Input, Run, Success
from perdure.schemas.ids import InvocationId, new_invocation_id
from perdure.schemas.limits import ENTRIES_PER_APPEND_MAX
from perdure.worker.clock import SystemClock, system_random

from .application import PAYLOAD_BYTES, application
from .attempts import Attempts
from .deployment import CALL_TIMEOUT, Deployment
from .measuring import Measured, Moment, Plan, Window

SIZES = (1_000, 10_000)
"""Steps in the journal; a linear replay costs the same for each of them in both."""

UNITS = {
    "10000": "ms/step",
    "1000": "ms/step",
    "10000_handler": "ms/step",
    "1000_handler": "ms/step",
    "10000_engine": "ms/step",
    "1000_engine": "ms/step",
}
"""Of the values: from the claim to the new step's start, read from the journal (whole milliseconds); inside the
handler; and without Redis, from a claim in memory."""


async def replay(deployment: Deployment, plan: Plan) -> Measured:
    """A handler that fails after n steps, and the attempt after that; each window is one of each size."""
    settings = deployment.settings
    namespace = Keys(settings.namespace, slots=settings.slots)
    windows: list[Window] = []
    async with connected_store(settings.redis_config, namespace, name="bench-reader") as store:
        for number in range(plan.windows + 1):
            moment, values = Moment(deployment.pids()), {}
            for size in SIZES:
                handle = await deployment.client.send("Bench/replay", size)
                handler_s = await handle.result(timeout=CALL_TIMEOUT)
                entries = await store.read_journal(handle.invocation_id)
                values[f"{size}"] = _claim_to_new_step_ms([row.entry for row in entries]) / size
                values[f"{size}_handler"] = handler_s * 1e3 / size
                values[f"{size}_engine"] = await _engine_ms(size) / size
            window = moment.until_now(sum(SIZES), values)
            windows += [window] if number else []
    return Measured(UNITS, "step, executed and replayed", windows, PAYLOAD_BYTES, 1)


def _claim_to_new_step_ms(entries: list[Entry]) -> int:
    claimed = next(entry.at_ms for entry in entries if isinstance(entry, AttemptStarted))
    new_step = next(entry for entry in entries if isinstance(entry, Run) and entry.name == "first new step")
    return new_step.at_ms - new_step.duration_ms - claimed


async def _engine_ms(size: int) -> float:
    """The same attempt on the store in memory, from its beginning to its end."""
    clock = SystemClock()
    store = MemoryStore(clock)
    claim = await _claim(store, size)
    with ThreadPoolExecutor(1) as threads:
        handler = application.handlers["Bench", "replay"]
        run = Attempts(store, clock=clock, threads=threads).run(claim, handler)
        began_s = time.perf_counter()
        await run
        return (time.perf_counter() - began_s) * 1e3


async def _claim(store: MemoryStore, size: int) -> Claim:
    """A claim of a journal with that many steps, written by an attempt that was let go."""
    invocation_id: InvocationId = new_invocation_id("Bench", None, system_random())
    admission = Admission(
        invocation_id, "Bench", "replay", None, Input(0, "w", (), str(size).encode()), token="a", worker="w"
    )
    admitted = await store.admit(admission, lease_ms=60_000)
    assert isinstance(admitted, Claimed), "nobody knows this id"
    result = b'"' + b"x" * (PAYLOAD_BYTES - 2) + b'"'
    written, seq = 0, 0
    while written < size:
        upto = min(size, written + ENTRIES_PER_APPEND_MAX)
        rows = [Run(index, "s", 0, 0, Success(result)) for index in range(written, upto)]
        seq += 1
        await store.append(admitted.lease, rows, after=1 + written, seq=seq, progress=False)
        written = upto
    await store.release(admitted.lease, [], after=1 + written, seq=seq + 1)
    claim = await store.claim(invocation_id, 1, token="b", worker="w", lease_ms=60_000, at_ms=0)
    assert claim is not None, "it was released"
    return claim
