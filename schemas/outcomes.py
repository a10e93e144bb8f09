"""What entries and records are made of: outcomes, headers, and what makes a command the same command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .errors import TerminalError


class Success(NamedTuple):
    """A result: the payload as the author's serde wrote it."""

    value: bytes


class Failure(NamedTuple):
    """A terminal failure, as it travels to callers."""

    code: int
    message: str
    metadata: Mapping[str, str] = {}

    def to_error(self) -> TerminalError:
        """The error that a handler sees."""
        return TerminalError(self.message, self.code, self.metadata)


Outcome = Success | Failure


class Identity(NamedTuple):
    """What makes a command the same command in a replay.

    Never what was read from the world, such as a wake-up time or the bytes of an argument.
    """

    type: str
    name: str
    target: str = ""
    key: str = ""

    def __str__(self) -> str:
        """One line for people, such as `run "charge the card"`."""
        words = [self.type, f'"{self.name}"' if self.name else "", self.target, self.key]
        return " ".join(word for word in words if word)


Headers = tuple[tuple[str, bytes | None], ...]
