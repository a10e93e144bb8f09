"""Fixtures for the whole suite: the lane's servers, a namespace per test, private servers to break, waiting."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from perdure.testing import ServerAddresses
from perdure.worker.clock import system_random
from perdure.worker.harness import NAMESPACE_PREFIX
from perdure.worker.server_process import ServerProcess

from .servers import lane
from .servers.lane import Servers
from .servers.leavings import delete_topics
from .waiting import wait_until

# Property tests have their own measure of patience: examples, not milliseconds, because CI machines stall.
settings.register_profile("dev", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

SERVER_FIXTURES = frozenset({"servers", "bootstrap_servers", "redis_url", "private_redis", "private_broker"})
_BROKER = pytest.StashKey[str]()
_NAMESPACES = pytest.StashKey[list[str]]()
NAMESPACE_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"

__all__ = ["wait_until"]


def pytest_report_header() -> str:
    """Name the lane and the versions of its servers."""
    return lane.describe()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what uses a server, so that the second lane runs that and no more; leave what needs it to that lane.

    Where two processes share a run, the tests of a file stay together, as do the fixtures that it makes once.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
        if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("touches_servers")
    if lane.LANE == "embedded":
        elsewhere = [item for item in items if item.get_closest_marker("servers")]
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if not item.get_closest_marker("servers")]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fetch the lane's servers where several processes, which would get in each other's way, will want them."""
    if session.config.getoption("numprocesses", None):
        lane.prepare()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch the lane's servers before the first test, whose deadline is for the test."""
    touched = any(item.get_closest_marker(name) for item in session.items for name in ("touches_servers", "servers"))
    if touched and not session.config.option.collectonly:
        lane.prepare()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Servers]:
    """Start the lane's Redis and Kafka once, for all tests."""
    directory = tmp_path_factory.mktemp("servers")
    redis = await lane.new_redis(directory / "redis")
    try:
        broker = await lane.new_broker(directory / "broker")
        pytestconfig.stash[_BROKER] = broker.address
        try:
            yield Servers(redis=redis, broker=broker)
        finally:
            del pytestconfig.stash[_BROKER]
            await broker.stop()
    finally:
        await redis.stop()


@pytest.fixture(scope="session")
def perdure_servers(servers: Servers) -> ServerAddresses:
    """Where harnesses of this suite run: on the lane's servers."""
    return ServerAddresses(servers.redis_url, servers.bootstrap_servers, embedded=lane.LANE == "embedded")


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """URL of the session's Redis."""
    return servers.redis_url


@pytest.fixture
def bootstrap_servers(servers: Servers) -> str:
    """Address of the session's Kafka."""
    return servers.bootstrap_servers


@pytest.fixture
async def private_redis(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """Start a Redis of this test's own, to kill, restart, pause and resume; its URL is `redis://` + `address`."""
    server = await lane.new_redis(tmp_path / "private_redis")
    yield server
    await server.kill()


@pytest.fixture
async def private_broker(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """Start a broker of this test's own, to kill, restart, pause and resume; `address` is its bootstrap server."""
    server = await lane.new_broker(tmp_path / "private_broker")
    yield server
    await server.kill()


@pytest.fixture(scope="module", autouse=True)
def _topics_go_with_their_file(pytestconfig: pytest.Config) -> Iterator[None]:
    """Take back the topics that a file's tests left in their namespaces, and harnesses in theirs."""
    used = pytestconfig.stash[_NAMESPACES] = [NAMESPACE_PREFIX]
    yield
    if _BROKER in pytestconfig.stash:
        delete_topics(pytestconfig.stash[_BROKER], used)


@pytest.fixture
def namespace(pytestconfig: pytest.Config) -> str:
    """Return a short name that no other test uses, such as `t3f9k2`."""
    name = "t" + "".join(system_random().choices(NAMESPACE_LETTERS, k=6))
    pytestconfig.stash[_NAMESPACES].append(name)
    return name


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., Awaitable[None]]:
    """Return `tests.waiting.wait_until`, for those who would rather not import it."""
    return wait_until
