"""A backlog of small records that no worker has seen, and sleepers that fall due while it is worked off.

Judged: nothing is lost or run twice, memory of the worker does not grow with what is done, the last tenth is as fast as
the first ones, and who was asleep goes on within a second although Kafka is full of new work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.machine import cpu_seconds
from benchmarks.measuring import percentile
from tests.process.worker_process import WorkerProcess
from tests.waiting import wait_until

from .application import NAPS
from .arena import Arena, Place, arena
from .judging import Judged, Number, Verdict
from .ledger import Done, Ledger
from .leftovers import leftovers

RETENTION_S = 2.0
"""So that Redis holds some seconds of the backlog and not all of it."""

SLEEPERS = 100
NAP_MS = 1_000
"""Of the first of them; each naps a little longer than the one before, so that they spread."""

STALLED_S = 60.0
"""Without any progress for so long there will be none."""

GROWTH_MB_MAX = 64.0
"""Of the worker's memory from the first tenth on: buffers of both clients, and no more whatever the backlog is."""

RESUME_MS_MAX = 1_000
SLOWDOWN_MAX = 2.0
"""Between the median tenth and the last one."""


async def backlog(place: Place, records: int) -> Judged:
    """Work off so many records."""
    async with arena(place.settings(), place.directory, retention_s=RETENTION_S) as ground:
        await _asleep(ground, min(SLEEPERS, records))
        began_s = time.monotonic()
        await ground.produce("Load/record", range(records))
        produced_s = time.monotonic() - began_s
        worker = await ground.start_ready()
        cpu_s, ready_s = cpu_seconds([worker.pid])[0], time.monotonic()
        rows, began_ms = await _worked_off(ground, records, worker)
        share = (cpu_seconds([worker.pid])[0] - cpu_s) / (time.monotonic() - ready_s)
        (place.directory / "enough").touch()
        await ground.quiet(timeout_s=STALLED_S)
        lines, naps = ground.ledger.read(), Ledger(place.directory, NAPS).read()
        judged = judge(lines, rows, naps, records=records, began_ms=began_ms)
        left = Verdict("left in Redis after retention", await leftovers(ground), "is", 0)
    # A worker that is busy all the time would have a whole core, had it one: how much slower than that it all was.
    figures = {"records": records, "produced_per_s": records / produced_s, "worker_cores": share, **judged.figures}
    return Judged([*judged.verdicts, left], figures, rows)


async def _asleep(ground: Arena, count: int) -> None:
    """Have so many nap, and the worker that they began on leave: they fall due with nobody there."""
    worker = await ground.start_ready()
    for number in range(count):
        await ground.client.send("Load/keep_napping", _nap_ms(number))

    async def admitted() -> bool:
        return await ground.unfinished() == count

    await wait_until(admitted, timeout_s=STALLED_S, description="all sleepers are admitted")
    assert await worker.terminate(timeout_s=STALLED_S) == 0


def _nap_ms(number: int) -> int:
    return NAP_MS + 7 * number


async def _worked_off(ground: Arena, records: int, worker: WorkerProcess) -> tuple[list[dict[str, Number]], int]:
    """Look on until everything was done; a row for each tenth, and when the first record was done."""
    rows: list[dict[str, Number]] = []
    last, last_s = 0, time.monotonic()
    while len(rows) < 10:
        done = ground.ledger.count()
        if done > last:
            last, last_s = done, time.monotonic()
        assert worker.alive, worker.log()[-2_000:]
        assert time.monotonic() - last_s < STALLED_S, f"nothing was done for {STALLED_S} s, after {done} records"
        if done >= records * (len(rows) + 1) // 10:
            rows.append(await _row(ground, done, records))
            continue
        await asyncio.sleep(0.02)
    lines = ground.ledger.read()
    marks = [lines[0].at_ms, *(lines[records * tenth // 10 - 1].at_ms for tenth in range(1, 11))]
    for row, (before_ms, at_ms) in zip(rows, pairwise(marks), strict=True):
        row["per_s"] = records / 10 / max(0.001, (at_ms - before_ms) / 1000)
    return rows, lines[0].at_ms


async def _row(ground: Arena, done: int, records: int) -> dict[str, Number]:
    return {
        "done_%": round(100 * done / records),
        "worker_mb": ground.resident_bytes() / 1e6,
        "redis_mb": await ground.redis_bytes() / 1e6,
        "redis_keys": await ground.redis_keys(),
        "tasks": ground.tasks(),
    }


def judge(
    lines: Sequence[Done],
    rows: Sequence[dict[str, Number]],
    naps: Sequence[Done],
    *,
    records: int,
    began_ms: int,
) -> Judged:
    """Judge a run by what its ledger and its journals say.

    Args:
        lines: What was done, in order; at least one.
        rows: A sample for each tenth.
        naps: By how much each was late, and when it was due.
        records: How many there were to do.
        began_ms: When the first one was done.
    """
    distinct = {line.number for line in lines}
    rates = sorted(row["per_s"] for row in rows)
    ended_ms = lines[-1].at_ms
    # Those that fell due before there was a worker say how long it took to start one.
    late = [nap.number for nap in naps if began_ms <= nap.at_ms <= ended_ms]
    late_ms = percentile(late, 0.99) if late else 0.0
    growth = max(row["worker_mb"] for row in rows) - rows[0]["worker_mb"]
    verdicts = [
        Verdict("records done", len(distinct), "is", records),
        Verdict("records done twice", len(lines) - len(distinct), "is", 0),
        Verdict("naps that ended early", sum(nap.number < 0 for nap in naps), "is", 0),
        Verdict("MB by which the worker grew after the first tenth", growth, "at most", GROWTH_MB_MAX, machine=True),
        Verdict("ms, p99 of a resume", late_ms, "at most", RESUME_MS_MAX, machine=True),
        Verdict(
            "records/s in the last tenth",
            rows[-1]["per_s"],
            "at least",
            rates[len(rates) // 2] / SLOWDOWN_MAX,
            machine=True,
        ),
    ]
    figures = {
        "seconds": (ended_ms - began_ms) / 1000,
        "per_s": len(lines) / max(0.001, (ended_ms - began_ms) / 1000),
        "first_tenth_per_s": rows[0]["per_s"],
        "last_tenth_per_s": rows[-1]["per_s"],
        "resumes": len(late),
        "resume_p50_ms": percentile(late, 0.5) if late else 0.0,
        "resume_p99_ms": late_ms,
        "resume_max_ms": max(late, default=0),
        "worker_mb_max": max(row["worker_mb"] for row in rows),
        "redis_mb_max": max(row["redis_mb"] for row in rows),
    }
    return Judged(verdicts, figures)
