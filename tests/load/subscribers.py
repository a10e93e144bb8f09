"""Very many who wait for one outcome: in one process on one subscription, on clients of their own, in other processes.

Judged: each is told, and told the right thing; so is everyone of as many callers at once, each of his own outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

from perdure.worker.client import Client
from perdure.worker.clock import SystemClock
from tests.waiting import wait_until

from .arena import START_S, Arena, Place, arena
from .judging import Judged, Verdict
from .told import LISTEN_S, WORD, Told, told

PROCESSES = 4

WAITS_A_CLIENT = 10
"""Of those that have a client, and thus a subscription, of their own."""

TOLD_MS_MAX = 2_000
"""From the signal to the last who is told: one message on a channel, and looks where that was missed."""


async def subscribers(place: Place, records: int) -> Judged:
    """Have so many wait in this process, as many on clients of their own, and as many in other processes."""
    async with arena(place.settings(), place.directory) as ground, AsyncExitStack() as stack:
        await ground.start_ready()
        gate = await ground.client.send("Load/gate")
        await wait_until(ground.unfinished, timeout_s=START_S, description="the gate is there")
        clients = [
            await stack.enter_async_context(Client(ground.settings)) for _ in range(max(1, records // WAITS_A_CLIENT))
        ]
        count = PROCESSES if records >= 100 else 1
        each = max(1, records // count)
        processes = await asyncio.gather(
            *(stack.enter_async_context(_listener(ground, gate.invocation_id, each)) for _ in range(count))
        )
        async with asyncio.TaskGroup() as group:
            here = group.create_task(told([ground.client], gate.invocation_id, records))
            apart = group.create_task(told(clients, gate.invocation_id, WAITS_A_CLIENT))
            calls_s = await _calls(ground, records)
            opened_ms = SystemClock().now_ms()
            assert await ground.client.send_signal(gate.invocation_id, "open", WORD)
        elsewhere = [await _end_of(process) for process in processes]
        await ground.quiet(timeout_s=START_S)
        worker_mb = ground.resident_bytes() / 1e6
    late_ms = {
        "same_client_told_after_ms": here.result().at_ms - opened_ms,
        "own_clients_told_after_ms": apart.result().at_ms - opened_ms,
        "processes_told_after_ms": max(found.at_ms for found in elsewhere) - opened_ms,
    }
    verdicts = [
        Verdict("told on one client", here.result().right, "is", records),
        Verdict("told on clients of their own", apart.result().right, "is", len(clients) * WAITS_A_CLIENT),
        Verdict("told in other processes", sum(found.right for found in elsewhere), "is", each * count),
        Verdict("outcomes of their own there", sum(found.own for found in elsewhere), "is", each * count),
        Verdict("ms until the last was told", max(late_ms.values()), "at most", TOLD_MS_MAX, machine=True),
    ]
    figures = {
        "records": records,
        "clients": len(clients),
        "calls_at_once_s": calls_s,
        **late_ms,
        "worker_mb": worker_mb,
    }
    return Judged(verdicts, figures)


async def _calls(ground: Arena, records: int) -> float:
    """Have so many callers at once, and return how long it took until the last was answered."""
    began_s = time.monotonic()
    call = ground.client.call
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(call("Load/record", number, timeout=timedelta(seconds=LISTEN_S)))
            for number in range(records)
        ]
    assert [task.result() for task in tasks] == list(range(records))
    return time.monotonic() - began_s


@contextlib.asynccontextmanager
async def _listener(ground: Arena, invocation_id: str, waits: int) -> AsyncIterator[Process]:
    """Run a process that waits; it does so when the block begins."""
    environment = {**os.environ, **ground.settings.environment()}
    command = [sys.executable, "-m", "tests.load.listener", invocation_id, str(waits)]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment)
    try:
        assert process.stdout is not None, "started with a pipe"
        async with asyncio.timeout(START_S):
            assert await process.stdout.readline() == b"listening\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _end_of(process: Process) -> Told:
    async with asyncio.timeout(LISTEN_S):
        output, _ = await process.communicate()
    return Told(**json.loads(output))
