"""The loop of a worker process: `perdure.worker.event_loop`."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys

import pytest

from perdure.worker.event_loop import GARBAGE_THRESHOLD, run_to_end


async def loop_module() -> str:
    """Where the running loop's class is from."""
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_runs_where_it_is_installed() -> None:
    """The coroutine's value comes back, from a uvloop."""
    pytest.importorskip("uvloop")
    assert run_to_end(loop_module()).startswith("uvloop")


def test_asyncio_runs_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvloop nothing is missing but speed."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_to_end(loop_module()).startswith("asyncio")


def test_what_is_loaded_is_not_looked_at_for_garbage_again() -> None:
    """In a process of its own: the collector is kept from what was there, and looks less often than CPython's 700."""
    program = (
        "import gc; from perdure.worker.event_loop import collect_rarely; collect_rarely(); "
        "print(gc.get_freeze_count() > 1000, gc.get_threshold()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(GARBAGE_THRESHOLD)]
    assert gc.get_threshold()[0] < GARBAGE_THRESHOLD
