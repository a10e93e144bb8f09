"""Reading a Redis URL: `perdure.journal.redis_config`."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from perdure.journal.redis_config import RedisConfig, mask_url
from perdure.schemas.errors import SettingsError


def test_every_part_of_a_url_is_read() -> None:
    """User, password, host, port and database come out unescaped; what is left out has Redis's defaults."""
    config = RedisConfig.from_url("redis://us%40er:p%3Aw%2F@cache.example:6380/3")
    assert (config.host, config.port, config.db) == ("cache.example", 6380, 3)
    assert (config.username, config.password) == ("us@er", "p:w/")
    assert RedisConfig.from_url("redis://") == RedisConfig()
    assert RedisConfig.from_url("redis://:only@h").username is None
    assert RedisConfig.from_url("redis://[::1]:7/?db=2").address == "[::1]:7/2"


def test_tls_options_are_read() -> None:
    """`rediss://` verifies against the system's authorities unless it is told otherwise."""
    plain = RedisConfig.from_url("rediss://h")
    assert plain.tls
    assert plain.tls_check_hostname
    context = plain.ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    lax = RedisConfig.from_url("rediss://h?ssl_cert_reqs=none").ssl_context()
    assert lax is not None
    assert lax.verify_mode is ssl.CERT_NONE
    assert not lax.check_hostname
    named = RedisConfig.from_url("rediss://h?ssl_check_hostname=false&ssl_certfile=c&ssl_keyfile=k&ssl_ca_certs=a")
    assert (named.tls_cert_file, named.tls_key_file, named.tls_ca_file) == ("c", "k", "a")
    assert not named.tls_check_hostname
    assert named.tls_verify
    assert RedisConfig.from_url("redis://h").ssl_context() is None


def test_certificate_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    """The message says which files of the URL cannot be used."""
    missing = tmp_path / "missing.pem"
    with pytest.raises(SettingsError, match=r"missing\.pem"):
        RedisConfig.from_url(f"rediss://h?ssl_ca_certs={missing}").ssl_context()


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "localhost:6379",
        "redis://h:port",
        "redis://h/names",
        "redis://h?ssl_cert_reqs=none",
        "rediss://h?ssl_cert_reqs=maybe",
        "rediss://h?ssl_check_hostname=maybe",
        "redis://h?socket_timeout=1",
        "redis://user:secret@[h",
    ],
)
def test_what_is_not_understood_is_refused_and_not_shown(url: str) -> None:
    """A URL that would be misread is an error that does not repeat it."""
    with pytest.raises(SettingsError) as refused:
        RedisConfig.from_url(url)
    assert url not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_passwords_are_masked() -> None:
    """Neither the config's `repr` nor a masked URL holds the password."""
    assert "secret" not in repr(RedisConfig.from_url("redis://user:secret@h"))
    assert "secret" not in RedisConfig.from_url("redis://user:secret@h").address
    assert mask_url("redis://user:secret@h:1/2") == "redis://user:***@h:1/2"
    assert mask_url("redis://:secret@h") == "redis://:***@h"
    assert mask_url("redis://h:1") == "redis://h:1"
    assert mask_url("secret") == "***"
    assert mask_url("redis://user:secret@[h") == "***"
