"""What was done, as the nemesis tells it."""

from __future__ import annotations

from typing import NamedTuple

from .schedule import Kind


class Deed(NamedTuple):
    """One strike that was carried out, with the proof that it was.

    Attributes:
        kind: What.
        begin_ms: When it began, by the machine's monotonic clock.
        end_ms: When it was over.
        pids: The workers that it hit; empty where it hit all of them.
        proof: What was seen of it; empty where nothing was, and then it does not count.
    """

    kind: Kind
    begin_ms: int
    end_ms: int
    pids: tuple[int, ...]
    proof: str
