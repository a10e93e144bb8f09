"""One object and very many who wait for it: as many as its queue holds, and more, which wait in Kafka.

Judged: all have their turn, in the order of their records, and the queue is never longer than its bound.
"""

from __future__ import annotations

import time

from perdure.journal.keys import Keys
from perdure.schemas.limits import QUEUE_MAX
from tests.waiting import wait_until

from .arena import SLOTS, START_S, Place, arena
from .judging import Judged, Verdict

PASSED_PER_S = 20
"""So many have their turn in a second, at the least, on a machine that others load, too."""

KEY = "the one"


async def waiters(place: Place, records: int) -> Judged:
    """Have so many wait for one object while it is held, then let it go."""
    async with arena(place.settings(), place.directory) as ground:
        await ground.start_ready()
        holder = await ground.client.send("Line/hold", key=KEY)
        await wait_until(ground.unfinished, timeout_s=START_S, description="the object is held")
        redis_before, worker_before = await ground.redis_bytes(), ground.resident_bytes()
        began_s = time.monotonic()
        await ground.produce("Line/pass_through", range(records), key=KEY)
        queue = Keys(ground.settings.namespace, slots=SLOTS).object(f"Line/{KEY}", "queue")

        async def waiting() -> bool:
            return int(await ground.redis.llen(queue)) >= min(records, QUEUE_MAX)

        await wait_until(waiting, timeout_s=START_S + records / PASSED_PER_S, description="the queue is full")
        queued_s, redis_bytes = time.monotonic() - began_s, await ground.redis_bytes() - redis_before
        worker_mb, longest = (ground.resident_bytes() - worker_before) / 1e6, int(await ground.redis.llen(queue))
        began_s = time.monotonic()
        assert await ground.client.send_signal(holder.invocation_id, "open")

        async def passed() -> bool:
            nonlocal longest
            longest = max(longest, int(await ground.redis.llen(queue)))
            return ground.ledger.count() >= records

        await wait_until(passed, timeout_s=START_S + records / PASSED_PER_S, description="all have had their turn")
        seconds = time.monotonic() - began_s
        await ground.quiet(timeout_s=START_S)
        total = await ground.client.read_value("Line", KEY, "passed")
        order = [line.number for line in ground.ledger.read()]
    verdicts = [
        Verdict("turns", len(order), "is", records),
        Verdict("turns out of order", sum(a != b for a, b in zip(order, range(records), strict=False)), "is", 0),
        Verdict("counted by the object", int(total), "is", records),
        Verdict("longest queue", longest, "at most", QUEUE_MAX),
    ]
    figures = {
        "records": records,
        "longest_queue": longest,
        "queued_per_s": min(records, QUEUE_MAX) / queued_s,
        "turns_per_s": records / seconds,
        "redis_bytes_each": redis_bytes / min(records, QUEUE_MAX),
        "worker_mb": worker_mb,
    }
    return Judged(verdicts, figures)
