"""Handlers that changed while their invocation was in flight: `perdure.worker.attempt` pauses them (design, G8)."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from perdure.schemas.entries import Unknown
from perdure.worker.context import Context
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
