"""docs/conformance.md: every scenario, where it passed, and why some do not apply.

`python -m tests.conformance.report` runs the folder on both lanes and writes the page. What a run found is handed over
in a file that PERDURE_TEST_CONFORMANCE names; `conftest.py` writes it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from .catalogue import OMITTED, Scenario
from .deployed import POINTS

RESULTS_VARIABLE: Final = "PERDURE_TEST_CONFORMANCE"
LANES: Final = {"embedded": "Valkey, embedded broker", "apache": "Redis 7.0, Apache Kafka"}

RANDOM: Final = "tests/conformance/test_random_programs.py"

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance.md"

_HEAD = """\
# Conformance

Made by `python -m tests.conformance.report`, from a run of `tests/conformance` on both lanes of servers. The contract
services and scenarios are those of Restate's conformance suite and, under names in small letters, of its core's unit
tests; all code is our own.

Each scenario runs at four points: `plain`, and `replay`, where an attempt leaves at every wait and after every result,
so that everything is replayed at every place; on one worker and on three. "all" means all four. Scenarios that end
whole processes or change deployments run at some of them.
"""


class Result(NamedTuple):
    """What became of one test."""

    scenarios: tuple[Scenario, ...]
    point: str
    passed: bool


def page(results: Mapping[str, Iterable[Result]]) -> str:
    """The page's text.

    Args:
        results: For each lane.
    """
    found: defaultdict[Scenario, dict[str, dict[str, bool]]] = defaultdict(lambda: {lane: {} for lane in LANES})
    for lane, of_lane in results.items():
        for result in of_lane:
            for scenario in result.scenarios:
                points = found[scenario][lane]
                points[result.point] = points.get(result.point, True) and result.passed
    lines = [_HEAD, _row("scenario", *LANES.values()), _row(*["---"] * (1 + len(LANES)))]
    lines += [
        _row(f"{scenario}", *(_cell(found[scenario][lane]) for lane in LANES))
        for scenario in sorted(found, key=lambda scenario: (scenario.group[0].islower(), scenario))
    ]
    lines += ["", "## What does not apply, or not yet", "", _row("scenario", "why"), _row("---", "---")]
    lines += [_row(f"{omitted.scenario}", omitted.reason) for omitted in OMITTED]
    return "\n".join(lines) + "\n"


def _cell(points: Mapping[str, bool]) -> str:
    passed = [str(point) for point in POINTS if points.get(str(point))]
    failed = [point for point, well in points.items() if not well]
    said = "all" if len(passed) == len(POINTS) else ", ".join(passed) or "-"
    return said if not failed else f"{said}; FAILS at {', '.join(sorted(failed))}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def write_results(results: Iterable[Result]) -> None:
    """Hand over what a run found, where it is asked for."""
    if path := os.environ.get(RESULTS_VARIABLE):
        Path(path).write_text(json.dumps(list(results)))


def _run(lane: str) -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "results.json"
        environment = {**os.environ, "PERDURE_TEST_SERVERS": lane, RESULTS_VARIABLE: str(path)}
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/conformance", f"--ignore={RANDOM}"], cwd=ROOT, env=environment
        )
        rows = json.loads(path.read_text())
    return [Result(tuple(Scenario(*names) for names in scenarios), point, passed) for scenarios, point, passed in rows]


def main() -> int:
    """Run both lanes and write the page; 1 where anything failed."""
    results = {lane: _run(lane) for lane in LANES}
    PAGE.write_text(page(results), encoding="utf-8")
    return int(not all(result.passed for of_lane in results.values() for result in of_lane))


if __name__ == "__main__":
    sys.exit(main())
