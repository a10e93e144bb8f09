"""A mixed load for a long time: does anything grow that should not?

Sampled all along are memory, descriptors and tasks of the worker, keys and memory of Redis, and Kafka's lag. What is
judged is the slope of a line through the samples after the warm-up, as growth over the time that was judged. Retention
is short, so that Redis is as full at the beginning as at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta

from perdure.schemas.errors import InvocationNotFoundError
from perdure.worker.client import Client

from .arena import START_S, Arena, Place, arena
from .judging import Judged, Number, Verdict, per_second
from .leftovers import leftovers

RETENTION_S = 2.0

SAMPLE_S = 10.0
"""Between two samples of a run of a few minutes or more; short runs have thirty samples."""

WARM_UP = 1 / 3
"""Share of the run that is not judged: interpreters, allocators and connection pools find their size."""

PAUSE_S = 0.02
"""Of each caller between two calls: a load that leaves the machine half idle, so that only leaks grow."""

CALL_TIMEOUT = timedelta(seconds=60)

INACTIVITY_S = 0.5

NAP_S = 2.0
"""Longer than attempts wait in memory: such an invocation is suspended and resumed."""

KEYS = 64

GROWTH_MAX: Mapping[str, tuple[float, float]] = {
    "worker_mb": (8.0, 0.08),
    "descriptors": (3.0, 0.05),
    "tasks": (10.0, 0.10),
    "redis_mb": (3.0, 0.10),
    "redis_keys_s": (0.5, 0.10),
}
"""By how much each may grow in the time that is judged: so much, and this share of its mean, for what is mere noise."""

LAG_MAX = 2_000
"""Records; offsets move behind the durable point, some tenths of a second after admission."""


async def long_run(place: Place, seconds: int) -> Judged:
    """Load for so long."""
    async with arena(
        place.settings(inactivity_timeout_s=INACTIVITY_S), place.directory, retention_s=RETENTION_S
    ) as ground:
        worker = await ground.start_ready()
        done, enough = itertools.count(), asyncio.Event()
        rows: list[dict[str, Number]] = []
        interval_s, began_s = min(SAMPLE_S, seconds / 30), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for call in _calls(ground.client):
                group.create_task(_calling(call, done, enough))
            while time.monotonic() - began_s < seconds:
                await asyncio.sleep(interval_s)
                assert worker.alive, worker.log()[-2_000:]
                rows.append(await _sample(ground, time.monotonic() - began_s, done))
            # Nobody is cancelled: what was sent is answered, and what waits for a signal gets one.
            enough.set()
        await ground.quiet(timeout_s=2 * START_S)
        left = await leftovers(ground)
        # aiokafka's own: a broker that has just started says that it has no coordinator yet.
        errors = ground.said(" ERROR   perdure")
    judged = [row for row in of_calls(rows) if row["s"] >= seconds * WARM_UP]
    verdicts = [
        *growth_of(judged),
        Verdict("records behind, at the most", max(row["lag"] for row in judged), "at most", LAG_MAX, machine=True),
        Verdict("errors in the worker's log", errors, "is", 0),
        Verdict("left in Redis after retention", left, "is", 0),
    ]
    figures = {"seconds": seconds, "calls": rows[-1]["calls"], "calls_per_s": rows[-1]["calls"] / rows[-1]["s"]}
    return Judged(verdicts, figures, rows)


def of_calls(rows: Sequence[Mapping[str, Number]]) -> list[Mapping[str, Number]]:
    """The samples but the first, with the keys of Redis as seconds of the calls that came just before.

    Retention keeps more of them while more calls come, which on a machine with other load differs a lot.
    """
    told: list[Mapping[str, Number]] = []
    for before, row in itertools.pairwise(rows):
        rate = max(1, row["calls"] - before["calls"]) / (row["s"] - before["s"])
        told.append({**row, "redis_keys_s": row["redis_keys"] / rate})
    return told


def growth_of(rows: Sequence[Mapping[str, Number]]) -> Iterator[Verdict]:
    """Judge how much each thing grew from the first of these samples to the last, by the line through all of them."""
    lasted_s = rows[-1]["s"] - rows[0]["s"]
    for name, (least, share) in GROWTH_MAX.items():
        mean = sum(row[name] for row in rows) / len(rows)
        growth = per_second([(row["s"], row[name]) for row in rows]) * lasted_s
        what = f"{name}, growth in {lasted_s:.0f} s from about {mean:.1f}"
        yield Verdict(what, growth, "at most", least + share * mean, machine=True)


async def _sample(ground: Arena, at_s: float, done: itertools.count[int]) -> dict[str, Number]:
    return {
        "s": round(at_s, 1),
        "worker_mb": ground.resident_bytes() / 1e6,
        "descriptors": ground.descriptors(),
        "tasks": ground.tasks(),
        "redis_mb": await ground.redis_bytes() / 1e6,
        "redis_keys": await ground.redis_keys(),
        "lag": await ground.lag(),
        "calls": next(done),
    }


def _calls(client: Client) -> list[Callable[[], Awaitable[object]]]:
    """What each caller calls, again and again; a wrong answer ends the run."""
    keys = itertools.cycle([f"key-{number}" for number in range(KEYS)])

    async def answered(target: str, argument: object, expected: object = None) -> None:
        key = next(keys) if target.startswith("BenchCounter") else None
        answer = await client.call(target, argument, key=key, timeout=CALL_TIMEOUT)
        assert expected is None or answer == expected, f"{target} answered {answer!r} to {argument!r}"

    async def gate() -> None:
        handle = await client.send("Load/gate")
        while not await _signalled(client, handle.invocation_id):  # noqa: ASYNC110 - nobody tells of admissions
            await asyncio.sleep(PAUSE_S)
        assert await handle.result(timeout=CALL_TIMEOUT) == "word"

    return [
        *[lambda: answered("Load/record", 7, 7)] * 4,
        *[lambda: answered("Bench/steps", 20, 20)] * 2,
        *[lambda: answered("BenchCounter/add", 1)] * 4,
        lambda: answered("Bench/fan_out", 5, 10),
        *[lambda: answered("Bench/nap", NAP_S)] * 10,
        gate,
    ]


async def _signalled(client: Client, invocation_id: str) -> bool:
    """Whether it is admitted, and was told its word now."""
    try:
        return await client.send_signal(invocation_id, "open", "word")
    except InvocationNotFoundError:
        return False


async def _calling(call: Callable[[], Awaitable[object]], done: itertools.count[int], enough: asyncio.Event) -> None:
    while not enough.is_set():
        await call()
        next(done)
        await asyncio.sleep(PAUSE_S)
