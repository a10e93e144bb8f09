"""Sleepers that all wake at one moment. Judged: all wake, none early; what they cost in memory while they sleep."""

from __future__ import annotations

from benchmarks.measuring import percentile
from perdure.worker.clock import SystemClock
from perdure.worker.topics import resume_topic
from tests.standing import records_ever
from tests.waiting import wait_until

from .arena import START_S, Place, arena
from .judging import Judged, Verdict
from .leftovers import leftovers

RETENTION_S = 2.0

LEAD_S = 6.0
"""Before they wake, with none: for a record to be admitted and its attempt to be suspended."""

INACTIVITY_S = 0.2
"""So soon an attempt that waits leaves memory; the default lets few of them sleep for some seconds."""

ASLEEP_PER_S = 400
"""So many fall asleep in a second, at the least, on a machine that others load, too."""

WAKE_PER_S = 100
"""So many wake in a second, at the least."""

SLEEPER_BYTES_MAX = 5_000
"""Of Redis for one of them: invocation, journal, places in `due` and in the index of its status."""

RESUMES_MAX = 1.2
"""Of each sleeper: more are produced where it takes long until the first is read, and what comes too late is work."""

GROWTH_MB_MAX = 64.0
"""Of the worker, which holds none of those that sleep."""


async def sleeping(place: Place, records: int) -> Judged:
    """Have so many sleep until one moment."""
    async with arena(
        place.settings(inactivity_timeout_s=INACTIVITY_S), place.directory, retention_s=RETENTION_S
    ) as ground:
        worker = await ground.start_ready()
        redis_before, worker_before = await ground.redis_bytes(), ground.resident_bytes()
        lead_s = LEAD_S + records / ASLEEP_PER_S
        wake_ms = SystemClock().now_ms() + round(lead_s * 1000)
        await ground.produce("Load/wake_at", ({"number": number, "at_ms": wake_ms} for number in range(records)))

        async def all_asleep() -> bool:
            worker_is_there = worker.alive
            return not worker_is_there or (await ground.counts())["suspended"] == records

        await wait_until(all_asleep, timeout_s=lead_s + START_S, description="all are asleep")
        asleep_s = lead_s - (wake_ms - SystemClock().now_ms()) / 1000
        redis_bytes = await ground.redis_bytes() - redis_before
        worker_mb = (ground.resident_bytes() - worker_before) / 1e6
        await wait_until(
            lambda: ground.ledger.count() >= records,
            timeout_s=lead_s + START_S + records / WAKE_PER_S,
            description="all have woken",
        )
        await ground.quiet(timeout_s=START_S)
        worker_after_mb = (ground.resident_bytes() - worker_before) / 1e6
        resumes = await records_ever(
            ground.settings.kafka_config(client_id="load"), resume_topic(ground.settings.namespace, "Load")
        )
        left = await leftovers(ground)
        lines = ground.ledger.read()
    late_ms = sorted(line.at_ms - wake_ms for line in lines)
    verdicts = [
        Verdict("sleepers that woke", len({line.number for line in lines}), "is", records),
        Verdict("woken twice", len(lines) - len({line.number for line in lines}), "is", 0),
        Verdict("woken early", sum(late < 0 for late in late_ms), "is", 0),
        Verdict("left in Redis after retention", left, "is", 0),
        Verdict("resume records a sleeper", resumes / records, "at most", RESUMES_MAX, machine=True),
        Verdict("bytes of Redis a sleeper", redis_bytes / records, "at most", SLEEPER_BYTES_MAX, machine=True),
        Verdict("MB of the worker while they sleep", worker_mb, "at most", GROWTH_MB_MAX, machine=True),
    ]
    figures = {
        "records": records,
        "asleep_after_s": asleep_s,
        "redis_mb": redis_bytes / 1e6,
        "redis_bytes_each": redis_bytes / records,
        "worker_mb": worker_mb,
        "worker_after_mb": worker_after_mb,
        "late_p50_ms": percentile(late_ms, 0.5),
        "late_p99_ms": percentile(late_ms, 0.99),
        "late_max_ms": late_ms[-1],
        "resume_records_each": resumes / records,
        "woken_per_s": records / max(0.001, late_ms[-1] / 1000),
    }
    return Judged(verdicts, figures)
