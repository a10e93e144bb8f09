"""What the doctor says of one thing."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "advice", "problem"]


class Finding(NamedTuple):
    """What was looked at, what was found, and what mends it (empty where nothing is to mend)."""

    level: Level
    what: str
    found: str
    mend: str = ""
