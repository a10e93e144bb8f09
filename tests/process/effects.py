"""Effects outside Redis: one line of JSON for each execution of a step, in one append-only file that all workers share.

A line is one `write` to a descriptor opened with O_APPEND, so that lines of several processes never mix, and a process
that is killed has either written its line or not executed its step.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY_VARIABLE = "PERDURE_TEST_EFFECTS"


class Effect(NamedTuple):
    """One execution of a step, written when it began.

    Attributes:
        invocation_id: Whose step.
        step: The step's name, one of a kind within its invocation.
        attempt: The attempt's number, which is the lease's epoch.
        execution: What tells this execution from all others; the step returns it.
        key: The step's idempotency key.
        pid: Of the worker.
        at_ms: When, by the machine's monotonic clock, which all of its processes share.
        fails: Whether this execution was going to fail on purpose.
    """

    invocation_id: str
    step: str
    attempt: int
    execution: str
    key: str
    pid: int
    at_ms: int
    fails: bool


class Effects:
    """The file of a test, and its marks of what has happened once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "effects.jsonl"

    def append(self, effect: Effect) -> None:
        """Write a line; it is there when this returns, whatever becomes of the process."""
        line = json.dumps(effect._asdict()).encode() + b"\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def first_time(self, what: str) -> bool:
        """Whether nobody has asked this of `what` before, in any process."""
        try:
            os.close(os.open(self._directory / what.replace(":", "_"), os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True

    def read(self) -> list[Effect]:
        """All lines so far, in the order in which they were written."""
        if not self._file.exists():
            return []
        rows: list[dict[str, Any]] = [json.loads(line) for line in self._file.read_text().splitlines()]
        return [Effect(**row) for row in rows]
