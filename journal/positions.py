"""What stands where in a journal. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.schemas.codec import encode
from perdure.schemas.commands import Lookup
from perdure.schemas.entries import Positioned, Run, Sleep, StepFailed, Waiting, Written


def command_at(entries: Iterable[Positioned], index: int) -> str:
    """The type of the command that has this command index; empty where none of the entries is one."""
    for row in entries:
        entry = row.entry
        if isinstance(entry, StepFailed) and entry.command_index == index:
            return "run"
        if isinstance(entry, Run | Lookup | Sleep | Waiting | Written) and entry.command_index == index:
            return encode(entry)[0].decode()
    return ""
