"""PURE. What entries say of promises: that one was completed, by the command that says so or by another one before it.

A handler completes a promise by one command to the store, and what came of it is written by the next. Where a failover
loses the first and not the second, the handler would go on as if the promise were completed, and nobody would complete
it again. So such an entry is written only where the promise is as it says, which the store looks at as it writes.
"""

from __future__ import annotations

from typing import NamedTuple

from perdure.schemas.commands import COMPLETE_PROMISE, Lookup
from perdure.schemas.entries import Failure, Success
from perdure.schemas.ids import InvocationId

COMPLETED = Success(b"null")
"""What the journal says where the command completed the promise."""

ALREADY = Failure(409, "promise was already completed")
"""What it says where another one had."""


class Promised(NamedTuple):
    """What an entry says of a promise.

    Attributes:
        name: Of the promise.
        by: The command whose entry it is, as `completer` names it.
        won: Whether that command completed it; else another one did.
    """

    name: str
    by: str
    won: bool


def completer(invocation_id: InvocationId, command_index: int) -> str:
    """By whom a promise is said to be completed: the same in each attempt, so that it is not told that it came late."""
    return f"{invocation_id}:{command_index}"


def promised_by(invocation_id: InvocationId, entry: Lookup) -> Promised | None:
    """What the entry says of a promise; `None`: nothing, as where a cancellation came before it was asked for."""
    if entry.type != COMPLETE_PROMISE or entry.outcome not in (COMPLETED, ALREADY):
        return None
    return Promised(entry.name, completer(invocation_id, entry.command_index), entry.outcome == COMPLETED)
