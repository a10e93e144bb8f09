"""Apache Kafka from its Maven artifacts (KRaft, one node) and the Redis of the operating system: the second lane.

Kafka's jars are fetched once into `.servers/` at the root of the repository; nothing is installed on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from perdure.schemas.errors import ServerProcessError
from perdure.worker.clock import system_random
from perdure.worker.embedded import redis_arguments
from perdure.worker.server_process import HOST, KAFKA_PROBE, REDIS_PROBE, ServerProcess, free_port

from .certificates import Authority

KAFKA_VERSION = "4.1.0"
MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
ROOT = Path(__file__).resolve().parents[2]
KAFKA_DIR = ROOT / ".servers" / f"kafka-{KAFKA_VERSION}"

# Any 16 bytes in base64; one cluster a directory, so that it need not be unique.
CLUSTER_ID = "perdure-test-servers-A"

# Java's flags: little memory, and the compiler that is quickest to warm up on a machine shared with the tests.
JAVA_FLAGS = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]

INSTALL = {
    "java": "a Java runtime >= 17 (Debian: apt-get install openjdk-17-jre-headless, macOS: brew install openjdk)",
    "mvn": "Maven (Debian: apt-get install maven, macOS: brew install maven), once, to fetch Kafka's jars",
    "openssl": "OpenSSL, for certificates (Debian: apt-get install openssl, macOS: it is there)",
    "redis-server": "Redis >= 7.0 (Debian: apt-get install redis-server, macOS: brew install redis)",
}


def missing_programs() -> list[str]:
    """Return, for each program this lane lacks, how to get it; empty when the lane can run."""
    needed = ["java", "openssl", "redis-server"]
    if not KAFKA_DIR.exists():
        needed.append("mvn")
    return [INSTALL[program] for program in needed if shutil.which(program) is None]


def fetch_kafka() -> None:
    """Put Kafka's jars into `.servers/`, at once or not at all. Does nothing when they are there.

    Raises:
        ServerProcessError: Maven failed; the message holds the end of what it said.
    """
    if KAFKA_DIR.exists():
        return
    KAFKA_DIR.parent.mkdir(exist_ok=True)
    fetched = Path(tempfile.mkdtemp(dir=KAFKA_DIR.parent))
    pom = Path(__file__).with_name("pom.xml")
    copy = [f"{MAVEN_PLUGIN}:copy-dependencies", f"-DoutputDirectory={fetched}", "-DincludeScope=runtime"]
    maven = subprocess.run(
        ["mvn", "-q", "-B", "-f", str(pom), f"-Dkafka.version={KAFKA_VERSION}", *copy],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if maven.returncode != 0:
        shutil.rmtree(fetched)
        raise ServerProcessError(f"Maven could not fetch Kafka {KAFKA_VERSION}:\n{maven.stdout[-2000:]}{maven.stderr}")
    try:
        os.rename(fetched, KAFKA_DIR)
    except OSError:
        # Another run was quicker; its jars are the same.
        shutil.rmtree(fetched)


def apache_kafka(
    directory: Path,
    *,
    advertised_port: int | None = None,
    security: KafkaLock | None = None,
    rules: bool = False,
) -> ServerProcess:
    """Return a formatted Kafka that is not started yet; topics and offsets in `directory` survive its restarts.

    Args:
        directory: For its data, its settings and its log.
        advertised_port: Where clients are told that it is: a proxy's, or its own.
        security: A further listener that is locked.
        rules: Whether whoever comes in there may do only what rules allow (`kafka_rules.allow`).
    """
    changes = {} if advertised_port is None else {"advertised.listeners": f"PLAINTEXT://{HOST}:{advertised_port}"}
    if rules:
        changes["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        # Who comes by the open door, as the controller does.
        changes["super.users"] = "User:ANONYMOUS"
    (broker,) = apache_kafkas(directory, count=1, security=security, changes=changes)
    return broker


def apache_kafkas(
    directory: Path,
    *,
    count: int,
    security: KafkaLock | None = None,
    flags: Sequence[str] | None = None,
    changes: Mapping[str, str] = MappingProxyType({}),
) -> list[ServerProcess]:
    """Return a cluster of formatted Kafkas, each broker and controller, that are not started yet.

    Args:
        directory: For their data, settings and logs.
        count: How many; topics get as many copies, and with more than two all but one of them must have a record.
        security: A further listener of the first one that is locked.
        flags: Java's, in the place of `JAVA_FLAGS`.
        changes: Of their settings.
    """
    generator = system_random()
    ports = [(free_port(generator), free_port(generator)) for _ in range(count)]
    voters = ",".join(f"{node}@{HOST}:{controller}" for node, (_, controller) in enumerate(ports, 1))
    brokers = []
    for node, (port, controller) in enumerate(ports, 1):
        folder = directory if count == 1 else directory / f"broker-{node}"
        folder.mkdir(parents=True, exist_ok=True)
        settings = _server_settings(folder / "data", node=node, port=port, controller_port=controller, copies=count)
        settings |= {"controller.quorum.voters": voters, **changes}
        if security is not None and node == 1:
            settings = security.added_to(settings, folder)
        properties = folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        format_storage(properties, CLUSTER_ID, *(() if security is None else security.credentials()))
        brokers.append(
            ServerProcess(
                f"Apache Kafka {KAFKA_VERSION}",
                [*java(flags), "kafka.Kafka", str(properties)],
                port=port,
                probe=KAFKA_PROBE,
                log_path=folder / "kafka.log",
            )
        )
    return brokers


@dataclass(frozen=True, slots=True)
class KafkaLock:
    """A listener for SASL_SSL, and who may log in there.

    Attributes:
        port: Where it listens.
        certificate: PEM file of the broker.
        key: PEM file, too.
        users: Passwords by user; SCRAM-SHA-256 and SCRAM-SHA-512.
    """

    port: int
    certificate: Path
    key: Path
    users: Mapping[str, str]

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"{HOST}:{self.port}"

    def credentials(self) -> list[str]:
        """Arguments with which storage is formatted."""
        return [
            argument
            for user, password in self.users.items()
            for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{kind}=[name={user},password={password}]")
        ]

    def added_to(self, settings: Mapping[str, str], folder: Path) -> dict[str, str]:
        """The settings of a broker with this listener beside its own."""
        store = folder / "keystore.pem"
        store.write_text(self.key.read_text() + self.certificate.read_text())
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        added = {
            "listeners": f"{settings['listeners']},SASL_SSL://{self.address}",
            "advertised.listeners": f"{settings['advertised.listeners']},SASL_SSL://{self.address}",
            "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.sasl_ssl.ssl.keystore.type": "PEM",
            "listener.name.sasl_ssl.ssl.keystore.location": str(store),
        }
        return {**settings, **added}


@contextlib.asynccontextmanager
async def locked_kafka(
    authority: Authority, directory: Path, *, users: Mapping[str, str], rules: bool = False
) -> AsyncIterator[tuple[ServerProcess, KafkaLock]]:
    """Run a broker with a lock while the block runs; its own listener stays an open door beside.

    Args:
        authority: Issues the broker's certificate.
        directory: For its data and log.
        users: Passwords by user.
        rules: Whether they may do only what rules allow.
    """
    certificate, key = authority.issue("broker")
    lock = KafkaLock(free_port(system_random()), certificate, key, users)
    broker = await asyncio.to_thread(apache_kafka, directory, security=lock, rules=rules)
    await broker.start()
    try:
        yield broker, lock
    finally:
        await broker.kill()


def java(flags: Sequence[str] | None = None) -> list[str]:
    """Return the start of a command that runs a class of Kafka."""
    return ["java", *(JAVA_FLAGS if flags is None else flags), "-cp", f"{KAFKA_DIR}/*"]


def format_storage(properties: Path, cluster_id: str, *credentials: str) -> None:
    """Make a node's folder for KRaft; one that is made for the same cluster is left alone.

    Raises:
        ServerProcessError: Kafka refused; the message holds what it said.
    """
    command = [
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        "-t",
        cluster_id,
        "-c",
        str(properties),
        *credentials,
    ]
    tool = subprocess.run([*java(), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if tool.returncode != 0:
        raise ServerProcessError(f"Kafka could not format its storage by {properties}:\n{tool.stdout}{tool.stderr}")


def debian_redis(directory: Path) -> ServerProcess:
    """Return a `redis-server` that is not started yet and keeps its data in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port(system_random())
    return ServerProcess(
        "redis-server",
        ["redis-server", *redis_arguments(directory, port=port)],
        port=port,
        probe=REDIS_PROBE,
        log_path=directory / "redis.log",
    )


def _server_settings(data: Path, *, node: int, port: int, controller_port: int, copies: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(data),
        # Topics are made on purpose, with the partitions that they should have.
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(max(1, copies - 1)),
        # Few internal partitions start and load quickly.
        "offsets.topic.replication.factor": str(copies),
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # A group of one need not wait for others, and a killed member is noticed within a test's deadline.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker, likewise; a copy of it that is behind counts no more.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "replica.lag.time.max.ms": "3000",
        # The default buffer of 128 MB is a quarter of the heap; nothing here is compacted but offsets.
        "log.cleaner.dedupe.buffer.size": "4194304",
    }
