"""The benchmarks run and record what their README says; how fast anything is, is not a matter for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import parsed
from benchmarks.deployment import Environment
from benchmarks.machine import cpu_seconds, machine_time
from benchmarks.measuring import Plan
from benchmarks.report import BEGIN, END, latest, put_into, tables
from benchmarks.scenarios import SCENARIOS, measure

TINY = Plan(windows=5, seconds=0.1)
ROLES = {"worker", "redis", "broker", "client"}


@pytest.fixture
async def run() -> dict[str, Any]:
    """The record of one short run of `noop` on servers and a worker of its own."""
    line = await measure("noop", Environment(), TINY, command=["noop"])
    record: dict[str, Any] = json.loads(line)
    return record


async def test_a_run_is_recorded_whole(run: dict[str, Any]) -> None:
    """Value, range, windows, CPU by role, versions, machine and command are all there, and a report can be made."""
    assert (run["scenario"], run["servers"], run["fsync"]) == ("noop", "embedded", "everysec")
    assert (run["unit"], run["operation"], run["concurrency"], run["payload_bytes"]) == (
        "invocations/s",
        "invocation",
        128,
        4,
    )
    low, high = run["range"]
    assert low <= run["value"] <= high
    windows = run["windows"]
    assert len(windows) == len(run["all"]) == TINY.windows
    assert set(run["cpu_seconds"]) == ROLES
    assert run["operations"] == sum(window["operations"] for window in windows) > 0
    assert {"other_load_cores", "steal_seconds", "operations_per_cpu_second", "commit", "at"} <= run.keys()
    assert {"python", "perdure", "server", "broker", "aiokafka", "redis", "uvloop"} <= set(run["versions"])
    assert {"cores", "model"} <= set(run["machine"])
    assert run["command"] == "python -m benchmarks noop"
    assert "`noop` | embedded, everysec" in tables([run])


async def test_the_engine_is_measured_without_servers() -> None:
    """A scenario that needs no servers says so."""
    run = json.loads(await measure("engine", Environment(), TINY, command=["engine"]))
    assert (run["servers"], run["fsync"], run["unit"]) == (None, None, "µs")
    assert set(run["cpu_seconds"]) == {"client"}
    assert set(run["also"]) == {"store", "action", "codec"}


def test_later_runs_replace_earlier_ones_on_the_page() -> None:
    """The last run of a scenario on a pair of servers counts, and the rest of the page stays."""
    lines = [
        json.dumps({"scenario": "steps", "servers": "apache", "fsync": fsync, "n": n}) for n, fsync in enumerate("aab")
    ]
    assert [run["n"] for run in latest(lines)] == [1, 2]
    assert put_into(f"head\n{BEGIN}\nold\n{END}\ntail\n", "new\n") == f"head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"
    with pytest.raises(ValueError, match="no lines"):
        put_into("head", "new")


async def test_rates_beside_other_load_are_not_compared(run: dict[str, Any]) -> None:
    """The share of the floor is given only where both runs had the machine for themselves."""
    steps = {**run, "scenario": "steps", "value": 30.0, "other_load_cores": 0.1}
    floor = {**run, "scenario": "floor", "value": 100.0, "other_load_cores": 0.1}
    assert "30% (embedded, everysec)" in tables([steps, floor])
    assert "not comparable" in tables([steps, {**floor, "other_load_cores": 1.0}])


@pytest.mark.parametrize("wrong", [["nothing"], ["steps", "--windows", "4"], ["steps", "--seconds", "0"]])
def test_a_wrong_command_line_ends_with_code_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Scenarios have names, and five windows are the least."""
    with pytest.raises(SystemExit) as ended:
        parsed(wrong)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_every_scenario_is_described() -> None:
    """README.md has a row for each scenario."""
    text = Path(__file__).resolve().parents[1].joinpath("benchmarks", "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in SCENARIOS)


def test_a_process_that_has_ended_costs_nothing() -> None:
    """A role whose process is gone is counted as 0 and does not end the run."""
    assert cpu_seconds([2**22 + 1]) == [0.0]
    assert machine_time().busy_s > 0
