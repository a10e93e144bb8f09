"""The scenarios by name, and a run of one: what it needs is started, measured, described and ended."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from . import breakdown, deployment, engine, floor, hop, load, programming_model, recovery, replay
from .deployment import Environment, running_deployment, running_servers
from .machine import describe_machine
from .measuring import Measured, Plan

PACKAGES = ("perdure", "aiokafka", "redis", "hiredis", "uvloop", "orjson", "pydantic")


class Needs(Enum):
    """What a scenario is handed, before the plan."""

    NOTHING = "nothing"
    SERVERS = "the servers and the settings"
    WORKER = "the deployment"
    ENVIRONMENT = "what to start"


class Scenario(NamedTuple):
    """One scenario.

    Attributes:
        what: What it measures, in a few words.
        needs: What `work` is handed.
        work: Measures.
        worker: The worker's command after `python`.
        embedded_fetch_max_wait_ms: The worker's on the embedded servers, where none is asked for.
    """

    what: str
    needs: Needs
    work: Callable[..., Awaitable[Measured]]
    worker: Sequence[str] = deployment.WORKER
    embedded_fetch_max_wait_ms: int = deployment.EMBEDDED_FETCH_MAX_WAIT_MS


SCENARIOS = {
    "steps": Scenario("durable steps a second, 100-step invocations, 64 at once", Needs.WORKER, load.steps),
    "noop": Scenario("invocations a second through Kafka, 128 at once", Needs.WORKER, load.noop),
    "latency": Scenario("one invocation at a time through Kafka, end to end", Needs.WORKER, load.latency),
    "sequential": Scenario("1,000 steps one after another in one invocation", Needs.WORKER, load.sequential),
    "object": Scenario("adds to counters a second, 64 keys, 128 at once", Needs.WORKER, programming_model.objects),
    # All its records are in one partition, and that broker looks through all batches of it at each fetch.
    "hot_object": Scenario(
        "adds to one counter a second, 32 waiting",
        Needs.WORKER,
        programming_model.hot_object,
        embedded_fetch_max_wait_ms=20,
    ),
    "call": Scenario("calls a second, by handlers that call ten others", Needs.WORKER, programming_model.calls),
    "fan_in": Scenario("calls a second of one object, 100 at once", Needs.WORKER, programming_model.fan_in),
    "sleepers": Scenario("memory of 10,000 sleepers of 30 s", Needs.WORKER, programming_model.sleepers),
    "replay": Scenario("from a claim to the first new step, per journaled step", Needs.WORKER, replay.replay),
    "floor": Scenario("the append script without an engine, same server and payload", Needs.SERVERS, floor.floor),
    "engine": Scenario("Python's time for a step, over the store in memory", Needs.NOTHING, engine.engine),
    "breakdown": Scenario(
        "where the time of `latency` goes", Needs.WORKER, breakdown.breakdown, breakdown.TRACED_WORKER
    ),
    "recovery": Scenario(
        "from a fault to work going on: a worker, Redis, the broker, a restart", Needs.ENVIRONMENT, recovery.recovery
    ),
    "hop": Scenario("one record through Kafka, by fetch_max_wait_ms", Needs.SERVERS, hop.hop),
}


async def measure(name: str, environment: Environment, plan: Plan, *, command: Sequence[str]) -> str:
    """Run one scenario on servers of its own and return its JSON object.

    Args:
        name: Of the scenario.
        environment: What to start.
        plan: How long to measure.
        command: The command line, for the record; where the record goes is not part of it.

    Raises:
        PerdureError: Something needed did not start, or ended.
    """
    scenario = SCENARIOS[name]
    if environment.servers == "embedded" and environment.fetch_max_wait_ms is None:
        environment = replace(environment, fetch_max_wait_ms=scenario.embedded_fetch_max_wait_ms)
    measured, servers = await _measured(scenario, environment, plan)
    run = {
        "scenario": name,
        "what": scenario.what,
        "servers": environment.servers if servers else None,
        "fsync": environment.fsync if servers else None,
        **measured.record(),
        "versions": library_versions() | servers,
        "machine": describe_machine(),
        "commit": commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *command]),
    }
    return json.dumps(rounded(run), ensure_ascii=False)


async def _measured(scenario: Scenario, environment: Environment, plan: Plan) -> tuple[Measured, dict[str, str]]:
    match scenario.needs:
        case Needs.NOTHING:
            return await scenario.work(plan), {}
        case Needs.SERVERS:
            async with running_servers(environment) as servers:
                versions = await servers.versions(environment)
                return await scenario.work(servers, servers.settings(environment), plan), versions
        case Needs.ENVIRONMENT:
            async with running_servers(environment) as servers:
                versions = await servers.versions(environment)
            return await scenario.work(environment, plan), versions
        case Needs.WORKER:
            async with running_deployment(environment, worker=scenario.worker) as running:
                versions = await running.servers.versions(environment)
                return await scenario.work(running, plan), versions


def library_versions() -> dict[str, str]:
    """Python, and what of its packages a run depends on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def commit() -> str:
    """The commit that was measured, with `+` where files differ from it."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return answer.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "worker", "journal", "schemas", "benchmarks")
    return (head or "unknown") + ("+" if changed else "")


def rounded(value: object) -> object:
    """The value with six digits for each number in it, which says more than was measured."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {key: rounded(inner) for key, inner in value.items()}
        case list():
            return [rounded(inner) for inner in value]
        case _:
            return value
