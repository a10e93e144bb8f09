"""Everything that is known of a round when it is judged. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.process.effects import Effect
from tests.process.history import Story

from .deeds import Deed
from .marks import Mark
from .request import Request


class Balance(NamedTuple):
    """The state of an account: how many additions there were, and what they come to."""

    additions: int = 0
    total: int = 0


class Shed(NamedTuple):
    """What is left of an invocation whose journal was gone before it was read."""

    tag: str
    outcome: Any


class Again(NamedTuple):
    """An invocation that was completed once more. Times are of the machine's monotonic clock."""

    invocation_id: str
    first_ms: int
    again_ms: int


@dataclass(frozen=True)
class Chronicle:
    """One round.

    Attributes:
        requests: What clients asked for.
        stories: Every invocation of the round, as Redis holds it.
        shed: The outcomes of those whose journal was gone before it was read: Redis was full, and makes room so.
        again: Those that were completed more than once.
        effects: Every execution of a step in it, in the order in which they began.
        deeds: What was done to the system.
        marks: What workers said of themselves; and the nemesis, of its own stalls.
        before: The accounts when it began.
        after: The accounts when it had ended.
        left: What is still in Redis that should not be, once nothing was left to do.
        ends: Workers that ended as they should not.
        dead_letters: How many records went to the dead letters.
    """

    requests: Sequence[Request]
    stories: Sequence[Story]
    effects: Sequence[Effect]
    deeds: Sequence[Deed] = ()
    marks: Sequence[Mark] = ()
    shed: Mapping[str, Shed] = field(default_factory=dict)
    again: Sequence[Again] = ()
    before: Mapping[str, Balance] = field(default_factory=dict)
    after: Mapping[str, Balance] = field(default_factory=dict)
    left: Sequence[str] = ()
    ends: Sequence[str] = ()
    dead_letters: int = 0
