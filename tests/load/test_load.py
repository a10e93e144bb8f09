"""Each scenario under load in a small size: it runs, and whatever does not depend on the machine holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers.lane import LANE, Servers

from .__main__ import parsed
from .arena import Place
from .judging import Judged, Verdict, per_second
from .ledger import Done, Ledger
from .scenarios import SCENARIOS


@pytest.fixture
def place(servers: Servers, namespace: str, tmp_path: Path) -> Place:
    """Return a namespace of the test's own on the session's servers."""
    return Place(servers.redis_url, servers.bootstrap_servers, LANE == "embedded", namespace, tmp_path)


@pytest.mark.process
@pytest.mark.timeout(150)
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
