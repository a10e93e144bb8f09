"""Why an attempt ends before its handler does, and what became of an attempt: two sum types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from perdure.journal.store import Caller, Claim, Due, ResumeDue
from perdure.schemas.entries import Outcome


class Failing(NamedTuple):
    """Something failed that may succeed later: the invocation's policy decides. `command` is where, for people."""

    error: BaseException
    command: str = ""


class Pausing(NamedTuple):
    """Trying again would not help: an operator must look."""

    error: BaseException


class Holding(NamedTuple):
    """An operator asked: pause, once the steps that run have ended."""


class Releasing(NamedTuple):
    """Another attempt should go on at once: this worker stops, or every await is to be replayed."""


class Suspending(NamedTuple):
    """The store has it suspended already; `due_in_ms` is when it goes on, where that is known."""

    due_in_ms: float | None = None


class Losing(NamedTuple):
    """The invocation is not this attempt's any more, or the store cannot be spoken to about it."""

    error: BaseException


Departure = Failing | Pausing | Holding | Releasing | Suspending | Losing


class Completed(NamedTuple):
    """The outcome is recorded.

    `topics` want it as a reply and `callers` in their journals; `following` has the object now, by
    `claim` where it was claimed with it. `due` is what callers have to do that know it already.
    """

    outcome: Outcome
    topics: Sequence[str]
    callers: Sequence[Caller] = ()
    following: ResumeDue | None = None
    claim: Claim | None = None
    due: Sequence[Due] = ()


class Left(NamedTuple):
    """Nothing more to do here: `suspended`, `backing-off` or `paused`.

    `reason` is empty where all is well; `due_in_ms` is when it goes on, where that is known.
    """

    status: str
    reason: str = ""
    due_in_ms: float | None = None


class Released(NamedTuple):
    """Ready again with the same epoch: produce its resume record."""


class Lost(NamedTuple):
    """Another attempt goes on, now or when the lease ends."""

    error: BaseException


AttemptEnd = Completed | Left | Released | Lost
