"""What the machine tells its driver to do next. PURE."""

from __future__ import annotations

from typing import NamedTuple

from perdure.schemas.entries import Outcome, StepFailed
from perdure.schemas.ids import InvocationId


class Ready(NamedTuple):
    """Hand this outcome to the future of the command at that index, then let the handler run until it is blocked."""

    command_index: int
    outcome: Outcome


class Interrupt(NamedTuple):
    """The invocation was cancelled: raise a TerminalError 409 in every wait of the handler, then let it run.

    Attributes:
        cause: The position of the cancellation in the journal.
        dropped: Steps that were asked for and have not begun: propose a 409 as their result.
        children: Callees that are not told yet: propose a `CancelChild` for each.
    """

    cause: int
    dropped: tuple[int, ...]
    children: tuple[InvocationId, ...]


class Execute(NamedTuple):
    """Run the step or lookup at `command_index` now. `failed` is its last recorded failure, whose counters go on."""

    command_index: int
    failed: StepFailed | None


class Wait(NamedTuple):
    """Something here is under way: a step, or entries that have not come back from the store."""


class Suspend(NamedTuple):
    """Nothing here can make progress; only the outside can complete one of these commands."""

    awaiting: frozenset[int]


Step = Ready | Interrupt | Execute | Wait | Suspend

WAIT = Wait()
