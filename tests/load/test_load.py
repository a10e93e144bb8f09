"""Each scenario under load in a small size: it runs, and whatever does not depend on the machine holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers.lane import LANE, Servers

from .__main__ import parsed
from .arena import Place
from .backlog import judge
from .judging import Judged, Verdict, per_second
from .ledger import Done, Ledger
from .long_run import GROWTH_MAX, growth_of, of_calls
from .scenarios import SCENARIOS


@pytest.fixture
def place(servers: Servers, namespace: str, tmp_path: Path) -> Place:
    """Return a namespace of the test's own on the session's servers."""
    return Place(servers.redis_url, servers.bootstrap_servers, LANE == "embedded", namespace, tmp_path)


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_small_run_holds(name: str, place: Place) -> None:
    """Nothing is lost, done twice, early, out of order or left behind, and the run can be written down."""
    scenario = SCENARIOS[name]
    judged = await scenario.run(place, scenario.small)
    assert judged.broken(machine=False) == []
    assert any(not verdict.machine for verdict in judged.verdicts)
    assert set(json.loads(json.dumps(judged.record()))) == {"holds", "figures", "verdicts", "rows"}
    assert all(verdict.what in judged.text() for verdict in judged.verdicts)


@pytest.mark.parametrize(
    ("verdict", "holds"),
    [
        (Verdict("a", 1, "is", 1), True),
        (Verdict("a", 1, "is", 2), False),
        (Verdict("a", 2.5, "at most", 2.5), True),
        (Verdict("a", 2.6, "at most", 2.5), False),
        (Verdict("a", 3, "at least", 3), True),
        (Verdict("a", 2, "at least", 3), False),
    ],
)
def test_values_are_held_against_their_bounds(verdict: Verdict, holds: bool) -> None:
    """What does not hold is said, with the value and the bound."""
    judged = Judged([verdict])
    assert judged.holds is verdict.holds is holds
    assert judged.broken(machine=False) == ([] if holds else [str(verdict)])
    assert ("FAIL" in judged.text()) is not holds


def test_tests_do_not_judge_the_machine() -> None:
    """What depends on the machine fails the command, and no test."""
    slow = Judged([Verdict("ms", 5, "at most", 1, machine=True)])
    assert not slow.holds
    assert slow.broken(machine=False) == []
    assert slow.broken(machine=True) == [str(slow.verdicts[0])]


def test_growth_is_the_slope_of_a_line() -> None:
    """A line through samples has its own slope, noise around a level has nearly none, one sample has none."""
    assert per_second([(float(s), 100 + 2.0 * s) for s in range(10)]) == pytest.approx(2.0)
    assert per_second([(float(s), 100 + s % 2) for s in range(100)]) == pytest.approx(0.0, abs=0.01)
    assert per_second([(1.0, 5.0)]) == 0.0


@pytest.mark.parametrize("name", GROWTH_MAX)
def test_growth_of_each_kind_is_judged(name: str) -> None:
    """What rises steadily is told by its name, in the steps of a leak too; what swings around a level is not."""
    level = {"worker_mb": 70.0, "descriptors": 22, "tasks": 30, "redis_mb": 3.5, "redis_keys_s": 7.0}
    swinging = [
        {"s": 10.0 * n, **{kind: value * (1 + 0.03 * (n % 3)) for kind, value in level.items()}} for n in range(90)
    ]
    assert [str(verdict) for verdict in growth_of(swinging) if not verdict.holds] == []
    rising = [{**row, name: row[name] * (1 + row["s"] / 600)} for row in swinging]
    broken = [verdict.what for verdict in growth_of(rising) if not verdict.holds]
    assert [what.split(",")[0] for what in broken] == [name]


@pytest.mark.parametrize(("leaks", "told"), [(0, []), (3, ["redis_keys_s"])])
def test_keys_are_judged_by_how_many_calls_there_are(leaks: int, told: list[str]) -> None:
    """More calls leave more keys for their retention; keys that nobody removes are told, whatever the calls do."""
    rows, calls = [], 0
    for number in range(90):
        rate = 100 + 3 * number
        calls += 10 * rate
        rows.append({"s": 10.0 * (number + 1), "calls": calls, "redis_keys": 7 * rate + leaks * 10 * number})
    found = {"worker_mb": 70, "descriptors": 22, "tasks": 30, "redis_mb": 3}
    broken = [verdict.what for verdict in growth_of([{**row, **found} for row in of_calls(rows)]) if not verdict.holds]
    assert [what.split(",")[0] for what in broken] == told


def test_the_ledger_keeps_what_is_written(tmp_path: Path) -> None:
    """Two processes' lines stand in one file, in the order of writing, and are counted without being read."""
    one, other = Ledger(tmp_path), Ledger(tmp_path)
    assert one.count() == 0
    assert one.read() == []
    one.add(999_999_999, 1_800_000_000_000)
    other.add(0, 1)
    assert other.count() == 2
    assert one.read() == [Done(999_999_999, 1_800_000_000_000), Done(0, 1)]


@pytest.mark.parametrize(
    ("numbers", "late_ms", "said"),
    [
        ([0, 1, 2], 1, []),
        ([0, 2], 1, ["records done: 2"]),
        ([0, 1, 1, 2], 1, ["records done twice: 1"]),
        ([0, 1, 2], -1, ["naps that ended early: 1"]),
        ([0, 1, 2], 5_995, ["p99 of a resume: 5,995"]),
    ],
)
def test_a_backlog_is_judged(numbers: list[int], late_ms: int, said: list[str]) -> None:
    """What is lost, done twice, early or late is told, and nothing else."""
    row = {"worker_mb": 70.0, "redis_mb": 5.0, "per_s": 100.0}
    lines = [Done(number, 10 + index) for index, number in enumerate(numbers)]
    judged = judge(lines, [row] * 10, [Done(late_ms, 5)], records=3, began_ms=1)
    broken = judged.broken(machine=True)
    assert len(broken) == len(said)
    assert all(text in wrong for text, wrong in zip(said, broken, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"worker_mb": 90.0}, "MB by which the worker grew"),
        ({"per_s": 10.0}, "records/s in the last tenth"),
    ],
)
def test_what_changes_over_a_backlog_is_judged(changes: dict[str, float], said: str | None) -> None:
    """A worker that grows with what it has done, and one that gets slower, are told."""
    row: dict[str, float] = {"worker_mb": 20.0, "redis_mb": 5.0, "per_s": 100.0}
    lines = [Done(0, 1), Done(1, 2)]
    broken = judge(lines, [*[row] * 9, row | changes], [], records=2, began_ms=1).broken(machine=True)
    assert [said in wrong for wrong in broken if said is not None] == ([] if said is None else [True])


@pytest.mark.parametrize(
    "wrong", [["nothing"], ["long", "--records", "5"], ["backlog", "--minutes", "1"], ["journal", "--records", "1"]]
)
def test_a_wrong_command_line_ends_with_code_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Scenarios have names, and each its own measure."""
    with pytest.raises(SystemExit) as ended:
        parsed(wrong)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_sizes_have_defaults() -> None:
    """Minutes become seconds, records stay what they are, and each scenario has a size of its own."""
    assert parsed(["long", "--minutes", "0.5"]).size == 30
    assert parsed(["backlog", "--records", "1000"]).size == 1_000
    assert parsed(["backlog"]).size == 1_000_000
