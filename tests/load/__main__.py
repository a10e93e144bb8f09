"""`make load SCENARIO=… [RECORDS=… | MINUTES=…]`: a scenario on servers of its own, its figures, a verdict on each.

```
python -m tests.load backlog --records 100000 [--servers apache] [--json FILE]
python -m tests.load long --minutes 30
```

Ends with 1 where something did not hold. Figures belong to a machine: how loaded it was by others is recorded, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.deployment import Environment
from benchmarks.machine import describe_machine, machine_time
from benchmarks.scenarios import commit, library_versions, rounded

from .judging import Judged
from .scenarios import SCENARIOS, own_place


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; ends the process with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    names = "; ".join(f"{name}: {scenario.what}" for name, scenario in SCENARIOS.items())
    parser.add_argument("scenario", choices=SCENARIOS, metavar="SCENARIO", help=names)
    parser.add_argument("--records", type=int, help="how many records, sleepers, waiters, steps or waits")
    parser.add_argument("--minutes", type=float, help="of the scenario `long`")
    parser.add_argument("--servers", choices=["embedded", "apache"], default="embedded")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the run to this file, as one line")
    options = parser.parse_args(arguments)
    if (options.minutes if options.scenario != "long" else options.records) is not None:
        parser.error("`long` takes --minutes, the others take --records")
    size = options.records if options.minutes is None else round(options.minutes * 60)
    options.size = SCENARIOS[options.scenario].size if size is None else size
    if options.size < 10:
        parser.error("so few say nothing")
    return options


async def run(options: argparse.Namespace, directory: Path) -> Judged:
    """Run the scenario that was asked for."""
    async with own_place(Environment(options.servers), directory) as place:
        return await SCENARIOS[options.scenario].run(place, options.size)


def main() -> int:
    """Return the exit code: 0 where everything held."""
    options = parsed(sys.argv[1:])
    directory = Path(tempfile.mkdtemp(prefix="perdure-load-"))
    before, began_s = machine_time(), time.monotonic()
    judged = asyncio.run(run(options, directory))
    busy = (machine_time().busy_s - before.busy_s) / (time.monotonic() - began_s)
    record = {
        "scenario": options.scenario,
        "servers": options.servers,
        "size": options.size,
        "seconds": time.monotonic() - began_s,
        **judged.record(),
        "busy_cores": busy,
        "machine": describe_machine(),
        "versions": library_versions(),
        "commit": commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        with options.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded(record), ensure_ascii=False) + "\n")
    sys.stdout.write(f"{options.scenario} {options.size} on {options.servers}\n{judged.text()}\n")
    if not judged.holds:
        sys.stdout.write(f"Logs are in {directory}.\n")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
