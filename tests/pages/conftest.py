"""The page that a test module is about, run, and its application in a harness."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType

import pytest

from perdure import Client
from perdure.testing import HarnessFactory
from tests.documents import ROOT

from .page import run_page

both_ways = pytest.mark.parametrize("always_replay", [False, True], ids=["at once", "replayed"])

Running = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def page(request: pytest.FixtureRequest) -> ModuleType:
    """The program of `docs/<name>.md`, for `test_<name>.py`."""
    return run_page(ROOT / "docs" / f"{request.path.stem.removeprefix('test_')}.md")


@pytest.fixture
def always_replay() -> bool:
    """Whether every await is replayed; `both_ways` has both."""
    return False


@pytest.fixture
def running(perdure_harness: HarnessFactory, page: ModuleType, always_replay: bool) -> Running:
    """Run the page's application while the block lasts; yields a client."""

    @asynccontextmanager
    async def run(*, disable_retries: bool = False) -> AsyncIterator[Client]:
        application = page.application
        async with perdure_harness(application, always_replay=always_replay, disable_retries=disable_retries) as env:
            yield env.client

    return run
