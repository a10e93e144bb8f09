"""Eight workers, of whom some leave and others come every few seconds, while records flow.

Judged: every record has one outcome, no attempt is counted as failed, no step runs twice, and every worker that was
asked to leave left in order.
"""

from __future__ import annotations

import asyncio
import random
import time

from .arena import START_S, Arena, Place, arena
from .judging import Judged, Verdict

WORKERS = 8
WORKERS_SMALL = 4
"""Of a run of some hundred records, which is there to see that it works."""

SMALL = 1_000
WORKERS_MIN = 2
"""What is left of them at the least. The embedded broker lets nobody join a group that all members left at once."""

RECORDS_PER_S = 150
"""About half of what such a machine does beside eight interpreters that start and stop."""

BEGUN = "begins"
"""A worker's first line: from there on it minds SIGTERM."""

CHURN_S = (1.0, 4.0)
"""Between two changes."""

STOP_S = 45.0
"""For a worker to leave: its grace period and the end of its connections, on a machine that others load, too."""

DONE_PER_S = 20
"""So many are done in a second, at the least."""

SEED = 20_261_122


async def scaling(place: Place, records: int) -> Judged:
    """Let so many records flow."""
    chance = random.Random(SEED)
    async with arena(place.settings(several=True), place.directory) as ground:
        size = WORKERS if records > SMALL else WORKERS_SMALL
        await asyncio.gather(*(ground.start() for _ in range(size)))
        await asyncio.gather(*(worker.ready(timeout_s=START_S) for worker in ground.workers))
        began_s = time.monotonic()
        codes: list[int] = []
        async with asyncio.TaskGroup() as group:
            churn = group.create_task(_churn(ground, chance, size, codes))
            await _flow(ground, records)
            flowed_s = time.monotonic() - began_s
            churn.cancel()
        await ground.quiet(timeout_s=2 * START_S + records / DONE_PER_S)
        seconds = time.monotonic() - began_s
        counts = await ground.counts()
        found = await ground.store.list_invocations("completed", invocations_max=records + 1)
        attempts = sum(int(summary.fields["epoch"]) for summary in found)
        failures = sum(int(summary.fields.get("failures") or 0) for summary in found)
        lines = ground.ledger.read()
    verdicts = [
        Verdict("outcomes", counts["completed"], "is", records),
        Verdict("steps", len({line.number for line in lines}), "is", 2 * records),
        Verdict("steps that ran again", len(lines) - len({line.number for line in lines}), "is", 0),
        Verdict("failed attempts", failures, "is", 0),
        Verdict("workers that did not leave in order", sum(code != 0 for code in codes), "is", 0),
        Verdict("workers that left", len(codes), "at least", 1),
    ]
    figures = {
        "records": records,
        "workers_started": len(ground.workers),
        "workers_stopped": len(codes),
        "attempts": attempts,
        "flowed_s": flowed_s,
        "seconds": seconds,
        "per_s": records / seconds,
    }
    return Judged(verdicts, figures)


async def _flow(ground: Arena, records: int) -> None:
    """Produce the records evenly, second by second."""
    for first in range(0, records, RECORDS_PER_S):
        began_s = time.monotonic()
        await ground.produce("Load/two_steps", range(first, min(records, first + RECORDS_PER_S)))
        await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began_s)))


async def _churn(ground: Arena, chance: random.Random, size: int, codes: list[int]) -> None:
    """Have workers leave and come until it is enough; what has begun is finished."""
    while True:
        alive = sum(worker.alive for worker in ground.workers)
        leaving = alive == size or chance.random() < 0.5
        task = asyncio.create_task(_leave(ground, chance, codes) if leaving else _come(ground, size - alive))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # A worker that is half stopped or half started would be lost to the list.
            await task
            raise
        await asyncio.sleep(chance.uniform(*CHURN_S))


async def _leave(ground: Arena, chance: random.Random, codes: list[int]) -> None:
    # One that has not come so far has nothing that it could leave in order.
    alive = [worker for worker in ground.workers if worker.alive and worker.said(BEGUN)]
    count = min(chance.randint(1, 3), len(alive) - WORKERS_MIN)
    leaving = chance.sample(alive, max(0, count))
    codes += await asyncio.gather(*(worker.terminate(timeout_s=STOP_S) for worker in leaving))


async def _come(ground: Arena, count: int) -> None:
    for _ in range(count):
        # Not waited for: it joins while others leave.
        await ground.start()
