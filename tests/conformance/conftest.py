"""The matrix: plainly and with a replay at every wait, on one worker and on three; deployments are shared."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from perdure.worker.clock import system_random
from tests.conftest import NAMESPACE_LETTERS
from tests.integration.conftest import quick_settings
from tests.servers.lane import Servers

from .catalogue import scenarios_of
from .deployed import CHOSEN_POINTS, Deployed, Point, deploy
from .report import Result, write_results

HERE = Path(__file__).parent

_POINT = re.compile(r"\b(plain|replay)-[0-9]\b")
_results: list[Result] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember for the page what became of a scenario at a point."""
    report = yield
    scenarios = scenarios_of(getattr(item, "function", None))
    point = _POINT.search(item.name)
    if scenarios and point and not report.skipped and (report.when == "call" or report.failed):
        _results.append(Result(scenarios, point[0], report.passed))
    return report


def pytest_sessionfinish() -> None:
    """Hand over what was found."""
    write_results(_results)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep a point's scenarios in one process, where two share a run: each deployment is started once."""
    if _is_of_matrix(item):
        item.add_marker(pytest.mark.xdist_group(_point(item)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the matrix last, point by point: nobody else's loop runs while its workers do."""
    ours = [item for item in items if item.path.is_relative_to(HERE) and _is_of_matrix(item)]
    if not ours:
        return
    for item in ours:
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    rest = [item for item in items if item not in set(ours)]
    points = list(dict.fromkeys(_point(item) for item in ours))
    items[:] = [*rest, *sorted(ours, key=lambda item: points.index(_point(item)))]


def _is_of_matrix(item: pytest.Item) -> bool:
    return "deployed" in getattr(item, "fixturenames", ())


def _point(item: pytest.Item) -> str:
    return str(item.callspec.params["deployed"])  # type: ignore[attr-defined] # those with the fixture have it


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=CHOSEN_POINTS, ids=str, name="deployed")
async def _deployed(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Deployed]:
    """The deployment of one point of the matrix, shared by its scenarios."""
    point: Point = request.param
    namespace = "c" + "".join(system_random().choices(NAMESPACE_LETTERS, k=6))
    several = point.workers > 1
    settings = quick_settings(
        servers.redis_url,
        servers.bootstrap_servers,
        namespace,
        always_replay=point.always_replay,
        kafka_assignment="group" if several else "manual",
        kafka_session_timeout_ms=1_500,
        topic_partitions=3 if several else 1,
    )
    async with deploy(settings, point) as made:
        yield made
