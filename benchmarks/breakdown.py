"""Where the time of `latency` goes: the same load on a worker whose parts say when they are passed."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from perdure.worker.broker import Outgoing
from perdure.worker.sender import Sender

from .deployment import CALL_TIMEOUT, Deployment
from .load import ClosedLoop
from .measuring import Measured, Plan, percentile, timed_windows

TRACED_WORKER = ("-m", "benchmarks.traced_worker")

LEGS = ("call_to_fetched", "fetched_to_admitted", "admitted_to_ran", "ran_to_completed", "completed_to_answered")
"""Produce and the worker's fetch; the admission's round trip; the attempt; the completion's round trip; the message to
the client. Together they are the whole; `call_to_acknowledged` overlaps with the first one."""

PASSED = ("fetched", "admitted", "ran", "completed")

Moments = Mapping[str, Sequence[float]]


class Call(NamedTuple):
    """When one call began, was acknowledged by Kafka, and was answered, in seconds."""

    began_s: float
    acknowledged_s: float
    answered_s: float


async def breakdown(deployment: Deployment, plan: Plan) -> Measured:
    """One invocation at a time that does nothing; the median of each leg."""
    calls: list[Call] = []
    starts: list[int] = []

    async def call() -> None:
        began_s = time.perf_counter()
        await deployment.client.call("Bench/noop", timeout=CALL_TIMEOUT)
        calls.append(Call(began_s, acknowledged[-1], time.perf_counter()))

    async def count() -> float:
        starts.append(len(calls))
        return len(calls)

    async with _acknowledgements() as acknowledged, ClosedLoop(call, 1).running():
        windows = await timed_windows(plan, deployment.pids(), count=count, values=lambda _done, _seconds: {})
    await asyncio.to_thread(deployment.worker.stop)
    moments = _read(deployment.worker.log_path.read_text(encoding="utf-8").splitlines()[-1])
    slices = [calls[begin:end] for begin, end in itertools.pairwise(starts)]
    windows = [replace(w, values=_medians_ms(part, moments)) for w, part in zip(windows, slices, strict=True)]
    units = dict.fromkeys(("whole", "call_to_acknowledged", *LEGS, "call_to_fetched_p90"), "ms")
    return Measured(units, "invocation", windows, 4, 1)


@contextlib.asynccontextmanager
async def _acknowledgements() -> AsyncIterator[list[float]]:
    """Collect when Kafka acknowledged this process's records, in seconds."""
    at_s: list[float] = []
    original = Sender.send

    async def send(sender: Sender, outgoing: Outgoing) -> None:
        await original(sender, outgoing)
        at_s.append(time.perf_counter())

    Sender.send = send  # type: ignore[method-assign, assignment]
    try:
        yield at_s
    finally:
        Sender.send = original  # type: ignore[method-assign]


def _read(line: str) -> Moments:
    rows: list[Any] = json.loads(line)
    return {name: [at_s for what, at_s in rows if what == name] for name in PASSED}


def _medians_ms(calls: Sequence[Call], moments: Moments) -> dict[str, float]:
    legs: dict[str, list[float]] = {name: [] for name in ("whole", "call_to_acknowledged", *LEGS)}
    for call in calls:
        # One call at a time: the first moment of each kind after the last one is this call's.
        passed = [call.began_s]
        for name in PASSED:
            index = bisect.bisect_left(moments[name], passed[-1])
            passed.append(moments[name][index])
        passed.append(call.answered_s)
        for name, begin, end in zip(LEGS, passed, passed[1:], strict=False):
            legs[name].append((end - begin) * 1e3)
        legs["whole"].append((call.answered_s - call.began_s) * 1e3)
        legs["call_to_acknowledged"].append((call.acknowledged_s - call.began_s) * 1e3)
    medians = {name: percentile(values, 0.5) for name, values in legs.items()}
    return {**medians, "call_to_fetched_p90": percentile(legs["call_to_fetched"], 0.9)}
