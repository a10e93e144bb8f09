"""`python -m tests.chaos --minutes 10 --seed 1`: workers, servers and the network between them are struck meanwhile.

Ends with 1 where anything is wrong; then everything that was written down is kept, and it is said how to run it again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.worker.clock import system_random

if TYPE_CHECKING:
    from .scale import Scale

SERVERS = ("apache", "embedded")


def main() -> int:
    """Read the flags, and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="no round begins later")
    parser.add_argument("--seed", type=int, default=None, help="of the first round; the next ones follow it")
    parser.add_argument("--servers", choices=SERVERS, default="apache", help="on which it runs")
    parser.add_argument("--round-s", type=float, default=60.0, help="seconds of load and strikes before each verdict")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--rate", type=float, default=8.0, help="requests a second")
    parser.add_argument("--gap-s", type=float, default=2.0, help="seconds between two strikes, about")
    parser.add_argument("--only", default="", help="kinds of strikes, with commas; all that the servers allow without")
    flags = parser.parse_args()
    # Before the lane is imported, which reads it once.
    os.environ["PERDURE_TEST_SERVERS"] = flags.servers
    from tests.servers import lane

    from .scale import Scale
    from .schedule import Kind, kinds_of

    lane.prepare()
    scale = Scale(
        seed=system_random().getrandbits(24) if flags.seed is None else flags.seed,
        duration_s=flags.minutes * 60,
        kinds=tuple(map(Kind, flags.only.split(","))) if flags.only else kinds_of(embedded=flags.servers == "embedded"),
        round_s=flags.round_s,
        gap_s=flags.gap_s,
        workers=flags.workers,
        rate=flags.rate,
    )
    directory = Path(tempfile.mkdtemp(prefix="perdure-chaos-"))
    _say(f"seed {scale.seed}, {lane.describe()}, histories and logs in {directory}")
    violations = asyncio.run(_run(scale, directory))
    if not violations:
        shutil.rmtree(directory)
        return 0
    _say(f"Histories and logs are kept in {directory}. Again: make chaos SERVERS={flags.servers} SEED={scale.seed}")
    return 1


async def _run(scale: Scale, directory: Path) -> int:
    from .opening import opened_run
    from .tally import report

    async with opened_run(scale, directory, _say) as run:
        try:
            await run.rounds()
        finally:
            _say(report(run.tally, scale))
        return len(run.tally.violations)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    sys.exit(main())
