"""The TLS side of a Kafka connection, from PEM files."""

from __future__ import annotations

import ssl

from perdure.schemas.errors import SettingsError

from .kafka_config import KafkaSecurity


def tls_context(security: KafkaSecurity) -> ssl.SSLContext:
    """Read the files that `security` names; without `ca_file` the system's authorities are trusted.

    Raises:
        SettingsError: A file is missing or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=security.ca_file)
        context.check_hostname = security.check_hostname
        if security.cert_file:
            context.load_cert_chain(security.cert_file, security.key_file, security.key_password)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"Kafka's TLS files cannot be used: {error}. Check ca_file, cert_file, key_file and key_password."
        ) from error
    return context
