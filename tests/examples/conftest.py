"""A worker that runs an example on the session's servers, and the example's ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from examples.ledger import VARIABLE, Ledger
from perdure import Application, Client
from perdure.testing import HarnessFactory

both_ways = pytest.mark.parametrize("always_replay", [False, True], ids=["at once", "replayed"])

Running = Callable[[Application], AbstractAsyncContextManager[Client]]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The ledger that the example writes to."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ledger.sqlite"))
    return Ledger()


@pytest.fixture
def always_replay() -> bool:
    """Whether every await is replayed; parametrize it by its name to have both."""
    return False


@pytest.fixture
def running(perdure_harness: HarnessFactory, always_replay: bool) -> Running:
    """Run an application in this process while the block lasts; yields a client."""

    @asynccontextmanager
    async def run(application: Application) -> AsyncIterator[Client]:
        async with perdure_harness(application, always_replay=always_replay) as env:
            yield env.client

    return run
