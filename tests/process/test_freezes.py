"""Workers that stop without dying: frozen by SIGSTOP, or blocked by a handler."""

from __future__ import annotations

import signal

from perdure.schemas.entries import AttemptFailed, AttemptStarted, Run
from tests.waiting import wait_until

from .application import Act
from .stage import Stage
from .worker_process import READY

# Longer than anybody waits for another worker to take over.
HOLD_MS_MAX = 120_000


async def test_frozen_worker_is_refused_when_it_wakes(stage: Stage) -> None:
    """A worker that sleeps longer than its lease may finish the step it was in; nothing of it enters the journal."""
    frozen = await stage.start_ready(lease_s="1")
    await stage.send("z", Act("step"), Act("step", 1_000), Act("step"))
    await stage.executing("z", "1-step")
    frozen.send(signal.SIGSTOP)
    await stage.start(lease_s="1")
    await stage.finished(offsets=False)
    before = len((await stage.story("z")).entries)
    executed = {effect.pid for effect in await stage.executed("z", "1-step")}
    frozen.send(signal.SIGCONT)
    await stage.send("after", Act("step"))
    await stage.finished()
    assert len(executed) == 2, "both workers began the step"
    assert len((await stage.story("z")).entries) == before
    await stage.check()


async def test_worker_frozen_between_admission_and_steps_repeats_nothing_recorded(stage: Stage) -> None:
    """A worker full of work is frozen again and again; others take over what it has, and it goes on with the rest."""
    workers = await stage.start_two(lease_s="1")
    for number in range(40):
        await stage.send(f"r{number}", Act("step", 100), Act("thread", 20), Act("sleep", 50), Act("step", 100))
    victim = stage.chance.choice(workers)
    for _ in range(2):
        victim.send(signal.SIGSTOP)
        await stage.pause(1.5)
        victim.send(signal.SIGCONT)
        await stage.pause(0.3)
    await stage.finished()
    await stage.check()


async def test_worker_with_a_blocked_loop_is_not_taken_for_dead(stage: Stage) -> None:
    """A handler blocks the loop for longer than the lease and Kafka's session; nothing of its worker runs twice."""
    worker = await stage.start_ready(lease_s="2")
    await stage.send("blocking", Act("block", 5_000), Act("step"))
    for number in range(5):
        await stage.send(f"r{number}", Act("step"), Act("step", 10))
    await stage.until(lambda story: len(story.of_type(Run)) == 1, tag="blocking")
    await stage.start(lease_s="2")
    await stage.finished()
    assert (await stage.story("blocking")).of_type(AttemptStarted) == []
    assert len(await stage.executed("blocking")) == 2
    assert {effect.pid for effect in await stage.executed("blocking")} == {worker.pid}
    await stage.check()


async def test_handler_that_blocks_from_its_first_instant_keeps_its_lease(stage: Stage) -> None:
    """Renewal knows of a lease before its handler has had a chance to block the loop."""
    await stage.start_two(lease_s="2")
    await stage.send("blocking", Act("freeze", 5_000), Act("step"))
    await stage.finished()
    assert (await stage.story("blocking")).of_type(AttemptStarted) == []
    await stage.check()


async def test_loop_blocked_for_too_long_loses_its_leases(stage: Stage) -> None:
    """Beyond the limit another worker takes over, and the blocked one is refused when it goes on."""
    blocked = await stage.start_ready(lease_s="1", block_ms_max="1000")
    await stage.send("blocking", Act("step"), Act("hold", HOLD_MS_MAX), Act("step"))
    await stage.until(lambda story: story.of_type(Run), tag="blocking")
    other = await stage.start(lease_s="1", block_ms_max="20000")
    await stage.finished(offsets=False)
    assert (await stage.story("blocking")).of_type(AttemptStarted)
    assert [effect.pid for effect in await stage.executed("blocking", "2-step")] == [other.pid]
    before = len((await stage.story("blocking")).entries)
    stage.let_go()
    await wait_until(lambda: blocked.said("has blocked the event loop"), description="the blocked one says why")
    await stage.send("after", Act("step"))
    await stage.finished()
    assert len((await stage.story("blocking")).entries) == before
    await stage.check()


async def test_loop_blocked_for_ever_costs_a_process_and_not_its_place(stage: Stage) -> None:
    """The supervisor kills what stopped turning and starts another; that attempt failed, all goes on."""
    supervisor = await stage.start("--processes", "2", lease_s="1", block_ms_max="1000")
    await wait_until(lambda: supervisor.said(READY) >= 2, description="both children are ready")
    await stage.send("blocking", Act("stuck"))
    for number in range(5):
        await stage.send(f"r{number}", Act("step", 50), Act("sleep", 100), Act("step", 50))
    await wait_until(lambda: supervisor.said("is killed: something has blocked") >= 1)
    await stage.finished()
    assert [effect.attempt for effect in await stage.executed("blocking", "0-stuck")][:1] == [1]
    assert (await stage.story("blocking")).of_type(AttemptFailed)
    await stage.check()
