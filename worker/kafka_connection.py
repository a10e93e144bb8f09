"""What each client of Kafka's is told of its connection, and the words for what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.schemas.errors import BrokerError

from .broker import Outgoing
from .kafka_config import METADATA_AGE_MS_MAX, KafkaConfig
from .kafka_tls import tls_context


class UnreadableRecordsError(BrokerError):
    """Something fetched could not be decoded; other partitions may have lost records: fetch from the commits again."""

    @classmethod
    def of(cls, error: Exception) -> UnreadableRecordsError:
        """Say what became of the bytes."""
        return cls(
            f"Kafka's records cannot be decoded: {error!r}. If they are compressed with snappy, lz4 or zstd, install "
            "the package cramjam; otherwise look at the record at the committed offset."
        )


def connection(config: KafkaConfig, *, request_timeout_ms: int) -> dict[str, Any]:
    """Return the arguments that aiokafka's clients have in common.

    Raises:
        SettingsError: A TLS file is missing or is not what it should be.
    """
    security = config.security
    return {
        "bootstrap_servers": config.bootstrap_servers,
        "client_id": config.client_id,
        "request_timeout_ms": request_timeout_ms,
        "metadata_max_age_ms": METADATA_AGE_MS_MAX,
        "security_protocol": security.protocol,
        "ssl_context": tls_context(security) if security.protocol.endswith("SSL") else None,
        "sasl_mechanism": security.sasl_mechanism,
        "sasl_plain_username": security.sasl_username,
        "sasl_plain_password": security.sasl_password,
    }


def too_large(outgoing: Sequence[Outgoing], config: KafkaConfig) -> str:
    """Name the largest of some records, and the limits that it may be over."""

    def size(record: Outgoing) -> int:
        headers = sum(len(name) + len(value or b"") for name, value in record.headers)
        return len(record.key or b"") + len(record.value or b"") + headers

    largest = max(outgoing, key=size)
    return (
        f"A record of about {size(largest)} bytes for {largest.topic} is over a limit: the producer takes "
        f"request_bytes_max = {config.request_bytes_max} bytes, the topic its max.message.bytes. Make the record "
        "smaller, or raise both."
    )


def is_closed_by_the_loop(error: RuntimeError) -> bool:
    """Whether uvloop says so that a connection has ended, which it tells its reader in the next turn.

    aiokafka expects an `OSError` of what it writes to, and lets this one out of whichever task was writing.
    """
    return "the handler is closed" in str(error)


def failure(action: str, timeout_ms: int, error: Exception) -> BrokerError:
    """What to raise where `error` ended a call that is bounded in time."""
    if isinstance(error, TimeoutError):
        return BrokerError(f"Could not {action} within {timeout_ms} ms. Look at the brokers' health.")
    return BrokerError(f"Could not {action}: {error!r}. Look at the brokers' health and access rules.")


def unread(error: Exception) -> BrokerError:
    """What to raise where `error` came of reading, and aiokafka has no name for it."""
    if isinstance(error, RuntimeError) and is_closed_by_the_loop(error):
        return BrokerError(f"Kafka's records cannot be read: {error!r}. The consumer is replaced.")
    return UnreadableRecordsError.of(error)
