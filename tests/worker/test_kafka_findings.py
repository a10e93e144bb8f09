"""What the doctor says of a Kafka that cannot be reached as it is told to, and what mends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.schemas.errors import BrokerError
from perdure.worker.kafka_findings import examine_kafka, mend_of
from perdure.worker.server_process import ServerProcess
from perdure.worker.settings import Settings
from tests.servers.apache import KafkaLock, locked_kafka
from tests.servers.certificates import Authority, new_authority

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

PASSWORD = "secret-for-tests"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody trusts yet."""
    return new_authority(tmp_path / "authority")


@pytest.fixture
async def locked(authority: Authority, tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, KafkaLock]]:
    """Start a broker that is locked, and has an open door beside."""
    async with locked_kafka(authority, tmp_path / "kafka", users={"perdure": PASSWORD}) as made:
        yield made


async def test_each_way_not_to_get_in_is_told_apart(
    locked: tuple[ServerProcess, KafkaLock], authority: Authority, tmp_path: Path
) -> None:
    """Authority, name, login, mechanism, a port of another protocol: each with the setting that mends it."""
    broker, lock = locked
    right = {
        "bootstrap_servers": lock.address,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "SCRAM-SHA-256",
        "kafka_sasl_username": "perdure",
        "kafka_sasl_password": PASSWORD,
        "kafka_ssl_cafile": str(authority.ca_file),
    }

    said: list[str] = []

    async def mend(**changes: str) -> str:
        try:
            findings = await examine_kafka(Settings.load(**(right | changes)), None, target="m:a")
        except BrokerError as error:
            said.append(str(error))
            return mend_of(error)
        return "" if all(finding.level == "ok" for finding in findings) else "?"

    assert await mend() == ""
    other = new_authority(tmp_path / "other")
    assert "PERDURE_KAFKA_SSL_CAFILE" in await mend(kafka_ssl_cafile=str(other.ca_file))
    assert "as their certificates do" in await mend(bootstrap_servers=f"localhost:{lock.port}")
    assert "PERDURE_KAFKA_SASL_PASSWORD" in await mend(kafka_sasl_password="another")
    assert "PERDURE_KAFKA_SASL_MECHANISM" in await mend(kafka_sasl_mechanism="PLAIN")
    assert "PERDURE_KAFKA_SECURITY_PROTOCOL" in await mend(kafka_security_protocol="PLAINTEXT")
    assert "PERDURE_KAFKA_SECURITY_PROTOCOL" in await mend(bootstrap_servers=broker.address)
    assert not any(PASSWORD in each for each in said)
