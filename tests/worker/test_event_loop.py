"""The loop of a worker process: `perdure.worker.event_loop`."""

from __future__ import annotations

import asyncio
import sys

import pytest

from perdure.worker.event_loop import run_to_end


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
