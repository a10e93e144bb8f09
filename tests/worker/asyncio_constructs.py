"""What handlers do with asyncio over durable commands, a function for each construct, and what comes of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from perdure.schemas.errors import TerminalError
from perdure.worker.context import Context
from perdure.worker.options import RunOptions

SHORT = timedelta(milliseconds=15)
HOUR = timedelta(hours=1)
HOUR_S = 3_600.0


async def echo(value: str) -> str:
    """A step."""
    return value


def step(ctx: Context, name: str) -> asyncio.Future[str]:
    """Ask for a step that returns its own name."""
    return ctx.run_typed(name, echo, RunOptions(), name)


async def gather(ctx: Context) -> object:
    """`asyncio.gather` of futures, of coroutines, of gathers."""

    async def sub(name: str) -> str:
        return await step(ctx, f"{name} 1") + await step(ctx, f"{name} 2")

    return await asyncio.gather(step(ctx, "a"), sub("b"), asyncio.gather(sub("c"), step(ctx, "d")))


async def gather_with_failures(ctx: Context) -> object:
    """`return_exceptions` gives errors in their places."""

    async def fail() -> None:
        raise TerminalError("no", 418)

    first, second = await asyncio.gather(ctx.run("fail", fail), step(ctx, "a"), return_exceptions=True)
    assert isinstance(first, TerminalError)
    return [first.status_code, second]


async def wait_for_in_time(ctx: Context) -> object:
    """`asyncio.wait_for` of what comes in time."""
    return await asyncio.wait_for(step(ctx, "a"), HOUR_S), await asyncio.wait_for(step(ctx, "b"), None)


async def wait_for_too_late(ctx: Context) -> object:
    """`asyncio.wait_for` of what does not; the future can be awaited again."""
    slow = ctx.sleep(SHORT * 3)
    try:
        await asyncio.wait_for(slow, 0.005)
    except TimeoutError:
        await step(ctx, "after")
        await slow
        return "late"
    return "in time"


async def timeout_in_time(ctx: Context) -> object:
    """`asyncio.timeout` that is not used up."""
    async with asyncio.timeout(HOUR_S) as scope:
        results = [await step(ctx, "a"), await step(ctx, "b")]
        scope.reschedule(asyncio.get_running_loop().time() + HOUR_S)
        results.append(await step(ctx, "c"))
    return results


async def timeout_too_late(ctx: Context) -> object:
    """`asyncio.timeout` around a durable wait, nested; the inner one ends it."""
    never = ctx.sleep(HOUR * 9)
    results: list[object] = []
    async with asyncio.timeout(HOUR_S):
        try:
            async with asyncio.timeout(0.01):
                await step(ctx, "a")
                await never
        except TimeoutError:
            results.append("timed out")
        results.append(await step(ctx, "b"))
    return results


async def timeout_of_nothing(ctx: Context) -> object:
    """`asyncio.timeout(0)` and `asyncio.timeout(None)`."""
    async with asyncio.timeout(None):
        await step(ctx, "a")
    try:
        async with asyncio.timeout(0):
            await ctx.sleep(HOUR)
    except TimeoutError:
        return await step(ctx, "b")
    return "in time"


async def wait_first(ctx: Context) -> object:
    """`asyncio.wait` for the first, with a timeout that is not used up."""
    waiting: list[asyncio.Future[Any]] = [step(ctx, "a"), ctx.sleep(HOUR)]
    done, pending = await asyncio.wait(waiting, timeout=HOUR_S, return_when=asyncio.FIRST_COMPLETED)
    return [future.result() for future in done], len(pending)


async def wait_too_late(ctx: Context) -> object:
    """`asyncio.wait` whose timeout comes first, and one with none at all."""
    done, pending = await asyncio.wait([ctx.sleep(HOUR), ctx.sleep(HOUR)], timeout=0.01)
    counts = [len(done), len(pending)]
    steps, left = await asyncio.wait([step(ctx, "a")], timeout=0)
    await step(ctx, f"after {len(steps)} of one")
    return [*counts, len(steps) + len(left), await step(ctx, "b")]


async def as_completed(ctx: Context) -> object:
    """`asyncio.as_completed`, with a timeout that ends it."""
    names: list[object] = []
    try:
        waiting: list[asyncio.Future[Any]] = [step(ctx, "a"), step(ctx, "b"), ctx.sleep(HOUR)]
        for future in asyncio.as_completed(waiting, timeout=0.05):
            # Not all at once: the last one raises.
            names.append(await future)  # noqa: PERF401
    except TimeoutError:
        names.append("timed out")
    await step(ctx, f"after {names}")
    return sorted(str(name) for name in names)


async def group(ctx: Context) -> object:
    """`asyncio.TaskGroup` whose tasks ask for commands and start further tasks."""
    log: list[str] = []

    async def sub(tasks: asyncio.TaskGroup, name: str) -> None:
        log.append(await step(ctx, name))
        if len(name) < 2:
            tasks.create_task(sub(tasks, name + name))
        await asyncio.sleep(0.001)
        log.append(await step(ctx, f"{name} again"))

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(sub(tasks, name))
    await step(ctx, " ".join(log))
    return sorted(log)


async def group_that_fails(ctx: Context) -> object:
    """A task of a group fails: its siblings are cancelled where they wait, and the group raises."""
    ended: list[str] = []

    async def fail() -> None:
        await ctx.sleep(SHORT)
        raise ValueError("one of them")

    async def go_on() -> None:
        try:
            await ctx.sleep(HOUR)
        finally:
            ended.append("sibling")

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            tasks.create_task(go_on())
    except* ValueError as errors:
        ended.append(str(errors.exceptions[0]))
    return [*ended, await step(ctx, "after")]


async def shield(ctx: Context) -> object:
    """`asyncio.shield` inside of a timeout."""
    slow = ctx.sleep(SHORT * 2)
    try:
        await asyncio.wait_for(asyncio.shield(slow), 0.005)
    except TimeoutError:
        await slow
        return await step(ctx, "after")
    return "in time"


async def sleep(ctx: Context) -> object:
    """`asyncio.sleep`, also beside steps, of no time and of any."""
    await asyncio.sleep(0)
    await asyncio.sleep(-1)
    value = await asyncio.sleep(0.01, "rested")
    forever = asyncio.create_task(asyncio.sleep(math.inf))
    results = await asyncio.gather(asyncio.sleep(0.01, "slept"), step(ctx, "a"))
    forever.cancel()
    return [value, *results]


async def between_tasks(ctx: Context) -> object:
    """`Event`, `Queue`, `Lock`, `Semaphore`, `Condition` and `Barrier` between a handler's own tasks."""
    queue: asyncio.Queue[str] = asyncio.Queue(1)
    lock, event, slots, barrier = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(2), asyncio.Barrier(3)
    log: list[str] = []

    async def produce(name: str) -> None:
        async with slots:
            await queue.put(await step(ctx, name))
        async with lock:
            await step(ctx, f"{name} locked")
        event.set()
        await barrier.wait()

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(produce(name))
        for _ in range(3):
            log.append(await queue.get())
            await step(ctx, f"got {log[-1]}")
        await event.wait()
    await step(ctx, " ".join(log))
    return sorted(log)


async def left_behind(ctx: Context) -> object:
    """A task that is cancelled, and one that is left behind."""

    async def forever() -> None:
        while True:
            await ctx.sleep(SHORT)

    task = asyncio.create_task(forever())
    await step(ctx, "a")
    task.cancel()
    left = asyncio.create_task(forever())
    await asyncio.wait([task])
    return [task.cancelled(), await step(ctx, "b"), left.done()]


async def callbacks(ctx: Context) -> object:
    """`add_done_callback`, whose turn comes before that of who awaits later."""
    log: list[str] = []
    first, second = step(ctx, "a"), step(ctx, "b")
    second.add_done_callback(lambda future: log.append(f"{future.result()} called back {first.done()}"))
    first.add_done_callback(lambda future: log.append(f"{future.result()} called back"))
    await first
    log.append("a awaited")
    await second
    await step(ctx, " ".join(log))
    return len(log)


async def shared_future(ctx: Context) -> object:
    """One future that several tasks wait for; one of them gives up, and the others do not notice."""
    slow = ctx.sleep(SHORT * 3)

    async def impatient() -> str:
        try:
            await asyncio.wait_for(slow, 0.005)
        except TimeoutError:
            return "gave up"
        return "waited"

    async def patient() -> str:
        await slow
        return "waited"

    return await asyncio.gather(patient(), impatient(), patient())


CASES: dict[Callable[[Context], Awaitable[object]], object] = {
    gather: ["a", "b 1b 2", ["c 1c 2", "d"]],
    gather_with_failures: [418, "a"],
    wait_for_in_time: ["a", "b"],
    wait_for_too_late: "late",
    timeout_in_time: ["a", "b", "c"],
    timeout_too_late: ["timed out", "b"],
    timeout_of_nothing: "b",
    wait_first: [["a"], 1],
    wait_too_late: [0, 2, 1, "b"],
    as_completed: ["a", "b", "timed out"],
    group: sorted([*"abc", "aa", "bb", "cc", *(f"{name} again" for name in ("a", "b", "c", "aa", "bb", "cc"))]),
    group_that_fails: ["sibling", "one of them", "after"],
    shield: "after",
    sleep: ["rested", "slept", "a"],
    between_tasks: ["a", "b", "c"],
    left_behind: [True, "b", False],
    callbacks: 3,
    shared_future: ["waited", "gave up", "waited"],
}
