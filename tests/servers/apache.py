"""Apache Kafka from its Maven artifacts (KRaft, one node) and the Redis of the operating system: the second lane.

Kafka's jars are fetched once into `.servers/` at the root of the repository; nothing is installed on the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from perdure.schemas.errors import ServerProcessError
from perdure.worker.clock import system_random
from perdure.worker.embedded import redis_arguments
from perdure.worker.server_process import HOST, KAFKA_PROBE, REDIS_PROBE, ServerProcess, free_port

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
    "redis-server": "Redis >= 7.0 (Debian: apt-get install redis-server, macOS: brew install redis)",
}


def missing_programs() -> list[str]:
    """Return, for each program this lane lacks, how to get it; empty when the lane can run."""
    needed = ["java", "redis-server"] if KAFKA_DIR.exists() else ["java", "mvn", "redis-server"]
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


def apache_kafka(directory: Path, *, advertised_port: int | None = None) -> ServerProcess:
    """Return a formatted Kafka that is not started yet; topics and offsets in `directory` survive its restarts.

    Args:
        directory: For its data and its log.
        advertised_port: Where clients are told that it is: a proxy's, or its own.
    """
    generator = system_random()
    port, controller_port = free_port(generator), free_port(generator)
    properties = directory / "server.properties"
    directory.mkdir(parents=True, exist_ok=True)
    ports = _Ports(port, controller_port, advertised_port or port)
    properties.write_text(_server_properties(directory / "data", ports))
    format_storage(properties, CLUSTER_ID)
    return ServerProcess(
        f"Apache Kafka {KAFKA_VERSION}",
        [*java(), "kafka.Kafka", str(properties)],
        port=port,
        probe=KAFKA_PROBE,
        log_path=directory / "kafka.log",
    )


def java() -> list[str]:
    """Return the start of a command that runs a class of Kafka."""
    return ["java", *JAVA_FLAGS, "-cp", f"{KAFKA_DIR}/*"]


def format_storage(properties: Path, cluster_id: str) -> None:
    """Make a node's folder for KRaft; one that is made for the same cluster is left alone.

    Raises:
        ServerProcessError: Kafka refused; the message holds what it said.
    """
    command = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id, "-c", str(properties)]
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


class _Ports(NamedTuple):
    broker: int
    controller: int
    advertised: int


def _server_properties(data: Path, ports: _Ports) -> str:
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{ports.controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{ports.broker},CONTROLLER://{HOST}:{ports.controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports.advertised}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(data),
        # Topics are made on purpose, with the partitions that they should have.
        "auto.create.topics.enable": "false",
        # One node holds everything; few internal partitions start and load quickly.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # A group of one need not wait for others, and a killed member is noticed within a test's deadline.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # The default buffer of 128 MB is a quarter of the heap; nothing here is compacted but offsets.
        "log.cleaner.dedupe.buffer.size": "4194304",
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
