"""The seeded schedule: `tests.chaos.schedule`."""

from __future__ import annotations

from collections import Counter

import pytest

from .schedule import ALL, MEANING, ONLY_WITH_A_DISK, kinds_of, make_schedule


@pytest.mark.parametrize("seed", [1, 2, 77])
def test_schedule_is_its_seeds(seed: int) -> None:
    """The same seed gives the same strikes, another one gives others."""
    wanted = make_schedule(seed, duration_s=60, kinds=ALL)
    assert wanted == make_schedule(seed, duration_s=60, kinds=ALL)
    assert wanted != make_schedule(seed + 1, duration_s=60, kinds=ALL)


@pytest.mark.parametrize("duration_s", [5.0, 60.0, 300.0])
def test_each_kind_comes_as_often_as_the_others(duration_s: float) -> None:
    """However short a round is, each kind comes in it, in order of time and before its end."""
    strikes = make_schedule(3, duration_s=duration_s, kinds=ALL)
    counts = Counter(strike.kind for strike in strikes)
    assert counts.keys() == set(ALL)
    assert max(counts.values()) - min(counts.values()) <= 1
    times = [strike.at_s for strike in strikes]
    assert times == sorted(times)
    assert times[-1] < duration_s


def test_every_kind_has_a_meaning_and_the_embedded_broker_is_spared() -> None:
    """Reports can name each kind; what needs a broker with a disk is left to the lane that has one."""
    assert MEANING.keys() == set(ALL)
    assert set(kinds_of(embedded=False)) == set(ALL)
    assert set(kinds_of(embedded=True)) == set(ALL) - ONLY_WITH_A_DISK
