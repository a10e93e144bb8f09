"""Invocations that were lost with their workers again and again: a worker runs them one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from perdure.journal.store import Claim
from perdure.journal.transitions import SUSPECT_AFTER
from perdure.schemas.entries import Paused, Signalled, Success
from perdure.worker.context import Context
from perdure.worker.departures import Completed, Released
from perdure.worker.options import InvocationRetryPolicy
from tests.waiting import wait_until
from tests.worker.attempt_stage import Stage, handler_from
from tests.worker.test_attempts import Crew, at_work


def refusing() -> Callable[..., Any]:
    """Stand in for a handler that is not called."""

    async def play(ctx: Context, kind: str) -> str:
        raise AssertionError("it is called")

    return play


def suspect(crew: Crew, kind: str) -> Claim:
    """Begin an attempt of an invocation that was lost too often."""
    _, claim = crew.stage.begin(handler_from(refusing()), kind)
    claim = claim._replace(lost=SUSPECT_AFTER)
    crew.attempts.start(claim)
    return claim


async def blamed(crew: Crew, claim: Claim) -> bool:
    """Whether the death of its worker would be its own doing."""
    summary = await crew.stage.memory.read_invocation(claim.lease.invocation_id)
    return summary is not None and summary.fields.get("alone") == str(claim.lease.epoch)


async def test_suspects_run_one_at_a_time(plain_stage: Stage) -> None:
    """The second one's handler is not called, and it would not be blamed, before the first one's attempt has ended."""
    async with at_work(plain_stage) as crew:
        first, second = suspect(crew, "busy"), suspect(crew, "busy")
        await wait_until(lambda: crew.effects["busy 1"] == 1)
        assert [await blamed(crew, first), await blamed(crew, second)] == [True, False]
        assert crew.attempts.leases() == [first.lease, second.lease]
        # Everything else runs beside them.
        crew.start("plain")
        await wait_until(lambda: len(crew.ends) == 1)
        assert crew.effects["busy 1"] == 1
        crew.gate.set()
    assert crew.effects["busy 1"] == 2
    assert await blamed(crew, second)
    assert [type(end) for _, end in crew.ends] == [Completed] * 3


async def test_progress_lets_the_next_suspect_begin(plain_stage: Stage) -> None:
    """What got something into its journal is a suspect no more, though it runs on."""
    async with at_work(plain_stage) as crew:
        suspect(crew, "late")
        await wait_until(lambda: crew.effects["late 1"] == 1)
        suspect(crew, "busy")
        await wait_until(lambda: crew.effects["busy 1"] == 1)
        assert crew.ends == []
        crew.gate.set()


async def test_a_suspect_that_waits_for_its_turn_learns_later_what_it_is_sent(plain_stage: Stage) -> None:
    """A signal that comes meanwhile is for the handler, which is not there yet."""
    async with at_work(plain_stage) as crew:
        suspect(crew, "busy")
        await wait_until(lambda: crew.effects["busy 1"] == 1)
        waits = suspect(crew, "signalled")
        await plain_stage.memory.deliver(waits.lease.invocation_id, Signalled("go", 5, Success(b"1")), once="s:1")
        assert crew.attempts.poke(waits.lease.invocation_id)
        for _ in range(10):
            await asyncio.sleep(0)
        crew.gate.set()
    assert [type(end) for _, end in crew.ends] == [Completed] * 2


async def test_a_suspect_that_waits_for_its_turn_is_handed_over_at_a_stop(plain_stage: Stage) -> None:
    """Without its handler having been called."""
    async with at_work(plain_stage) as crew:
        suspect(crew, "busy")
        await wait_until(lambda: crew.effects["busy 1"] == 1)
        waits = suspect(crew, "busy")
        await crew.attempts.drain(grace_ms=10)
    assert [end for _, end in crew.ends] == [Released(), Released()]
    assert crew.effects["busy 1"] == 1
    assert not await blamed(crew, waits)


async def test_what_is_given_up_says_whose_doing_it_was(plain_stage: Stage) -> None:
    """After enough turns alone it is certain; with few attempts allowed it is said that it may have been another's."""
    policy = InvocationRetryPolicy(max_attempts=4)
    reasons = []
    for lost in (SUSPECT_AFTER, SUSPECT_AFTER + 1):
        handler = handler_from(refusing(), invocation_retry_policy=policy)
        story, claim = plain_stage.begin(handler, "x")
        await plain_stage.run(handler, claim._replace(lost=lost, failures=4))
        story = await plain_stage.look(story)
        (paused,) = [entry for entry in story.entries if isinstance(entry, Paused)]
        reasons.append(paused.reason)
    assert "failed 4 times without progress, the last 3 times together with its worker" in reasons[0]
    assert "or beside another one that did" in reasons[0]
    assert "the last 4 times by taking its worker down." in reasons[1]
