"""What `deploy/` and `compose.yaml` say is valid, and true where a server can be asked; needs no container engine."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import yaml

from perdure.worker.clock import system_random
from perdure.worker.server_process import KAFKA_PROBE, REDIS_PROBE, ServerProcess, free_port
from perdure.worker.settings import Settings, unknown_variables
from perdure.worker.topics import service_topic
from tests.servers import apache, lane

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
KUBERNETES: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))

# A tag that moves is another server one day: at least major.minor.patch.
PINNED = re.compile(r"^[a-z/-]+:\d+\.\d+\.\d+(-[a-z]+)*$")


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of that name in the Dockerfile, in order."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def seconds(duration: str) -> int:
    """Return a compose duration such as `30s` as a number."""
    assert re.fullmatch(r"\d+s", duration)
    return int(duration[:-1])


def run_tool(*command: str) -> None:
    """Run a validator that stands beside this Python; what it says is the failure's message."""
    tool = Path(sys.executable).with_name(command[0])
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_follows_its_schema() -> None:
    """`compose.yaml` is valid by the Compose specification."""
    run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_the_dockerfile_passes_its_linter() -> None:
    """hadolint, with shellcheck inside, has nothing to say."""
    run_tool("hadolint", "deploy/Dockerfile")


def test_images_are_pinned() -> None:
    """No image follows a moving tag."""
    images = [service["image"] for service in SERVICES.values()]
    images += [argument.split()[0] for argument in instructions("FROM")]
    assert [image for image in images if not PINNED.match(image)] == []


def test_the_image_does_not_run_as_root() -> None:
    """The user is a number other than 0, as Kubernetes' runAsNonRoot can check, and its folder is its own."""
    assert [int(user) > 0 for user in instructions("USER")] == [True]
    assert f"--uid {instructions('USER')[0]} " in DOCKERFILE
    assert f"install -d -o perdure {instructions('WORKDIR')[-1]}" in DOCKERFILE


def test_the_build_gets_what_it_copies() -> None:
    """Every source of a COPY exists and is not held back by the ignore file; the dependencies are the locked ones."""
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [argument.split()[:-1] for argument in instructions("COPY") if not argument.startswith("--from")]
    for source in (name for names in sources for name in names):
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore
    installs = [argument for argument in instructions("RUN") if "install" in argument and "pip" in argument]
    assert all("--constraint constraints.txt" in argument for argument in installs)


def test_a_worker_is_given_longer_than_its_grace() -> None:
    """SIGTERM is what stops it, and SIGKILL comes later than the worker needs to hand over what runs."""
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    worker = SERVICES["worker"]
    assert worker["deploy"]["replicas"] == 2
    assert seconds(worker["stop_grace_period"]) > int(worker["environment"]["PERDURE_GRACE_S"])


def test_only_settings_that_exist_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every PERDURE_ variable of compose and Kubernetes is a setting, and the worker takes their values."""
    environment: dict[str, str] = SERVICES["worker"]["environment"]
    environment |= {entry["name"]: entry["value"] for entry in kubernetes_container()["env"]}
    assert unknown_variables(environment) == []
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.bootstrap_servers, settings.grace_s) == ("kafka:19092", 20)


def test_kubernetes_agrees_with_compose() -> None:
    """Same image, same command, longer than the grace, not as root, and never scaled to nobody."""
    deployment, scaling = KUBERNETES
    pod = deployment["spec"]["template"]["spec"]
    container = kubernetes_container()
    assert (container["image"], container["args"]) == (SERVICES["worker"]["image"], SERVICES["worker"]["command"])
    assert pod["initContainers"][0]["args"] == SERVICES["topics"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(container["env"][0]["value"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert scaling["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaling["spec"]["minReplicaCount"] >= 1
    assert scaling["spec"]["maxReplicaCount"] <= Settings().topic_partitions
    trigger = scaling["spec"]["triggers"][0]["metadata"]
    assert trigger["topic"] == service_topic(trigger["consumerGroup"], "SubscriptionService")


def kubernetes_container() -> dict[str, Any]:
    """Return the worker's container of the Deployment."""
    container: dict[str, Any] = KUBERNETES[0]["spec"]["template"]["spec"]["containers"][0]
    return container


def test_everything_starts_after_what_it_needs() -> None:
    """Workers start when the topics are there and both servers are healthy; whatever stays up has a health check."""
    assert SERVICES["worker"]["depends_on"] == {
        "topics": {"condition": "service_completed_successfully"},
        "kafka": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
    }
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == {"kafka", "redis", "worker"}


def test_servers_without_a_password_are_open_to_this_machine_only() -> None:
    """Published ports are bound to loopback."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.touches_servers
async def test_redis_runs_with_our_configuration(tmp_path: Path) -> None:
    """The lane's Redis takes `deploy/redis.conf` as compose passes it, and then has every setting it names."""
    port = free_port(system_random())
    options = SERVICES["redis"]["command"][2:]
    replaced = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    server = ServerProcess(
        "Redis with deploy/redis.conf",
        [lane.redis_program(), str(DEPLOY / "redis.conf"), *options, *replaced],
        port=port,
        probe=REDIS_PROBE,
        log_path=tmp_path / "redis.log",
    )
    await server.start()
    try:
        async with redis.asyncio.Redis(port=port) as client:
            held = await client.config_get("*")
    finally:
        await server.stop()
    wanted = [line.split(maxsplit=1) for line in (DEPLOY / "redis.conf").read_text().splitlines() if line[:1].isalpha()]
    wanted_of = {name: {'""': "", "1gb": str(2**30)}.get(value, value) for name, value in wanted}
    assert {name: held[name] for name in wanted_of} == wanted_of
    assert (wanted_of["appendonly"], wanted_of["maxmemory-policy"]) == ("yes", "noeviction")


@pytest.mark.servers
async def test_the_health_check_of_redis_tells_up_from_down(private_redis: ServerProcess) -> None:
    """Compose's own command succeeds while Redis answers and fails when it does not."""
    shell = SERVICES["redis"]["healthcheck"]["test"][1].replace("$$", "$")
    command = shell.replace("redis-cli", f"redis-cli -p {private_redis.port}")
    assert await exit_code(command) == 0
    await private_redis.kill()
    assert await exit_code(command) != 0


async def exit_code(command: str) -> int:
    """Run a shell command quietly."""
    process = await asyncio.create_subprocess_shell(command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()


@pytest.mark.servers
async def test_kafka_runs_with_composes_configuration(tmp_path: Path) -> None:
    """Kafka of compose's version formats its storage, twice as after a restart, and serves with these settings.

    The image turns `KAFKA_A_B` into the property `a.b`; only ports, addresses and the folder are replaced here.
    """
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{apache.KAFKA_VERSION}"
    environment: dict[str, str] = SERVICES["kafka"]["environment"]
    properties = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_")
    }
    generator = system_random()
    inside, outside, controller = (free_port(generator) for _ in range(3))
    text = "".join(f"{name}={value}\n" for name, value in properties.items())
    for shown, real in {
        "INSIDE://:19092": f"INSIDE://127.0.0.1:{inside}",
        "OUTSIDE://:9092": f"OUTSIDE://127.0.0.1:{outside}",
        "CONTROLLER://:9093": f"CONTROLLER://127.0.0.1:{controller}",
        "kafka:19092": f"127.0.0.1:{inside}",
        "localhost:9092": f"127.0.0.1:{outside}",
        "1@localhost:9093": f"1@127.0.0.1:{controller}",
        "/var/lib/kafka/data": str(tmp_path / "data"),
    }.items():
        assert shown in text
        text = text.replace(shown, real)
    file = tmp_path / "server.properties"
    file.write_text(text)
    for _ in range(2):
        await asyncio.to_thread(apache.format_storage, file, environment["CLUSTER_ID"])
    kafka = ServerProcess(
        "Kafka with the settings of compose.yaml",
        [*apache.java(), "kafka.Kafka", str(file)],
        port=outside,
        probe=KAFKA_PROBE,
        log_path=tmp_path / "kafka.log",
    )
    await kafka.start()
    await kafka.stop()
