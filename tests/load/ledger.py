"""What handlers did, outside of Redis: lines of one width in files that all processes share, counted by their size.

A line is one `write` to a descriptor opened with O_APPEND, so that lines of several processes never mix, and their
order is that in which things happened.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

DIRECTORY_VARIABLE = "PERDURE_TEST_EFFECTS"

LINE_BYTES = 25
"""A number of up to nine digits and a time of up to fourteen, a space, the end of the line."""


class Done(NamedTuple):
    """Something that was done: its number, and when by the machine's clock."""

    number: int
    at_ms: int


class Ledger:
    """One file, of a name, in a directory that the processes of a run share.

    Args:
        directory: Where it is.
        name: Its name; a scenario may have several.
    """

    def __init__(self, directory: Path, name: str = "ledger") -> None:
        self._path = directory / name
        self._descriptor = -1

    def add(self, number: int, at_ms: int) -> None:
        """Write a line; it is there when this returns, whatever becomes of the process."""
        if self._descriptor < 0:
            # Kept open until the process ends: a million openings would be a load of their own.
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._descriptor, b"%9d %14d\n" % (number, at_ms))

    def count(self) -> int:
        """How many lines there are, without reading them."""
        return self._path.stat().st_size // LINE_BYTES if self._path.exists() else 0

    def read(self) -> list[Done]:
        """All lines, in the order in which they were written."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().splitlines()
        return [Done(int(line[:9]), int(line[10:])) for line in lines]
