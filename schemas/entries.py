"""The journal's entries: what each one holds. How they become bytes is in `codec`.

A journal is one stream per invocation; entry ids are `<position>-<epoch>`: the n-th entry, written under that epoch.
Three families:

- a **command** is what the handler asked for, at a command index counted in program order (0, 1, ...);
- a **completion** is the result of a command. A `Run` is both in one entry: the step was asked for and this is its
  result, which is why a step costs one entry;
- an **event** is told for people and for counters, and never seen by the handler.

Objects, calls, promises and signals add commands here; their results are `Completion` entries.
"""

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


class Input(NamedTuple):
    """Position 1: the argument and the headers, exactly as they arrived."""

    at_ms: int
    worker: str
    headers: Headers
    value: bytes


class Run(NamedTuple):
    """A step and its result, in one entry."""

    command_index: int
    name: str
    at_ms: int
    duration_ms: int
    outcome: Outcome

    @property
    def identity(self) -> Identity:
        """`run` and its name."""
        return Identity("run", self.name)


class StepFailed(NamedTuple):
    """Event: one execution of a step failed and will be tried again after `retry_ms`.

    `failures` counts all executions that failed, `elapsed_ms` runs from the start of the first one: the counters of
    the step's policy live here and nowhere else.
    """

    command_index: int
    name: str
    at_ms: int
    failures: int
    elapsed_ms: int
    retry_ms: int
    error: str


class Sleep(NamedTuple):
    """Command: wait that long. The wake-up time itself is the score of the timer in `due`, by Redis's clock."""

    command_index: int
    name: str
    at_ms: int
    duration_ms: int

    @property
    def identity(self) -> Identity:
        """`sleep` and its name; not how long."""
        return Identity("sleep", self.name)


class Completion(NamedTuple):
    """The result of the command at `command_index`, written by whoever brought it. The first one wins."""

    command_index: int
    at_ms: int
    outcome: Outcome


class AttemptStarted(NamedTuple):
    """Event: a worker claimed the invocation; the entry's epoch is the attempt's."""

    at_ms: int
    worker: str


class AttemptFailed(NamedTuple):
    """Event: an attempt ended without an outcome. `retry_ms` is -1 where nothing was scheduled."""

    at_ms: int
    error: str
    stack: str
    command: str
    retry_ms: int


class Paused(NamedTuple):
    """Event: the invocation waits for an operator, and why."""

    at_ms: int
    reason: str


class Output(NamedTuple):
    """The one recorded outcome. Nothing the handler sees comes after it."""

    at_ms: int
    outcome: Outcome


class Unknown(NamedTuple):
    """An entry of a type that this version does not know: kept, shown, and never guessed at."""

    type: str
    body: bytes


Command = Run | Sleep
Event = StepFailed | AttemptStarted | AttemptFailed | Paused
Entry = Input | Run | Sleep | Completion | StepFailed | AttemptStarted | AttemptFailed | Paused | Output | Unknown


class Positioned(NamedTuple):
    """An entry where it stands: the `position`-th of its journal, written under `epoch`."""

    position: int
    epoch: int
    entry: Entry
