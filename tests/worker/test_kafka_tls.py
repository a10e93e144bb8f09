"""TLS files are read when a client is made, and what is wrong with them is said."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from perdure.schemas.errors import SettingsError
from perdure.worker.kafka_config import KafkaSecurity
from perdure.worker.kafka_tls import tls_context


def test_without_files_the_systems_authorities_are_trusted() -> None:
    """Certificates are verified unless told otherwise, host names too."""
    context = tls_context(KafkaSecurity(protocol="SSL"))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not tls_context(KafkaSecurity(protocol="SSL", check_hostname=False)).check_hostname


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """A missing file and one that is no certificate are errors of the settings."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for security in (
        KafkaSecurity(protocol="SSL", ca_file=str(tmp_path / "missing.pem")),
        KafkaSecurity(protocol="SSL", ca_file=str(nonsense)),
        KafkaSecurity(protocol="SSL", cert_file=str(nonsense), key_file=str(nonsense)),
    ):
        with pytest.raises(SettingsError, match="TLS files cannot be used"):
            tls_context(security)
