"""One invocation of very many steps, whose worker is killed in the middle.

Judged: its result is right, each step ran once but for the one that the crash cut off, and the replay is linear.
"""

from __future__ import annotations

import time
from datetime import timedelta

from perdure.journal.keys import Keys
from tests.waiting import wait_until

from .application import Walked
from .arena import SLOTS, START_S, Place, arena
from .judging import Judged, Verdict

STEPS_PER_S = 50
"""So many are done in a second, at the least, on a machine that others load, too."""

LEASE_S = 2.0
"""What a killed worker leaves is taken over so much later."""

REPLAY_US_MAX = 200.0
"""For one step that is journaled: ten times what it costs on a quiet machine."""


async def long_journal(place: Place, records: int) -> Judged:
    """Walk so many steps on two workers, one after the other."""
    async with arena(place.settings(lease_s=LEASE_S), place.directory) as ground:
        first = await ground.start_ready()
        limit_s = START_S + records / STEPS_PER_S
        began_s = time.monotonic()
        handle = await ground.client.send("Load/walk", records)
        await wait_until(lambda: ground.ledger.count() >= records // 2, timeout_s=limit_s, description="half is done")
        half_s = time.monotonic() - began_s
        await first.kill()
        killed, killed_s = ground.ledger.count(), time.monotonic()
        await ground.start_ready()
        await wait_until(lambda: ground.ledger.count() > killed, timeout_s=limit_s, description="it goes on")
        resumed_s = time.monotonic() - killed_s
        found = await handle.result(timeout=timedelta(seconds=limit_s))
        seconds, worker_mb = time.monotonic() - began_s, ground.resident_bytes() / 1e6
        keys = Keys(ground.settings.namespace, slots=SLOTS)
        journal_bytes = int(await ground.redis.memory_usage(keys.of(handle.invocation_id).journal) or 0)
        lines = ground.ledger.read()
    walked = Walked(**found)
    replay_us = walked.replayed_s * 1e6 / killed
    repeated = len(lines) - len({line.number for line in lines})
    verdicts = [
        Verdict("steps", len({line.number for line in lines}), "is", records),
        Verdict("sum of their results", walked.total, "is", records * (records - 1) // 2),
        Verdict("attempts", walked.attempt, "at least", 2),
        # A step and its entry are two things: each end of an attempt may come between them, once.
        Verdict("steps that ran again", repeated, "at most", walked.attempt - 1),
        Verdict("µs of replay for a step", replay_us, "at most", REPLAY_US_MAX, machine=True),
    ]
    figures = {
        "steps": records,
        "killed_after_steps": killed,
        "attempts": walked.attempt,
        "steps_that_ran_again": repeated,
        "first_half_steps_per_s": killed / half_s,
        "seconds": seconds,
        "from_kill_to_next_step_s": resumed_s,
        "replay_ms": walked.replayed_s * 1e3,
        "replay_us_a_step": replay_us,
        "journal_bytes_a_step": journal_bytes / records,
        "worker_mb": worker_mb,
    }
    return Judged(verdicts, figures)
