"""A short run of chaos on each lane: all that it can do to the system is done once, and everything still holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import lane

from .opening import opened_run
from .scale import Scale
from .schedule import Kind, kinds_of
from .tally import report

SEED = 20

# A broker in memory whose members die and join at the same moment may assign nothing for a minute: fewer kinds, which
# leave the group alone or hit one member of it, so that the run stays short.
SHORT = Scale(
    seed=SEED,
    duration_s=1,
    kinds=tuple(
        kind
        for kind in kinds_of(embedded=True)
        if kind not in (Kind.STORM, Kind.TERMINATE, Kind.KAFKA_HALVE, Kind.KAFKA_HOLE, Kind.REDIS_DELAY)
    ),
    round_s=12,
    gap_s=1,
    workers=2,
    rate=6,
    retention_s=25,
)
FULL = Scale(seed=SEED, duration_s=1, kinds=kinds_of(embedded=False), round_s=50, gap_s=2.4, retention_s=120)


@pytest.mark.touches_servers
@pytest.mark.process
# Bounded by waits for progress, not by this: a machine that stalls may take long, and says at last what is stuck.
@pytest.mark.timeout(900)
async def test_everything_holds_whatever_is_struck(tmp_path: Path) -> None:
    """Workers, connections and servers are struck in every way there is; the checker finds nothing wrong."""
    scale = SHORT if lane.LANE == "embedded" else FULL
    async with opened_run(scale, tmp_path, _say) as run:
        await run.rounds()
    text = report(run.tally, scale)
    assert not run.tally.violations, text
    assert run.tally.kinds.keys() == set(scale.kinds), text
    _say(text)


def _say(text: str) -> None:
    print(text)  # noqa: T201 - shown by pytest where the test failed
