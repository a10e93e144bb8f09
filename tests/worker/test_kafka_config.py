"""Settings whose order matters are refused by name when it is wrong."""

from __future__ import annotations

import pytest

from perdure.schemas.errors import SettingsError
from perdure.worker.kafka_config import KafkaConfig, KafkaSecurity


def test_the_defaults_are_in_order() -> None:
    """Two heartbeats may be lost, and a listener leaves the group time to join."""
    config = KafkaConfig("localhost:9092", "group")
    assert 3 * config.heartbeat_interval_ms <= config.session_timeout_ms
    assert config.commit_timeout_ms < config.listener_timeout_ms < config.rebalance_timeout_ms


@pytest.mark.parametrize(("session_ms", "heartbeat_ms"), [(1, 1), (600, 200), (10_000, 300), (300_000, 300)])
def test_a_rebalance_is_heard_of_soon(session_ms: int, heartbeat_ms: int) -> None:
    """However long a worker may be silent before it is taken for dead."""
    assert KafkaConfig("localhost:9092", "g", session_timeout_ms=session_ms).heartbeat_interval_ms == heartbeat_ms


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("commit_timeout_ms", 10_000),
        ("rebalance_timeout_ms", 30_000),
        ("request_timeout_ms", 60_000),
        ("stuck_after_ms", 30_000),
        ("fetch_max_wait_ms", 30_000),
        ("session_timeout_ms", 0),
    ],
)
def test_timeouts_out_of_order(setting: str, value: int) -> None:
    """The message names the settings that contradict each other."""
    with pytest.raises(SettingsError, match=setting if value else "at least 1 ms"):
        KafkaConfig("localhost:9092", "group", **{setting: value})  # type: ignore[arg-type] # one name at a time


def test_security_that_is_not_complete() -> None:
    """SASL without a password, or a key without its certificate, is refused before anything connects."""
    with pytest.raises(SettingsError, match="user name and password"):
        KafkaSecurity(protocol="SASL_SSL", sasl_username="me")
    with pytest.raises(SettingsError, match="certificate"):
        KafkaSecurity(protocol="SSL", key_file="key.pem")


def test_passwords_are_not_shown() -> None:
    """Neither password is in what a log or a traceback prints."""
    security = KafkaSecurity(protocol="SASL_SSL", sasl_username="me", sasl_password="s3cret", key_password="s3cret")
    assert "s3cret" not in repr(KafkaConfig("localhost:9092", "group", security=security))
