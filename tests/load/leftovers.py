"""What a namespace still holds once everything has ended and was kept for as long as it had to be."""

from __future__ import annotations

from perdure.journal.keys import Keys
from tests.waiting import wait_until

from .arena import SLOTS, Arena

GONE_S = 120.0
"""For retention to end and for sweeps to notice; retention itself is some seconds where this is asked."""


async def leftovers(arena: Arena) -> int:
    """Wait until nothing of any invocation is left, and return how much is, given up after GONE_S.

    Counted are invocations and journals, members of `due` and of the status indexes: what a leak would consist of.
    """
    try:
        await wait_until(lambda: _nothing(arena), timeout_s=GONE_S, description="nothing is left")
    except AssertionError:
        return await _left(arena)
    return 0


async def _nothing(arena: Arena) -> bool:
    return await _left(arena) == 0


async def _left(arena: Arena) -> int:
    keys = Keys(arena.settings.namespace, slots=SLOTS)
    counts = await arena.counts()
    due = sum([await arena.redis.zcard(keys.due(slot)) for slot in range(SLOTS)])
    found = 0
    for kind in ("invocation", "journal", "queue", "object"):
        pattern = f"{arena.settings.namespace}:{{*}}:{kind}:*"
        found += sum([1 async for _ in arena.redis.scan_iter(match=pattern, count=5_000)])
    return found + due + counts.total()
