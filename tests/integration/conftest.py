"""Fixtures of the engine's tests: a namespace of one's own on the lane's servers, plainly and replayed."""

from __future__ import annotations

import pytest

from perdure.worker.settings import Settings
from tests.integration.deployment import Deployment


def quick_settings(redis_url: str, bootstrap_servers: str, namespace: str, **changes: object) -> Settings:
    """Settings with which a test has to wait for little; one worker that takes all partitions."""
    chosen: dict[str, object] = {
        "redis_url": redis_url,
        "bootstrap_servers": bootstrap_servers,
        "namespace": namespace,
        "kafka_assignment": "manual",
        "kafka_fetch_max_wait_ms": 10,
        "topic_partitions": 2,
        "slots": 8,
        "lease_s": 2.0,
        "grace_s": 5.0,
    }
    return Settings.load(**(chosen | changes))


@pytest.fixture
def plain(redis_url: str, bootstrap_servers: str, namespace: str) -> Deployment:
    """A deployment whose attempts stay in memory while they can."""
    return Deployment(quick_settings(redis_url, bootstrap_servers, namespace))


@pytest.fixture(params=["plain", "always_replay"])
def deployment(request: pytest.FixtureRequest, redis_url: str, bootstrap_servers: str, namespace: str) -> Deployment:
    """A deployment; each test runs plainly, and once more with attempts that leave after each result."""
    replay = request.param == "always_replay"
    return Deployment(quick_settings(redis_url, bootstrap_servers, namespace, always_replay=replay))
