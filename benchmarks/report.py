"""`python -m benchmarks.report FILES [--into docs/performance.md]`: the recorded runs as Markdown tables.

With `--into` the tables replace what stands between the page's two marks; without it they go to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN = "<!-- runs: written by python -m benchmarks.report -->"
END = "<!-- end of runs -->"

LOADED_CORES = 0.3
"""With more of other load a wall-clock figure is a lower bound; it is marked."""

GOALS = {
    "steps": ("≥ 15,000 steps/s", "≥ 30,000; ≥ 20,000 with fsync always"),
    "noop": ("≥ 2,500/s", "≥ 5,000/s"),
    "latency": ("p50 ≤ 5 ms", "p50 ≤ 4 ms, p99 ≤ 8 ms"),
    "sequential": ("≤ 0.3 s", "≤ 0.2 s; ≤ 0.4 s with fsync always"),
    "replay": ("≤ 0.02 ms/step, linear", "≤ 0.01 ms/step"),
    "object": ("≥ 2,000 adds/s over 64 keys", "-"),
    "hot_object": ("≥ 800 adds/s on one key", "-"),
    "call": ("≥ 3,000 child calls/s", "-"),
    "recovery": ("≤ 1 s under a supervisor, ≤ lease + 1 s without; Redis ≤ 1 s, broker ≤ 5 s, rolling p99 ≤ 1 s", "-"),
    "sleepers": ("≤ 60 MB in Redis, nothing in the worker", "≤ 40 MB in Redis"),
}
"""What is to be reached on the embedded servers with two cores, and where it goes afterwards."""

Run = Mapping[str, Any]


def latest(lines: Iterable[str]) -> list[Run]:
    """Return the last run of each scenario on each pair of servers, in the order of their first appearance."""
    runs: dict[tuple[object, ...], Run] = {}
    for line in lines:
        run = json.loads(line)
        runs[run["scenario"], run["servers"], run["fsync"]] = run
    return list(runs.values())


def tables(runs: Sequence[Run]) -> str:
    """Return the page's tables: where the runs were made, values by scenario, costs, and all other values."""
    if not runs:
        return "No runs are recorded.\n"
    parts = [_where(runs), _values(runs), _costs(runs), _others(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def put_into(page: str, text: str) -> str:
    """Return the page with `text` between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page has no lines {BEGIN} and {END}: add them where the tables belong.")
    return f"{head}{begin}\n\n{text}\n{end}{tail}"


def _where(runs: Sequence[Run]) -> str:
    commits = " ".join(sorted({run["commit"] for run in runs}))
    days = sorted({run["at"][:10] for run in runs})
    machine, versions = runs[0]["machine"], runs[0]["versions"]
    servers = sorted(
        {f"{run['versions']['server']} with {run['versions']['broker']}" for run in runs if run["servers"]}
    )
    loaded = max(run["other_load_cores"] for run in runs)
    warning = (
        f"\n\n**Taken beside other load** (up to {loaded:.2f} of {machine['cores']} cores, see the column): figures of "
        "rows marked ▼ are lower bounds, times upper bounds. CPU per operation is comparable nevertheless."
        if loaded > LOADED_CORES
        else ""
    )
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("python", "perdure", "aiokafka", "hiredis", "uvloop"))
    return (
        f"Machine: {machine['model']}, {machine['cores']} cores, {machine['memory']}. "
        f"Commit {commits}; {', '.join(days)}. "
        f"{libraries}; {'; '.join(servers)}.{warning}"
    )


def _values(runs: Sequence[Run]) -> str:
    rows = ["| scenario | servers | value (range over windows) | to reach | later | other load, cores |"]
    rows.append("|---|---|---|---|---|---|")
    for run in runs:
        reach, later = GOALS.get(run["scenario"], ("-", "-"))
        mark = " ▼" if run["other_load_cores"] > LOADED_CORES else ""
        rows.append(
            f"| `{run['scenario']}` | {_servers(run)} | **{_summary(run)}**{mark} | {reach} | {later} | "
            f"{run['other_load_cores']:.2f} |"
        )
    return "\n".join(rows) + _share_of_floor(runs)


def _share_of_floor(runs: Sequence[Run]) -> str:
    """Both are rates: beside other load their ratio says more about that load than about the engine."""
    found = {(run["scenario"], run["servers"], run["fsync"]): run for run in runs}
    shares = []
    for (scenario, servers, fsync), run in found.items():
        floor = found.get(("floor", servers, fsync))
        if scenario == "steps" and floor is not None:
            loaded = max(run["other_load_cores"], floor["other_load_cores"]) > LOADED_CORES
            share = "not comparable, other load" if loaded else f"{run['value'] / floor['value']:.0%}"
            shares.append(f"{share} ({servers}, {fsync})")
    if not shares:
        return ""
    return f"\n\nSteps as a share of the floor at the same concurrency (to reach: ≥ 25 %): {'; '.join(shares)}."


def _costs(runs: Sequence[Run]) -> str:
    rows = ["| scenario | servers | operation | worker µs | Redis µs | broker µs | client µs | per CPU-second¹ |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for run in runs:
        spent = run["cpu_us_per_operation"]
        cells = " | ".join(_number(spent.get(role)) for role in ("worker", "redis", "broker", "client"))
        rate = run["operations_per_cpu_second_without_client"]
        rows.append(f"| `{run['scenario']}` | {_servers(run)} | {run['operation']} | {cells} | {_number(rate)} |")
    return (
        "CPU of each process tree, per operation:\n\n" + "\n".join(rows) + "\n\n¹ Of worker, Redis and broker together."
    )


def _others(runs: Sequence[Run]) -> str:
    rows = ["| scenario | servers | further values |", "|---|---|---|"]
    for run in runs:
        if run["also"]:
            values = "; ".join(f"{name} {_summary(value)}" for name, value in run["also"].items())
            rows.append(f"| `{run['scenario']}` | {_servers(run)} | {values} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _servers(run: Run) -> str:
    return f"{run['servers']}, {run['fsync']}" if run["servers"] else "none"


def _summary(value: Mapping[str, Any]) -> str:
    low, high = value["range"]
    return f"{_number(value['value'])} {value['unit']} ({_number(low)}-{_number(high)})"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="what --json wrote")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="a Markdown page with the two marks")
    options = parser.parse_args()
    lines = [line for path in options.files for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    text = tables(latest(lines))
    if options.into is None:
        sys.stdout.write(text)
    else:
        options.into.write_text(put_into(options.into.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
