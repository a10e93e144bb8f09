"""What the environment says: `perdure.worker.settings`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from perdure.schemas.errors import SettingsError
from perdure.worker.settings import Settings, settings_page, unknown_variables, variable

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
SECRET = "hunter2secret"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test from the defaults."""
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


def test_defaults_are_ready_to_use() -> None:
    """Without any variable there are settings for servers on this machine."""
    settings = Settings.load()
    assert settings.namespace == "perdure"
    assert (settings.redis_config.host, settings.redis_config.port) == ("localhost", 6379)
    assert settings.kafka_config(client_id="me").bootstrap_servers == "localhost:9092"
    assert settings.kafka_config(client_id="me").client_id == "me"


def test_variables_are_read_and_flags_come_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable sets a field, a flag that was given wins, and one that was not given does not."""
    monkeypatch.setenv("PERDURE_CONCURRENCY", "7")
    monkeypatch.setenv("PERDURE_LEASE_S", "2.5")
    settings = Settings.load(concurrency=9, lease_s=None)
    assert settings.concurrency == 9
    assert settings.lease_s == 2.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PERDURE_SLOTS", "1025"),
        ("PERDURE_SLOTS", "many"),
        ("PERDURE_CONCURRENCY", "0"),
        ("PERDURE_NAMESPACE", "a.b"),
        ("PERDURE_NAMESPACE", "x" * 41),
        ("PERDURE_REQUIRE_DURABLE_REDIS", "perhaps"),
        ("PERDURE_KAFKA_ASSIGNMENT", "magic"),
        ("PERDURE_REDIS_URL", "http://localhost"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable that has to be mended."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        Settings.load()


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes take one run to find."""
    monkeypatch.setenv("PERDURE_SLOTS", "0")
    monkeypatch.setenv("PERDURE_REPLICAS", "-1")
    with pytest.raises(SettingsError, match=r"(?s)PERDURE_SLOTS.*1 to 1024.*PERDURE_REPLICAS.*0 to 16"):
        Settings.load()


def test_kafka_settings_that_do_not_go_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """SASL without a user is found before anything is connected."""
    monkeypatch.setenv("PERDURE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(SettingsError, match=r"PERDURE_KAFKA_.*user name and password"):
        Settings.load()


def test_an_unknown_flag_is_refused() -> None:
    """A setting that does not exist is not silently dropped."""
    with pytest.raises(SettingsError, match="no setting 'slot'"):
        Settings.load(slot=4)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `repr` nor an error holds a password, and the objects made for the clients hide it, too."""
    monkeypatch.setenv("PERDURE_REDIS_URL", f"redis://user:{SECRET}@host:1/2")
    monkeypatch.setenv("PERDURE_KAFKA_SASL_PASSWORD", SECRET)
    settings = Settings.load(
        kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_username="me", kafka_ssl_cafile="/nowhere"
    )
    shown = f"{settings!r} {settings} {settings.redis_config!r} {settings.kafka_config()!r} {settings.redis_url_masked}"
    assert SECRET not in shown
    assert settings.redis_url_masked == "redis://user:***@host:1/2"
    assert settings.redis_config.password == SECRET
    assert settings.kafka_config().security.sasl_password == SECRET
    monkeypatch.setenv("PERDURE_REDIS_URL", f"redis://user:{SECRET}@host:port")
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    assert SECRET not in str(refused.value)
    with pytest.raises(ValidationError) as raw:
        Settings.model_validate({"slots": 0, "kafka_sasl_password": SECRET})
    assert SECRET not in str(raw.value)


def test_settings_travel_to_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the default becomes variables, from which a child reads the same settings."""
    settings = Settings.load(
        namespace="shop", redis_url=f"redis://:{SECRET}@h", require_durable_redis=False, lease_s=3.5, worker_id="w1"
    )
    variables = settings.environment()
    assert "PERDURE_SLOTS" not in variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_unknown_variables_are_pointed_out() -> None:
    """A typo in a variable's name is found, and the test suite's own variables are not meant."""
    names = ["PERDURE_CONCURENCY", "PERDURE_TEST_SERVERS", "PATH", "PERDURE_SLOTS", "PERDURE_QQQQQQ"]
    concurrency, odd = unknown_variables(names)
    assert "did you mean PERDURE_CONCURRENCY?" in concurrency
    assert "PERDURE_QQQQQQ" in odd
    assert "remove it" in odd


def test_the_page_is_current() -> None:
    """docs/settings.md is what the module prints, and every setting is described in it."""
    printed = subprocess.run(
        [sys.executable, "-m", "perdure.worker.settings"], check=True, capture_output=True, text=True
    ).stdout
    assert printed == settings_page()
    assert PAGE.read_text() == printed, "run: python -m perdure.worker.settings > docs/settings.md"
    for name, field in Settings.model_fields.items():
        assert f"`{variable(name)}`" in printed
        assert field.description
