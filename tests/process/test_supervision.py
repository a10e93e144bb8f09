"""`perdure worker --processes N`: a child's death is told at once, and no child outlives its supervisor."""

from __future__ import annotations

import os
import signal

from perdure.schemas.entries import Run
from tests.waiting import wait_until

from .application import Act
from .stage import LONG_LEASE_S, Stage
from .worker_process import READY, WorkerProcess


def exists(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def both_ready(supervisor: WorkerProcess) -> None:
    """Wait until both children have their partitions: three interpreters start, and a group of two is formed."""
    await wait_until(lambda: supervisor.said(READY) >= 2, description="both children are ready")


async def test_death_of_a_child_is_told_at_once(stage: Stage) -> None:
    """What a killed child ran goes on in the other one without waiting for its lease, and the child is replaced."""
    supervisor = await stage.start("--processes", "2", lease_s=LONG_LEASE_S)
    await both_ready(supervisor)
    await stage.send("r", Act("step"), Act("step", 1_000), Act("step"))
    await stage.until(lambda story: len(story.of_type(Run)) == 1, tag="r")
    (first,) = {effect.pid for effect in await stage.executed("r", "0-step")}
    os.kill(first, signal.SIGKILL)
    await stage.finished(timeout_s=20)
    assert supervisor.said("starting another") == 1
    await wait_until(lambda: supervisor.said("runs with pid") == 3, description="another child is started")
    await stage.check()


async def test_no_child_outlives_a_killed_supervisor(stage: Stage) -> None:
    """SIGKILL of the supervisor ends its children in order, which hand over what they have."""
    supervisor = await stage.start("--processes", "2", lease_s=LONG_LEASE_S)
    await both_ready(supervisor)
    await stage.send("r", Act("step"), Act("sleep", 3_000), Act("step"))
    await stage.until(lambda story: len(story.of_type(Run)) == 1, tag="r")
    children = children_of(supervisor.pid)
    await supervisor.kill()
    await wait_until(lambda: not any(exists(pid) for pid in children), description="the children have ended")
    await stage.start(lease_s=LONG_LEASE_S)
    await stage.finished()
    await stage.check()
    await stage.check_no_failures()


async def test_supervisor_and_children_end_in_order(stage: Stage) -> None:
    """SIGTERM to the supervisor: running steps end, and all processes are gone when it exits with 0."""
    supervisor = await stage.start("--processes", "2", lease_s=LONG_LEASE_S)
    await both_ready(supervisor)
    for number in range(6):
        await stage.send(f"r{number}", Act("step", 800))
    await stage.executing("r5", "0-step")
    children = children_of(supervisor.pid)
    assert len(children) == 2
    assert await supervisor.terminate() == 0
    assert not any(exists(pid) for pid in children)
    # For the offsets: on Redis without WAITAOF they are committed two seconds late.
    await stage.start(lease_s=LONG_LEASE_S)
    await stage.finished()
    await stage.check()
    await stage.check_no_failures()


def children_of(pid: int) -> list[int]:
    """The process ids of a process's children."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]
