"""Keys that should not be there: `tests.chaos.leftovers`."""

from __future__ import annotations

import pytest

from .leftovers import unneeded


@pytest.mark.parametrize(
    ("key", "life_ms", "needed"),
    [
        ("n:settings", -1, True),
        ("n:services", -1, True),
        ("n:workers", -1, True),
        ("n:offsets", -1, True),
        ("n:worker:w1", -1, True),
        ("n:worker:gone", 5_000, False),
        ("n:barrier:gone", 5_000, True),
        ("n:barrier:gone", -1, False),
        ("n:{3}:state:Account/a", -1, True),
        ("n:{3}:promises:Flow/f", 5_000, True),
        ("n:{3}:promises:Flow/f", -1, False),
        ("n:{3}:object:Account/a", -1, False),
        ("n:{3}:invocation:inv_1", 5_000, False),
        ("n:{3}:invocation:inv_1", -2, True),
        ("n:{3}:due", -1, False),
    ],
)
def test_each_key_is_needed_or_not(key: str, life_ms: int, needed: bool) -> None:
    """A namespace's own keys, those of live workers and state of objects stay; nothing else does."""
    assert unneeded({key: life_ms}, namespace="n", workers=["w1"]) == ([] if needed else [key])
