"""Fixtures of the worker's tests: the stages on which attempts are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.worker.handler_timers import prepare_loop
from tests.worker.attempt_stage import Stage
from tests.worker.ensemble import Ensemble
from tests.worker.troupe import Troupe


@pytest.fixture
async def plain_stage() -> AsyncIterator[Stage]:
    """A stage on which attempts stay in memory while they can."""
    async for stage in _staged(always_replay=False):
        yield stage


@pytest.fixture(params=["plain", "always_replay"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """A stage; each test is played plainly, and once more with attempts that leave after each result."""
    async for stage in _staged(always_replay=request.param == "always_replay"):
        yield stage


async def _staged(*, always_replay: bool) -> AsyncIterator[Stage]:
    undo = prepare_loop(asyncio.get_running_loop())
    stage = Stage(always_replay=always_replay)
    yield stage
    stage.close()
    undo()


@pytest.fixture(params=["plain", "always_replay"])
async def ensemble(request: pytest.FixtureRequest) -> AsyncIterator[Ensemble]:
    """Invocations that call each other; each test is played plainly, and once more as on `stage`."""
    undo = prepare_loop(asyncio.get_running_loop())
    ensemble = Ensemble(always_replay=request.param == "always_replay")
    yield ensemble
    await ensemble.stop()
    ensemble.close()
    undo()


@pytest.fixture
def troupe() -> Troupe:
    """Those who are called."""
    return Troupe()
