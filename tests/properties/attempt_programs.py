"""Random handlers, and a worker that dies at random calls of its store: what `test_attempt.py` plays.

A program is a tree of steps, timers, gathers, races and tasks. While it runs, it writes down everything it sees, in
the order in which it sees it: a later attempt must see the same again before it sees anything new.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from contextvars import Context as Variables
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from hypothesis import strategies as st

from perdure.journal.store import Claim
from perdure.schemas.entries import Run
from perdure.schemas.errors import TerminalError
from perdure.worker.conclusion import run_attempt
from perdure.worker.context import Context
from perdure.worker.departures import AttemptEnd
from perdure.worker.options import RunOptions
from perdure.worker.scope import current_step
from tests.worker.attempt_stage import Stage, Story, handler_from

QUICK: RunOptions[Any] = RunOptions(initial_retry_interval=timedelta(milliseconds=1))
ATTEMPTS_MAX = 300


@dataclass(frozen=True)
class Step:
    """A step: so many turns of the loop long, failing so often first, with a policy or without, maybe for good."""

    turns: int
    failures: int
    has_policy: bool
    terminal: bool
    in_thread: bool


@dataclass(frozen=True)
class Nap:
    """A timer of so many milliseconds."""

    duration_ms: int


@dataclass(frozen=True)
class Rest:
    """`asyncio.sleep` of so many milliseconds."""

    duration_ms: int


@dataclass(frozen=True)
class Bounded:
    """A sub-program with a timeout of asyncio's around it."""

    within_ms: int
    program: Program


@dataclass(frozen=True)
class Together:
    """Sub-programs at once: awaited all, or raced with the rest awaited or left behind."""

    how: Literal["gather", "group", "race", "race and leave"]
    programs: tuple[Program, ...]


@dataclass(frozen=True)
class Commands:
    """Steps and timers asked for at once and awaited as futures, without tasks."""

    how: Literal["gather", "race", "in order", "reversed"]
    nodes: tuple[Step | Nap, ...]


@dataclass(frozen=True)
class Forgotten:
    """A step that nobody awaits."""

    step: Step


Node = Step | Nap | Rest | Bounded | Together | Commands | Forgotten
Program = tuple[Node, ...]

steps = st.builds(
    Step,
    turns=st.integers(0, 4),
    failures=st.sampled_from([0, 0, 0, 1, 2]),
    has_policy=st.booleans(),
    terminal=st.sampled_from([False, False, False, True]),
    in_thread=st.sampled_from([False, False, True]),
)
naps = st.builds(Nap, st.sampled_from([0, 1, 2, 3_600_000]))
rests = st.builds(Rest, st.sampled_from([0, 1, 3_600_000]))
commands = st.builds(
    Commands,
    st.sampled_from(["gather", "race", "in order", "reversed"]),
    st.lists(st.one_of(steps, naps), min_size=1, max_size=4).map(tuple),
)
leaves = st.lists(st.one_of(steps, steps, naps, rests, commands, st.builds(Forgotten, steps)), max_size=3).map(tuple)


def _together(programs: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    node = st.builds(
        Together,
        st.sampled_from(["gather", "group", "race", "race and leave"]),
        st.lists(programs, min_size=1, max_size=3).map(tuple),
    )
    bounded = st.builds(Bounded, st.sampled_from([0, 1, 2, 3_600_000]), programs)
    return st.lists(st.one_of(steps, naps, commands, node, bounded), min_size=1, max_size=4).map(tuple)


programs: st.SearchStrategy[Program] = st.recursive(leaves, _together, max_leaves=8)

crashes = st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=4)
"""After how many calls of the store the worker dies, again and again, and whether the last call still arrives."""


@dataclass
class Witness:
    """What was seen and done, over all attempts."""

    stage: Stage
    logs: list[list[str]] = field(default_factory=list)
    executions: Counter[str] = field(default_factory=Counter)

    def see(self, what: str) -> None:
        """The handler saw this."""
        self.logs[-1].append(what)

    def execute(self, path: str) -> int:
        """A step is executed; returns for which time. A recorded one must not be."""
        step = current_step()
        assert step is not None
        # Not through the store's own call, which belongs to the loop: this may be a thread.
        journal = self.stage.memory._slots[0].tail(step.invocation_id, 0)
        recorded = [row.entry.command_index for row in journal if isinstance(row.entry, Run)]
        assert step.command_index not in recorded, f"step {path} is executed although it is recorded"
        self.executions[path] += 1
        return self.executions[path]

    def check_logs(self) -> None:
        """Each attempt saw what the ones before it saw, and then maybe more."""
        longest: list[str] = []
        for log in self.logs:
            shorter = min(len(log), len(longest))
            assert log[:shorter] == longest[:shorter], f"{log} after {longest}"
            longest = max(log, longest, key=len)


def command(ctx: Context, node: Step | Nap, path: str, witness: Witness) -> asyncio.Future[Any]:
    """Ask for a step or a timer."""
    if isinstance(node, Nap):
        return ctx.sleep(timedelta(milliseconds=node.duration_ms))

    def end(execution: int) -> str:
        if execution <= node.failures:
            raise ValueError(f"failure {execution} of {path}")
        if node.terminal:
            raise TerminalError(f"{path}, time {execution}, for good")
        # Each execution has another result, so that one which was seen and then lost would show.
        return f"{path}, time {execution}"

    async def action() -> str:
        execution = witness.execute(path)
        for _ in range(node.turns):
            await asyncio.sleep(0)
        return end(execution)

    def in_thread() -> str:
        return end(witness.execute(path))

    options: RunOptions[Any] = QUICK if node.has_policy else RunOptions()
    return ctx.run_typed(path, in_thread if node.in_thread else action, options)


async def seen(future: Awaitable[Any], path: str, witness: Witness) -> str:
    """Await something, and write down what it was."""
    try:
        value = await future
        what = f"{path} = {value}"
    except TerminalError as error:
        what = f"{path} raised {error.message}"
    witness.see(what)
    return what


async def perform(ctx: Context, program: Program, path: str, witness: Witness) -> list[str]:
    """Run a program; returns what it saw by itself, in the order of its nodes."""
    results: list[str] = []
    for number, node in enumerate(program):
        place = f"{path}.{number}"
        match node:
            case Step() | Nap():
                results.append(await seen(command(ctx, node, place, witness), place, witness))
            case Rest(duration_ms):
                results.append(await seen(asyncio.sleep(duration_ms / 1000), place, witness))
            case Bounded(within_ms, bounded):
                results += await _bounded(ctx, within_ms, bounded, place, witness)
            case Forgotten(step):
                command(ctx, step, place, witness)
            case Commands(how, nodes):
                results += await _commands(ctx, how, nodes, place, witness)
            case Together(how, branches):
                results += await _branches(ctx, how, branches, place, witness)
    return results


async def _bounded(ctx: Context, within_ms: int, program: Program, path: str, witness: Witness) -> list[str]:
    try:
        async with asyncio.timeout(within_ms / 1000):
            return await perform(ctx, program, path, witness)
    except TimeoutError:
        witness.see(f"{path} timed out")
        # What is issued next depends on it.
        await ctx.run(f"{path} timed out", lambda: None)
    return []


async def _commands(ctx: Context, how: str, nodes: tuple[Step | Nap, ...], path: str, witness: Witness) -> list[str]:
    futures = [command(ctx, node, f"{path}/{number}", witness) for number, node in enumerate(nodes)]
    if how == "gather":
        values = await asyncio.gather(*futures, return_exceptions=True)
        witness.see(f"{path} gathered {values}")
    elif how == "race":
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        witness.see(f"{path} was won by {[number for number, future in enumerate(futures) if future in done]}")
    places = [(future, f"{path}/{number}") for number, future in enumerate(futures)]
    ordered = reversed(places) if how == "reversed" else places
    return sorted([await seen(future, place, witness) for future, place in ordered])


async def _branches(ctx: Context, how: str, branches: tuple[Program, ...], path: str, witness: Witness) -> list[str]:
    subs = [perform(ctx, branch, f"{path}:{number}", witness) for number, branch in enumerate(branches)]
    if how == "gather":
        return [line for lines in await asyncio.gather(*subs) for line in lines]
    if how == "group":
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sub) for sub in subs]
        return [line for task in tasks for line in task.result()]
    tasks = [asyncio.create_task(sub) for sub in subs]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winners = [number for number, task in enumerate(tasks) if task in done]
    witness.see(f"{path} was won by {winners}")
    # What is issued next depends on who won.
    await ctx.run(f"{path} won by {winners}", lambda: None)
    if how == "race and leave":
        return []
    return [line for lines in await asyncio.gather(*tasks) for line in lines]


class Dying:
    """The store of a worker that dies at its n-th write: the call arrives or not, and is never answered."""

    def __init__(self, stage: Stage, crash: tuple[int, bool] | None) -> None:
        self._memory = stage.memory
        self._left, self._arrives = crash or (-1, False)
        self.worker: asyncio.Task[AttemptEnd] | None = None

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._memory, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left != 0:
                return call(*args, **kwargs)
            if self._arrives:
                call(*args, **kwargs)
            assert self.worker is not None
            self.worker.cancel()
            return asyncio.get_running_loop().create_future()

        return counted


async def attempt_until_death(stage: Stage, story: Story, claim: Claim, crash: tuple[int, bool] | None) -> None:
    """Run one attempt, to its end or to the worker's."""
    dying = Dying(stage, crash)
    stage.store = dying
    stage.attempt = stage.new_attempt(story.handler, claim)
    dying.worker = asyncio.get_running_loop().create_task(run_attempt(stage.attempt), context=Variables())
    try:
        await asyncio.wait([dying.worker])
        if not dying.worker.cancelled():
            story.ends.append(dying.worker.result())
    finally:
        stage.attempt = None


async def perform_with_crashes(stage: Stage, program: Program, dies: list[tuple[int, bool]]) -> tuple[Story, Witness]:
    """Play a program to its end, with a worker that dies as told."""
    witness = Witness(stage)
    left = list(dies)

    async def play(ctx: Context) -> list[str]:
        witness.logs.append([])
        return await perform(ctx, program, "p", witness)

    story, first = stage.begin(handler_from(play))
    claim: Claim | None = first
    for _ in range(ATTEMPTS_MAX):
        if claim is None:
            break
        await attempt_until_death(stage, story, claim, left.pop(0) if left else None)
        claim = await stage.next_claim(story)
    return await stage.look(story), witness
