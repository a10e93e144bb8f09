"""Several processes and their deaths: `perdure.worker.supervisor`, with small programs in the workers' place."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from perdure.schemas.errors import StoreError
from perdure.worker import supervisor as module
from perdure.worker.clock import SystemClock
from perdure.worker.supervisor import Supervisor, SupervisorSettings, child_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process

# These say by a file of their name that their signal handler is set: a Python that still starts dies of SIGTERM.
_SAY = "; open(sys.argv[3], 'w').close(); signal.pause()"
WAITS = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)){_SAY}"
IGNORES = f"import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN){_SAY}"
REFUSES = "raise SystemExit(2)"
CRASHES = "raise SystemExit(1)"
# Ends with whoever holds its lifeline.
FOLLOWS = (
    "import sys, time; from perdure.worker.lifeline import follow_lifeline; "
    "follow_lifeline(int(sys.argv[2]), grace_s=5.0); time.sleep(600)"
)

# Shows once that its loop turns, and is frozen then; or goes on showing it.
FREEZES = f"import os, signal, sys; os.write(int(sys.argv[4]), b'.'){_SAY}"
LIVES = (
    "import os, sys, time; open(sys.argv[3], 'w').close()\n"
    "while True: os.write(int(sys.argv[4]), b'.'); time.sleep(0.1)"
)
FROZEN_S = 1.5

SUPERVISES = """
import asyncio, os, sys
from perdure.worker.clock import SystemClock
from perdure.worker.supervisor import Supervisor, SupervisorSettings

async def main():
    async def report(name): pass
    supervisor = Supervisor(
        SupervisorSettings(processes=2, name="s", grace_s=1.0, environment=dict(os.environ), frozen_s=60.0),
        command=lambda name, descriptor, pulse: [sys.executable, "-c", sys.argv[1], name, str(descriptor)],
        report=report,
        clock=SystemClock(),
    )
    run = asyncio.create_task(supervisor.run())
    while len(supervisor.pids) < 2:
        await asyncio.sleep(0.01)
    print(*supervisor.pids.values(), flush=True)
    await run

asyncio.run(main())
"""


class Fleet:
    """A supervisor that runs, and what it reported."""

    def __init__(self, programs: Callable[[str], str], directory: Path, *, processes: int, grace_s: float) -> None:
        self.started: list[str] = []
        self.reported: list[str] = []
        self.refuse_reports = False
        self._programs = programs
        self._directory = directory
        self.supervisor = Supervisor(
            SupervisorSettings(processes, "s", grace_s, child_environment({"MARK": "1"}), FROZEN_S),
            command=self._command,
            report=self._report,
            clock=SystemClock(),
        )
        self.run = asyncio.create_task(self.supervisor.run())

    def _command(self, name: str, descriptor: int, pulse: int) -> Sequence[str]:
        self.started.append(name)
        mark = str(self._directory / name)
        return [sys.executable, "-S", "-c", self._programs(name), name, str(descriptor), mark, str(pulse)]

    async def up(self, count: int) -> list[int]:
        """Wait for so many children that handle signals; their process ids."""
        await wait_until(lambda: len(self._up()) == count, description=f"{count} children are up")
        return [self.supervisor.pids[name] for name in self._up()]

    def _up(self) -> list[str]:
        return [name for name in self.supervisor.pids if (self._directory / name).exists()]

    async def _report(self, name: str) -> None:
        self.reported.append(name)
        if self.refuse_reports:
            raise StoreError("Redis is away.")


Start = Callable[..., Fleet]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Start]:
    """Return what starts a fleet; nothing is left of it afterwards."""
    fleets: list[Fleet] = []

    def start(program: str | Callable[[str], str], *, processes: int = 2, grace_s: float = 600.0) -> Fleet:
        programs = program if callable(program) else lambda name: program
        fleets.append(Fleet(programs, tmp_path, processes=processes, grace_s=grace_s))
        return fleets[-1]

    yield start
    for made in fleets:
        made.supervisor.stop()
        made.supervisor.stop()
        await asyncio.wait([made.run])


async def test_children_run_and_end_together(fleet: Start) -> None:
    """As many processes as were asked for, under names of their own; SIGTERM for each at the end and exit code 0."""
    running = fleet(WAITS, processes=3)
    pids = await running.up(3)
    assert sorted(running.supervisor.pids) == ["s-0.1", "s-1.1", "s-2.1"]
    running.supervisor.stop()
    assert await running.run == 0
    assert not any(runs(pid) for pid in pids)
    assert running.reported == []


async def test_a_death_is_reported_at_once_and_made_good(fleet: Start) -> None:
    """A child killed by SIGKILL is reported by its name, and another one with a new name takes its place."""
    running = fleet(WAITS)
    await running.up(2)
    os.kill(running.supervisor.pids["s-0.1"], signal.SIGKILL)
    await wait_until(lambda: running.reported == ["s-0.1"])
    await wait_until(lambda: sorted(running.supervisor.pids) == ["s-0.2", "s-1.1"])


async def test_a_report_that_fails_does_no_harm(fleet: Start) -> None:
    """While Redis is away children are started again all the same."""
    running = fleet(WAITS, processes=1)
    running.refuse_reports = True
    (pid,) = await running.up(1)
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: "s-0.2" in running.supervisor.pids)
    assert running.reported == ["s-0.1"]


async def test_children_that_keep_dying_are_kept_apart(fleet: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each death is reported, and the pauses between starts grow up to their bound."""
    pauses: list[float] = []
    monkeypatch.setattr(module, "RESTART_S_MIN", 0.001)
    monkeypatch.setattr(module, "RESTART_S_MAX", 0.008)
    pause = Supervisor._pause

    async def noted(self: Supervisor, pause_s: float) -> None:
        pauses.append(pause_s)
        await pause(self, pause_s)

    monkeypatch.setattr(Supervisor, "_pause", noted)
    running = fleet(CRASHES, processes=1)
    await wait_until(lambda: len(pauses) >= 6)
    assert pauses[:6] == [0.001, 0.002, 0.004, 0.008, 0.008, 0.008]
    assert running.reported[:5] == running.started[:5]


async def test_a_child_that_refuses_its_settings_ends_the_fleet(fleet: Start) -> None:
    """Exit code 2 would come again for ever: the others end, and so does the supervisor, with code 2."""
    running = fleet(lambda name: REFUSES if name.startswith("s-1") else WAITS)
    assert await running.run == 2
    assert sorted(running.started) == ["s-0.1", "s-1.1"]


async def test_a_child_that_does_not_end_is_killed(fleet: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its grace a child is killed, which shows in the exit code, and is reported so that its work goes on."""
    monkeypatch.setattr(module, "KILL_MARGIN_S", 0.1)
    running = fleet(IGNORES, processes=1, grace_s=0.1)
    (pid,) = await running.up(1)
    running.supervisor.stop()
    assert await running.run == 1
    assert not runs(pid)
    assert running.reported == ["s-0.1"]


async def test_a_second_stop_does_not_wait(fleet: Start) -> None:
    """Ctrl-C twice kills what runs."""
    running = fleet(IGNORES, processes=1)
    (pid,) = await running.up(1)
    running.supervisor.stop()
    running.supervisor.stop()
    await running.run
    assert not runs(pid)


async def test_cancelling_it_leaves_no_child(fleet: Start) -> None:
    """A supervisor that is cancelled kills its children on the way out."""
    running = fleet(IGNORES)
    pids = await running.up(2)
    running.run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.run
    assert not any(runs(pid) for pid in pids)


async def test_children_end_when_the_supervisor_is_killed() -> None:
    """SIGKILL of the supervisor leaves no orphans."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISES, FOLLOWS, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(text) for text in (await parent.stdout.readline()).split()]
    assert all(runs(pid) for pid in pids)
    parent.kill()
    await parent.wait()
    await wait_until(lambda: not any(runs(pid) for pid in pids), description="the children ended")


def runs(pid: int) -> bool:
    """Whether a process of that id exists and is not just waiting to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_frozen_child_is_killed_and_made_good(fleet: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Whose loop has turned, and then not for too long; one that goes on, or never said anything, is left alone."""
    programs = {"s-0": FREEZES, "s-1": LIVES, "s-2": WAITS}
    running = fleet(lambda name: programs[name.partition(".")[0]] if name != "s-0.2" else WAITS, processes=3)
    await running.up(3)
    await wait_until(lambda: running.reported == ["s-0.1"])
    await wait_until(lambda: sorted(running.supervisor.pids) == ["s-0.2", "s-1.1", "s-2.1"])
    assert any("s-0.1 is killed: something has blocked its event loop" in each.getMessage() for each in caplog.records)
