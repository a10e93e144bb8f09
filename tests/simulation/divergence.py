"""G8: a replay that differs from its journal pauses, says so, and writes nothing behind the difference.

The watcher knows beforehand what must become of each attempt: from the journal that it was given, and from the code
that its worker runs, which is part of the worker's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from perdure.journal.store import Claim, Concluded, Lease
from perdure.schemas.entries import Identity, Input, Positioned
from perdure.schemas.errors import PerdureError

from . import programs
from .invariants import OF_ATTEMPTS
from .versions import Change, moves_of
from .virtual_redis import Executed
from .virtual_worker import NEWER

SAYS_SO = "diverged from its journal at command"


def commands_of(claim: Claim, change: Change | None) -> list[Identity] | None:
    """What a version asks for, one after the other, unless it fails before; `None` for what no change concerns."""
    first = claim.entries[0].entry
    assert isinstance(first, Input), "a journal begins with its input"
    argument = orjson.loads(first.value)
    match claim.service, claim.handler:
        case programs.WORK, "play":
            return _commands(argument, change)
        case programs.FLOW, "run":
            return [*_commands(argument, change), Identity("promise", programs.PROMISE)]
        case programs.BOX, "add":
            slept = [Identity("sleep", "")] if argument % 2 else []
            return [Identity("get", "total"), *_commands([["step", 0]], change), Identity("set", "total"), *slept]
        case _:
            return None


def _commands(program: Sequence[Any], change: Change | None) -> list[Identity]:
    found: list[Identity] = []
    for label, (kind, *rest) in moves_of(program, change):
        step = Identity("run", f"s{label}")
        match kind:
            case "step":
                found.append(step)
            case "sleep":
                found.append(Identity("sleep", ""))
            case "both":
                found += [step, *(Identity("sleep", "") for _ in rest)]
            case "call" | "send":
                found.append(Identity(kind, f"{programs.WORK}/play"))
            case "add" | "post":
                found.append(Identity("call" if kind == "add" else "send", f"{programs.BOX}/add", key=rest[0]))
            case "awakeable":
                found += [Identity("awakeable", ""), step]
            case "signal":
                found.append(Identity("signal", rest[0]))
            case _:
                # It fails, which is no command, and ends.
                return found
    return found


class Verdict(NamedTuple):
    """What must become of an attempt.

    Attributes:
        mismatch: The first recorded command that its code does not ask for there; `None` where there is none.
        gapless: Whether all commands before the last are recorded. Else its code may wait for one that is not, and
            never come to one that is.
    """

    mismatch: int | None
    gapless: bool


def verdict_on(journal: Sequence[Positioned], wanted: Sequence[Identity]) -> Verdict:
    """Whether code that asks for this can go on with that journal."""
    recorded: dict[int, Identity] = {}
    for row in journal:
        identity, index = getattr(row.entry, "identity", None), getattr(row.entry, "command_index", -1)
        if identity is not None and index >= 0:
            recorded.setdefault(index, identity)
    others = (
        index for index, identity in sorted(recorded.items()) if index >= len(wanted) or wanted[index] != identity
    )
    return Verdict(next(others, None), len(recorded) == max(recorded, default=-1) + 1)


class Replays:
    """Compares what attempts do with what they must.

    Args:
        report: Told what is wrong.
        change: Of the newer code.
    """

    def __init__(self, report: Callable[[str], None], change: Change) -> None:
        self._report = report
        self._change = change
        self._verdicts: dict[tuple[str, int, str], Verdict] = {}
        self._diverged: dict[str, bool] = {}

    def seen(self, command: Executed, answer: object) -> None:
        """A command was executed."""
        if isinstance(answer, PerdureError):
            return
        if isinstance(answer, Claim):
            self._claimed(answer)
        elif isinstance(answer, Concluded) and answer.claim is not None:
            self._claimed(answer.claim)
        if command.name in OF_ATTEMPTS:
            self._check(command, answer)

    def refused(self, name: str, *, newer: bool) -> bool:
        """Whether that version has paused it, the last time that any did."""
        return self._diverged.get(name) is newer

    def _claimed(self, claim: Claim) -> None:
        wanted = commands_of(claim, self._change if _newer(claim.lease) else None)
        if wanted is not None:
            self._verdicts[_attempt(claim.lease)] = verdict_on(claim.entries, wanted)

    def _check(self, command: Executed, answer: object) -> None:
        lease: Lease = command.args[0]
        entries: Any = command.args[1]
        failure = command.kwargs.get("failure", "")
        who, verdict = f"{lease.invocation_id} on {lease.worker}", self._verdicts.get(_attempt(lease))
        diverged = command.name == "give_up" and SAYS_SO in failure
        if diverged:
            self._diverged[lease.invocation_id] = _newer(lease)
        if verdict is None:
            return
        mismatch, gapless = verdict
        if mismatch is None:
            if diverged and gapless:
                self._report(f"G8: {who} was paused, and its journal is what its code would write: {failure}")
            return
        behind = [entry for entry in entries if getattr(entry, "command_index", -1) >= mismatch]
        if behind:
            self._report(f"G8: {who} differs at command {mismatch}, and wrote {behind}")
        if command.name in ("complete", "back_off") or (command.name == "suspend" and answer is None):
            self._report(f"G8: {who} differs at command {mismatch}, and did {command.name}")
        if command.name == "give_up" and failure and not (diverged and _names(failure, mismatch, gapless=gapless)):
            self._report(f"G8: {who} differs at command {mismatch}, and was paused because: {failure}")


def _attempt(lease: Lease) -> tuple[str, int, str]:
    return lease.invocation_id, lease.epoch, lease.token


def _newer(lease: Lease) -> bool:
    return lease.worker.endswith(NEWER)


def _names(failure: str, mismatch: int, *, gapless: bool) -> bool:
    return not gapless or f"{SAYS_SO} {mismatch}." in failure
