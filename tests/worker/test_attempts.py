"""All attempts of one worker: how many, what they are told, how they end with it: `perdure.worker.attempts`."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from perdure.journal.store import Claim
from perdure.schemas.errors import FencedError
from perdure.worker import attempts
from perdure.worker.application import app
from perdure.worker.attempts import Attempts, AttemptSettings
from perdure.worker.context import Context
from perdure.worker.departures import AttemptEnd, Completed, Left, Lost, Released
from perdure.worker.handler import handler_of, unknown_handler
from perdure.worker.scope import SCOPE
from perdure.worker.service import Service
from perdure.worker.workflow import Workflow
from tests.waiting import wait_until
from tests.worker.attempt_stage import Stage, handler_from

SETTINGS = AttemptSettings(
    inactivity_ms=5_000, always_replay=False, journal_entries_max=1_000, payload_bytes_max=1_000, lease_ms=10_000
)


class Crew:
    """Attempts of one service, over the stage's store."""

    def __init__(self, stage: Stage, concurrency: int) -> None:
        self.stage = stage
        self.gate = asyncio.Event()
        self.effects: Counter[str] = Counter()
        self.ends: list[tuple[int, AttemptEnd]] = []
        service = Service("Stage")

        @service.handler("play")
        async def play(ctx: Context, kind: str) -> str:
            self.effects[f"{kind} {ctx.request().attempt}"] += 1
            if kind == "wait":
                await ctx.sleep(timedelta(hours=1))
            elif kind == "stubborn":
                while not self.gate.is_set():
                    try:
                        await self.gate.wait()
                    except asyncio.CancelledError:
                        self.effects["cancelled"] += 1
            elif kind == "signalled":
                await ctx.signal("go", type_hint=int)
            elif kind in ("busy", "late"):
                if kind == "late":
                    await ctx.run("first", lambda: None)

                async def step() -> None:
                    await self.gate.wait()

                await ctx.run("busy", step)
            return kind

        self.attempts = Attempts(
            app([service]),
            SETTINGS,
            store=stage.memory,
            clock=stage.clock,
            threads=stage.threads,
            timers=stage,
            concurrency=concurrency,
            on_end=lambda attempt, end: self.ends.append((attempt.claim.lease.epoch, end)),
            outward=stage,
        )

    def start(self, kind: str) -> Claim:
        """Admit and begin an attempt."""
        _, claim = self.stage.begin(handler_from(self._named()), kind)
        self.attempts.start(claim)
        return claim

    def _named(self) -> Any:
        async def play(ctx: Context, kind: str) -> str:
            raise AssertionError("the application's own is called")

        return play


@asynccontextmanager
async def at_work(stage: Stage, *, concurrency: int = 10) -> AsyncIterator[Crew]:
    """A crew whose attempts run in a group, until they have ended."""
    crew = Crew(stage, concurrency)
    async with asyncio.TaskGroup() as group:
        crew.attempts.open(group)
        yield crew


async def test_room_is_what_is_left(plain_stage: Stage) -> None:
    """A full worker takes nothing more until an attempt ended."""
    async with at_work(plain_stage, concurrency=2) as crew:
        assert await crew.attempts.room() == 2
        crew.start("busy")
        assert await crew.attempts.room() == 1
        crew.start("busy")
        waiting = asyncio.create_task(crew.attempts.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        crew.gate.set()
        assert await waiting >= 1
    assert [type(end) for _, end in crew.ends] == [Completed, Completed]
    assert crew.attempts.leases() == []


async def test_nothing_begins_once_all_has_ended(plain_stage: Stage) -> None:
    """What is admitted again while a worker leaves is left to its lease."""
    async with at_work(plain_stage) as crew:
        pass
    crew.start("plain")
    assert (crew.attempts.leases(), crew.ends) == ([], [])


async def test_a_lost_lease_ends_its_attempt(plain_stage: Stage) -> None:
    """A renewal that is refused cancels the handler; nothing of it is recorded."""
    async with at_work(plain_stage) as crew:
        claim = crew.start("busy")
        await wait_until(lambda: crew.effects["busy 1"])
        assert crew.attempts.leases() == [claim.lease]
        crew.attempts.renewed(claim.lease, 1)
        crew.attempts.renewed(claim.lease, None)
    assert isinstance(crew.ends[0][1], Lost)
    assert isinstance(crew.ends[0][1].error, FencedError)


async def test_a_renewal_that_comes_behind_a_suspension_loses_nothing(
    plain_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds no lease any more, before the attempt has heard that it is suspended: that is how it ends."""
    suspend, suspended, heard = plain_stage.memory.suspend, asyncio.Event(), asyncio.Event()

    async def answering_late(*given: Any, **named: Any) -> Any:
        answer = await suspend(*given, **named)
        suspended.set()
        await heard.wait()
        return answer

    monkeypatch.setattr(plain_stage.memory, "suspend", answering_late)
    async with at_work(plain_stage) as crew:
        lease = crew.start("wait").lease
        await suspended.wait()
        (length,) = await plain_stage.memory.renew([lease], lease_ms=10_000)
        assert length is None
        crew.attempts.renewed(lease, length)
        heard.set()
    assert [end for _, end in crew.ends] == [Left("suspended", due_in_ms=None)]


async def test_a_later_attempt_beside_an_earlier_one(plain_stage: Stage) -> None:
    """Both count, both are renewed, and the end of the earlier one does not touch the later one."""
    async with at_work(plain_stage, concurrency=2) as crew:
        first = crew.start("stubborn")
        await wait_until(lambda: crew.effects["stubborn 1"])
        plain_stage.clock.skip(20_000)
        plain_stage.sweep()
        lease = first.lease
        later = await plain_stage.memory.claim(
            lease.invocation_id, 1, token="later", worker="stage", lease_ms=10_000, at_ms=0
        )
        assert later is not None
        crew.attempts.start(later)
        await wait_until(lambda: crew.effects["stubborn 2"])
        assert crew.attempts.leases() == [lease, later.lease]
        waiting = asyncio.create_task(crew.attempts.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        crew.attempts.renewed(lease, None)
        await wait_until(lambda: crew.effects["cancelled"] == 1)
        crew.gate.set()
        await waiting
    assert {epoch: type(end) for epoch, end in crew.ends} == {1: Lost, 2: Completed}


async def test_a_stop_lets_go_of_what_waits_at_once(plain_stage: Stage) -> None:
    """What only waits is handed over without using the grace; what runs may end in it."""
    async with at_work(plain_stage) as crew:
        crew.start("wait")
        busy = crew.start("busy")
        await wait_until(lambda: crew.effects["busy 1"])
        draining = asyncio.create_task(crew.attempts.drain(grace_ms=600_000))
        await wait_until(lambda: len(crew.ends) == 1)
        assert crew.attempts.leases() == [busy.lease]
        crew.gate.set()
        await draining
    assert {type(end) for _, end in crew.ends} <= {Released, Left, Completed}
    assert isinstance(crew.ends[-1][1], Completed)


async def test_a_stop_waits_for_what_is_about_to_begin(plain_stage: Stage) -> None:
    """What the store was asked to admit would be left with its lease."""
    asked = ["admission"]
    async with at_work(plain_stage) as crew:
        draining = asyncio.create_task(crew.attempts.drain(grace_ms=600_000, more=lambda: asked))
        await asyncio.sleep(0)
        crew.start("wait")
        asked.clear()
        await draining
        assert crew.attempts.leases() == []
    (end,) = [end for _, end in crew.ends]
    assert isinstance(end, Released | Left)


async def test_a_stop_does_not_wait_for_ever_for_what_is_about_to_begin(
    plain_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may be away."""
    monkeypatch.setattr(attempts, "ABANDON_MS", 50)
    async with at_work(plain_stage) as crew:
        await crew.attempts.drain(grace_ms=0, more=lambda: True)


async def test_a_stop_releases_what_outlasts_the_grace(plain_stage: Stage) -> None:
    """After the grace it is cancelled and ready for any worker."""
    async with at_work(plain_stage) as crew:
        claim = crew.start("busy")
        await wait_until(lambda: crew.effects["busy 1"])
        await crew.attempts.drain(grace_ms=10)
    assert [end for _, end in crew.ends] == [Released()]
    summary = await plain_stage.memory.read_invocation(claim.lease.invocation_id)
    assert summary is not None
    assert summary.fields["status"] == "ready"


async def test_a_stop_does_not_wait_for_ever(
    plain_stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that does not let itself be cancelled is left behind, and the log says so."""
    monkeypatch.setattr(attempts, "ABANDON_MS", 50)
    async with at_work(plain_stage) as crew:
        crew.start("stubborn")
        await wait_until(lambda: crew.effects["stubborn 1"])
        with caplog.at_level(logging.ERROR):
            await crew.attempts.drain(grace_ms=0)
        assert "1 handlers do not end" in caplog.text
        crew.gate.set()


async def test_handlers_see_no_context_of_others(plain_stage: Stage) -> None:
    """Each attempt begins with context variables of its own, whoever started it."""
    async with at_work(plain_stage) as crew:
        token = SCOPE.set(None)
        crew.start("plain")
        SCOPE.reset(token)
    assert [type(end) for _, end in crew.ends] == [Completed]


async def test_a_side_task_that_fails_is_only_said(plain_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """What `due` repeats anyway must not end the worker."""

    async def fail() -> None:
        raise ValueError("no")

    async with at_work(plain_stage) as crew:
        crew.attempts.spawn(fail())
    assert "a side task failed" in caplog.text


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_workflow_is_kept_for_its_retention(idempotent: bool) -> None:
    """That of `main`: neither the service's for idempotency keys nor the worker's own, both of which others go by."""
    signup = Workflow("Signup", idempotency_retention=timedelta(hours=5), journal_retention=timedelta(minutes=1))

    @signup.main(workflow_retention=timedelta(hours=2))
    async def run(ctx: Context) -> None: ...

    @signup.handler()
    async def look(ctx: Context) -> None: ...

    kept = [attempts._limits(handler_of(fn), SETTINGS, idempotent=idempotent) for fn in (run, look)]
    assert [limits.retention_ms for limits in kept] == [2 * 3_600_000, 5 * 3_600_000]
    assert [limits.journal_retention_ms for limits in kept] == [60_000, 60_000]


async def test_names_that_nobody_has_are_not_remembered_without_end(
    plain_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records may name a new handler each: what is remembered of handlers is bounded."""
    monkeypatch.setattr(attempts, "LIMITS_KEPT_MAX", 5)
    crew = Crew(plain_stage, 10)
    for number in range(50):
        crew.attempts._limits_of(unknown_handler("Stage", f"handler {number}"), idempotent=False)
        assert len(crew.attempts._limits) <= 5
