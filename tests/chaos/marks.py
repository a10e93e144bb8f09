"""What workers say of themselves while they are hit: one line of JSON each, in one append-only file that all share.

A line is there whatever becomes of the process, as in `tests.process.effects`; times are of the machine's monotonic
clock, which all its processes share and no nemesis moves.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple


class Mark(NamedTuple):
    """Something that happened in a worker.

    Attributes:
        kind: `blocked` and `clock` when a worker was made to; `stalled` when it had stood still, for whatever reason;
            `asked` when a handler waits for an awakeable.
        pid: Of the worker.
        begin_ms: When it began.
        end_ms: When it was over.
        text: What more there is to say, such as the awakeable's id.
    """

    kind: str
    pid: int
    begin_ms: int
    end_ms: int
    text: str = ""


class Marks:
    """The file of a run."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "marks.jsonl"

    def append(self, mark: Mark) -> None:
        """Write a line; it is there when this returns."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps(mark).encode() + b"\n")
        finally:
            os.close(descriptor)

    def read(self) -> list[Mark]:
        """All lines so far, in the order in which they were written."""
        if not self._file.exists():
            return []
        return [Mark(*json.loads(line)) for line in self._file.read_text().splitlines()]
