"""`python -m benchmarks SCENARIO`: one JSON object a run, on stdout and, if asked, as a line of a file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import uvloop

from perdure.schemas.errors import PerdureError

from .deployment import Environment
from .measuring import Plan
from .scenarios import SCENARIOS, measure

RUN_S_MAX = 900.0
"""For one scenario beside its windows: journals of 10,000 steps are written, leases of dead workers end, one by one."""


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; ends the process with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = "; ".join(f"{name}: {scenario.what}" for name, scenario in SCENARIOS.items())
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"], metavar="SCENARIO", help=f"{names}; or all of them")
    parser.add_argument("--servers", choices=["embedded", "apache"], default="embedded")
    parser.add_argument("--fsync", choices=["everysec", "always"], default="everysec", help="Redis's appendfsync")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append each run to this file, one line a run")
    parser.add_argument("--windows", type=int, default=5, help="at least 5")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one window")
    parser.add_argument("--fetch-max-wait-ms", type=int, help="the worker's; 1 on the embedded servers")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a cProfile of the worker; slows it down")
    options = parser.parse_args(arguments)
    if options.windows < 5 or not 0.05 <= options.seconds <= 60:
        parser.error("--windows is at least 5, --seconds is 0.05 to 60")
    return options


async def run(options: argparse.Namespace) -> None:
    """Run what was asked for, one scenario after another, each on servers of its own."""
    environment = Environment(options.servers, options.fsync, options.fetch_max_wait_ms, options.profile)
    plan = Plan(options.windows, options.seconds)
    for name in SCENARIOS if options.scenario == "all" else [options.scenario]:
        async with asyncio.timeout(RUN_S_MAX + 4 * plan.windows * plan.seconds):
            line = await measure(name, environment, plan, command=_without_file(sys.argv[1:]))
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            with options.json.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _without_file(arguments: list[str]) -> list[str]:
    places = [index for index, argument in enumerate(arguments) if argument == "--json"]
    skipped = {index + offset for index in places for offset in (0, 1)}
    return [a for index, a in enumerate(arguments) if index not in skipped and not a.startswith("--json=")]


def main() -> int:
    """Return the exit code: 0, or 1 where a run could not be made."""
    options = parsed(sys.argv[1:])
    try:
        uvloop.run(run(options))
    except (PerdureError, TimeoutError) as error:
        sys.stderr.write(f"The run was not made: {error or 'it took too long'}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
