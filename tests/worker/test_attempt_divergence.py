"""Handlers that changed while their invocation was in flight: `perdure.worker.attempt` pauses them (design, G8)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure.schemas.commands import Send
from perdure.schemas.entries import Command, Completion, Entry, Sleep, Success, Unknown
from perdure.worker.combinators import gather
from perdure.worker.context import Context
from perdure.worker.futures import DurableFuture
from tests.worker.attempt_stage import Stage, paused_reason

SHORT = timedelta(milliseconds=15)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("late", [False, True])
async def test_divergence_pauses_with_both_sides(stage: Stage, late: bool) -> None:
    """A step whose name changed between attempts pauses the invocation; the message shows both names and the index."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> None:
        attempts["n"] += 1
        if late:
            await ctx.run("the same", lambda: None)
        await ctx.run("old name" if attempts["n"] == 1 else "new name", lambda: None)
        if not stage.always_replay:
            raise ValueError("so that there is another attempt")

    story = await stage.play(play)
    if late and stage.always_replay:
        # The second attempt is the first that comes so far: nothing was recorded under the old name.
        assert story.status == "completed"
        return
    reason = paused_reason(story)
    assert f"command {int(late)}" in reason
    assert 'journal: run "old name"' in reason
    assert 'handler: run "new name"' in reason


CHANGES = {
    "a step was taken out": (("a", "b", "c"), ("a", "c"), 'run "b"'),
    "a step was put in": (("a", "b"), ("a", "x", "b"), 'run "x"'),
    "the end comes earlier": (("a", "b"), ("a",), "the handler ended"),
    "a step became a timer": (("a", "b"), ("a", "sleep"), "sleep"),
    "it waits for something new": (("a", "wait", "b"), ("a", "sleep", "wait", "b"), "sleep"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("swallows", [False, True])
async def test_changed_handlers_pause(plain_stage: Stage, change: str, swallows: bool) -> None:
    """Whatever was changed between two attempts is found, also by a handler that swallows exceptions."""
    before, after, shown = CHANGES[change]
    attempts: Counter[str] = Counter()

    async def commands(ctx: Context) -> None:
        attempts["n"] += 1
        for name in before if attempts["n"] == 1 else after:
            if name == "sleep":
                await ctx.sleep(SHORT)
            else:
                await ctx.run(name, lambda: None)

    async def play(ctx: Context) -> None:
        try:
            await commands(ctx)
        except Exception:
            if not swallows:
                raise
        if attempts["n"] == 1:
            raise ValueError("so that there is another attempt")

    story = await plain_stage.play(play)
    assert shown in paused_reason(story)
    assert len(story.ends) == 2


async def test_an_await_too_many_pauses(plain_stage: Stage) -> None:
    """A handler that waits for a timer where its journal goes on with another command is found."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> None:
        attempts["n"] += 1
        timer = ctx.sleep(HOUR)
        if attempts["n"] > 1:
            await timer
        await ctx.run("a", lambda: None)
        raise ValueError("so that there is another attempt")

    story = await plain_stage.play(play)
    assert "waits for an earlier command" in paused_reason(story)


async def test_entries_of_a_newer_version_pause(plain_stage: Stage) -> None:
    """A journal with an entry that this version does not know is not guessed at."""

    async def play(ctx: Context) -> None:
        raise AssertionError("it is not even called")

    story, claim = plain_stage.begin(play)
    newer = Unknown("teleport", b"{}")
    await plain_stage.memory.append(claim.lease, [newer], after=1, seq=1, progress=False)
    await plain_stage.memory.release(claim.lease, [], after=2, seq=2)
    again = await plain_stage.next_claim(story)
    assert again is not None
    story.ends.append(await plain_stage.run(story.handler, again))
    assert "teleport" in paused_reason(await plain_stage.look(story))


def line_of(text: str) -> str:
    """The place of the one line of this file that holds `text`, as a message names it."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = (at for at, line in enumerate(lines, start=1) if text in line and "line_of" not in line)
    return f"{__file__}:{number}, in "


async def test_the_line_of_the_handler_is_shown(stage: Stage) -> None:
    """Of the call in the author's code, in a task of the handler, too."""
    attempts: Counter[str] = Counter()

    async def sub(ctx: Context) -> None:
        attempts["n"] += 1
        name = f"name {attempts['n']}"
        await ctx.run(name, lambda: None)  # here it diverges
        if not stage.always_replay:
            raise ValueError("so that there is another attempt")
        await ctx.run("another", lambda: None)

    async def play(ctx: Context) -> None:
        await asyncio.gather(sub(ctx))

    reason = paused_reason(await stage.play(play))
    assert line_of("# here it diverges") + "sub" in reason
    assert "another name" in reason


async def test_the_line_where_it_waits_is_shown(plain_stage: Stage) -> None:
    """Where the handler waits for something that its journal does not know."""
    attempts: Counter[str] = Counter()

    async def waits(ctx: Context) -> None:
        await ctx.signal("never")  # here it waits

    async def play(ctx: Context) -> None:
        attempts["n"] += 1
        signal = ctx.signal("never")
        if attempts["n"] > 1:
            await signal  # here it waits, too
        await ctx.run("step", lambda: None)
        raise ValueError("so that there is another attempt")

    assert line_of("# here it waits, too") + "play" in paused_reason(await plain_stage.play(play))


async def test_tasks_that_wait_too_early_pause(stage: Stage) -> None:
    """A handler that waits through tasks for what its journal does not know is found when it would leave memory."""
    stage.inactivity_ms = 10
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> None:
        attempts["n"] += 1
        timer = ctx.sleep(HOUR)
        if attempts["n"] > 1:
            await asyncio.gather(timer, asyncio.sleep(0))
        await ctx.run("a", lambda: None)
        raise ValueError("so that there is another attempt")

    assert "waits for an earlier command" in paused_reason(await stage.play(play))


WAYS: dict[str, Callable[[DurableFuture[Any]], Awaitable[Any]]] = {
    "awaited": lambda future: future,
    "gathered": gather,
    "in tasks": asyncio.gather,
}

PUT_IN: dict[str, Callable[[Context, Callable[[], None]], DurableFuture[Any]]] = {
    "a step": lambda ctx, act: ctx.run("put in", act),
    "a timer": lambda ctx, _: ctx.sleep(SHORT),
    "a call": lambda ctx, _: ctx.generic_call("S", "h", b""),
    "a signal": lambda ctx, _: ctx.signal("put in"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", PUT_IN)
async def test_a_gap_is_left_to_the_code_that_it_fits(plain_stage: Stage, way: str, command: str) -> None:
    """A command that was put in is found before it is done where a step has no entry, and a later command has one."""
    new, done = True, Counter[str]()
    plain_stage.inactivity_ms = 50

    async def play(ctx: Context) -> str:
        if new:
            await WAYS[way](PUT_IN[command](ctx, lambda: done.update(["put in"])))
        step = ctx.run("a", lambda: "a")
        await gather(step, ctx.sleep(SHORT))
        return await step

    story, claim = plain_stage.begin(play)
    await plain_stage.memory.append(claim.lease, [Sleep(1, "", 1, 3_600_000)], after=1, seq=1, progress=False)
    await plain_stage.memory.release(claim.lease, [], after=2, seq=2)
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert "diverged" in paused_reason(story)
    assert not any(isinstance(entry, Command) for entry in story.entries[2:])
    assert not done
    new = False
    await plain_stage.memory.resume(story.invocation_id, at_ms=1)
    assert (await plain_stage.go_on(story, await plain_stage.next_claim(story))).result == "a"


async def test_a_step_before_what_is_recorded_runs_at_last(plain_stage: Stage) -> None:
    """When the handler has come to all that is recorded, whatever the last of it is, the steps between begin."""
    plain_stage.inactivity_ms = 10_000

    ran = asyncio.Event()

    async def later(ctx: Context) -> None:
        await ctx.sleep(SHORT)
        for _ in range(20):
            await asyncio.sleep(0)
        ctx.generic_send("S", "h", b"")
        await ran.wait()

    async def play(ctx: Context) -> None:
        waits = asyncio.ensure_future(later(ctx))
        await ctx.run("a", lambda: None)
        ran.set()
        await waits

    story, claim = plain_stage.begin(play)
    send = Send(2, 1, "S", "h", None, story.invocation_id, "", (), 0, b"")
    entries: list[Entry] = [Sleep(1, "", 1, 1), Completion(1, 1, Success(b"null")), send]
    await plain_stage.memory.append(claim.lease, entries, after=1, seq=1, progress=False)
    await plain_stage.memory.release(claim.lease, [], after=4, seq=2)
    story = await plain_stage.go_on(story, await plain_stage.next_claim(story))
    assert (story.status, story.steps, len(story.ends)) == ("completed", ["a"], 1)


async def test_the_end_that_comes_too_early_is_shown(plain_stage: Stage) -> None:
    """Where the handler begins, since it has no line any more."""
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> None:  # here it begins
        attempts["n"] += 1
        if attempts["n"] == 1:
            await ctx.run("step", lambda: None)
            raise ValueError("so that there is another attempt")

    reason = paused_reason(await plain_stage.play(play))
    assert line_of("# here it begins") + "play" in reason
    assert "the handler ended" in reason


OTHER_TARGETS: dict[str, tuple[Callable[[Context, int], object], str]] = {
    "either sleep or call": (lambda ctx, n: ctx.sleep(SHORT) if n == 1 else ctx.generic_call("S", "h", b""), "sleep"),
    "another handler": (lambda ctx, n: ctx.generic_call("S", f"h{n}", b""), 'call "S/h1"'),
    "another key": (lambda ctx, n: ctx.generic_call("S", "h", b"", key=f"k{n}"), 'call "S/h" k1'),
    "another target": (lambda ctx, n: ctx.generic_send("S", f"h{n}", b""), 'send "S/h1"'),
    "another signal": (lambda ctx, n: ctx.signal(f"s{n}"), 'signal "s1"'),
}


@pytest.mark.parametrize("change", OTHER_TARGETS)
async def test_other_commands_pause(plain_stage: Stage, change: str) -> None:
    """Restate's scenarios of handlers that are not deterministic: never a success, and both sides shown."""
    make, shown = OTHER_TARGETS[change]
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> None:
        attempts["n"] += 1
        make(ctx, attempts["n"])
        await ctx.run("step", lambda: None)
        raise ValueError("so that there is another attempt")

    reason = paused_reason(await plain_stage.play(play))
    assert f"journal: {shown}" in reason
    assert "command 0" in reason


@pytest.mark.parametrize("strict", [False, True])
async def test_other_arguments_are_told(plain_stage: Stage, caplog: pytest.LogCaptureFixture, strict: bool) -> None:
    """As a warning with the line and without the values; under the test harness they pause."""
    plain_stage.strict_arguments = strict
    attempts: Counter[str] = Counter()

    async def play(ctx: Context) -> None:
        attempts["n"] += 1
        ctx.generic_send("S", "same", b"secret")
        ctx.generic_send("S", "h", b"secret 1" if attempts["n"] == 1 else b"secret 22")  # here it differs
        await ctx.run("step", lambda: None)
        if attempts["n"] == 1:
            raise ValueError("so that there is another attempt")

    story = await plain_stage.play(play)
    (told,) = [paused_reason(story)] if strict else [r.getMessage() for r in caplog.records if "S/h" in r.getMessage()]
    assert "8 bytes in the journal, 9 now, different from byte 7 on" in told
    assert line_of("# here it differs") in told
    assert "secret" not in told
    assert story.status == ("paused" if strict else "completed")
