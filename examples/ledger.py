"""The outside world of the examples: a SQLite file that counts every effect, also those that happen twice.

A real payment provider would refuse a second charge with the same idempotency key. This one accepts and counts it, so
that the demo and the tests can tell whether it was ever asked to.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

VARIABLE = "EXAMPLES_LEDGER"
"""The environment variable that names the file."""

DEFAULT_FILE = "ledger.sqlite"

LOCK_TIMEOUT_S = 10.0
"""How long a writer waits for the others: each write takes a millisecond or so."""

_TABLE = """
CREATE TABLE IF NOT EXISTS effects (
  number INTEGER PRIMARY KEY,
  invocation TEXT NOT NULL,
  name TEXT NOT NULL,
  key TEXT NOT NULL,
  done INTEGER NOT NULL,
  pid INTEGER NOT NULL
)
"""


class Effect(NamedTuple):
    """One execution of something that the outside world notices.

    Attributes:
        invocation: Whose.
        name: What, such as `charge`.
        key: The step's idempotency key.
        done: Whether it took effect; false for one that was refused.
        pid: The process that asked for it.
    """

    invocation: str
    name: str
    key: str
    done: bool
    pid: int


class Ledger:
    """Effects in the order in which they happened. Any number of processes and threads may write.

    Args:
        path: The file; where the environment says, or `ledger.sqlite` in the working directory, without it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = Path(os.environ.get(VARIABLE, DEFAULT_FILE)) if path is None else path

    def record(self, invocation: str, name: str, *, key: str, refusals: int = 0) -> Effect:
        """Write down one execution; the first `refusals` ones of this key are refused."""
        with self._connection() as connection:
            # IMMEDIATE, so that counting and writing are one.
            connection.execute("BEGIN IMMEDIATE")
            asked = connection.execute("SELECT COUNT(*) FROM effects WHERE key = ?", (key,)).fetchone()[0]
            effect = Effect(invocation, name, key, asked >= refusals, os.getpid())
            connection.execute("INSERT INTO effects (invocation, name, key, done, pid) VALUES (?, ?, ?, ?, ?)", effect)
            connection.execute("COMMIT")
        return effect

    def effects(self, invocation: str | None = None) -> list[Effect]:
        """Return every execution, or those of one invocation."""
        with self._connection() as connection:
            rows = connection.execute("SELECT invocation, name, key, done, pid FROM effects ORDER BY number").fetchall()
        found = [Effect(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]
        return [effect for effect in found if invocation in (None, effect.invocation)]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as connection:
            connection.execute(_TABLE)
            yield connection
