"""PURE. What of a journal a new invocation can begin with: results of its first commands, to be replayed as they are.

Commands up to an index depend on nothing that came after them, so what they were and what came of them, in the order of
the journal, is a history that the handler could have had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from perdure.schemas.commands import SignalWait
from perdure.schemas.entries import Cancelled, Command, Completion, Positioned, Signalled, Sleep, Waiting
from perdure.schemas.errors import ConflictError, UsageError

KEPT_MAX: Final = 5_000
"""Entries that one script copies: some milliseconds of Redis's time."""

Kept = Command | Completion | Signalled


def kept_entries(entries: Sequence[Positioned], commands: int) -> list[Kept]:
    """What follows the input in the journal of an invocation that begins behind the first commands of another one.

    Args:
        entries: The other one's whole journal.
        commands: How many commands are kept: those with a lower index, and what came of them.

    Raises:
        UsageError: The journal has fewer, or there is too much to keep; says how many can be kept.
        ConflictError: One of them has no result yet, or was made after a cancellation; likewise.
    """
    if commands < 0:
        raise UsageError(f"{commands} commands cannot be kept: 0 begins with the input alone.")
    indexes = [row.entry.command_index for row in entries if isinstance(row.entry, Command)]
    made = max(indexes, default=-1) + 1
    if commands > made:
        raise UsageError(f"Its journal has {made} commands, and {commands} are to be kept: keep at most {made}.")
    _check_results(entries, commands)
    signals = Counter(
        row.entry.name for row in entries if isinstance(row.entry, SignalWait) and row.entry.command_index < commands
    )
    kept: list[Kept] = []
    for row in entries:
        match row.entry:
            case Signalled(name) as signal if signals[name] > 0:
                signals[name] -= 1
                kept.append(signal)
            case Completion(index) as completion if index < commands:
                kept.append(completion)
            case _ as entry if isinstance(entry, Command) and entry.command_index < commands:
                kept.append(entry)
    if len(kept) > KEPT_MAX:
        raise UsageError(f"{commands} commands are {len(kept)} entries, and {KEPT_MAX} can be kept: keep fewer.")
    return kept


def _check_results(entries: Sequence[Positioned], commands: int) -> None:
    completed = {row.entry.command_index for row in entries if isinstance(row.entry, Completion)}
    signalled = Counter(row.entry.name for row in entries if isinstance(row.entry, Signalled))
    cancelled = False
    for row in entries:
        match row.entry:
            case Cancelled():
                cancelled = True
            case _ as entry if isinstance(entry, Command) and entry.command_index < commands:
                index = entry.command_index
                if cancelled:
                    raise ConflictError(
                        f"Command {index} was recorded after the invocation was cancelled: keep at most {index}."
                    )
                if isinstance(entry, SignalWait):
                    signalled[entry.name] -= 1
                    waits = signalled[entry.name] < 0
                else:
                    waits = isinstance(entry, Sleep | Waiting) and index not in completed
                if waits:
                    raise ConflictError(
                        f"Command {index} ({type(entry).__name__}) has no result: keep at most {index}."
                    )
            case _:
                pass
