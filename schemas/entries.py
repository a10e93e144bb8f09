"""The journal's entries: what each one holds. How they become bytes is in `codec`.

A journal is one stream per invocation; entry ids are `<position>-<epoch>`: the n-th entry, written under that epoch.
Three families:

- a **command** is what the handler asked for, at a command index counted in program order (0, 1, ...);
- a **completion** is the result of a command. A `Run` is both in one entry: the step was asked for and this is its
  result, which is why a step costs one entry;
- an **event** is told for people and for counters, and never seen by the handler. Two are seen, because the outside
  speaks to the handler by them: `Signalled` and `Cancelled`.

By where a command's result comes from:

| commands | result |
|---|---|
| `Run`, `Lookup` | worked out by the worker and recorded with the command, in one entry |
| `Call`, `Attach`, `Awakeable`, `PromiseWait`, `Sleep` | a `Completion`, written by whoever brings it |
| `SignalWait` | the next `Signalled` of that name that no other wait has taken |
| `Send`, `Resolve`, `CancelOther`, `SetState`, `ClearState`, `ClearAll` | none: they are done when they are written |

What must reach another invocation (`OUTGOING`) gets a deadline in `due` in the script that writes it, and is sent until
it was taken there.
"""

from __future__ import annotations

from typing import NamedTuple

from .commands import (
    Attach,
    Awakeable,
    Call,
    CancelOther,
    ClearAll,
    ClearState,
    Lookup,
    PromiseWait,
    Resolve,
    Send,
    SetState,
    SignalWait,
)
from .ids import InvocationId
from .outcomes import Failure as Failure
from .outcomes import Headers as Headers
from .outcomes import Identity as Identity
from .outcomes import Outcome as Outcome
from .outcomes import Success as Success


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


class CancelChild(NamedTuple):
    """Event: the cancellation at position `cause` goes on to a callee."""

    at_ms: int
    cause: int
    invocation_id: InvocationId


class Signalled(NamedTuple):
    """From outside: a signal. The waits of its name take signals in order; it may come before any."""

    name: str
    at_ms: int
    outcome: Outcome


class Cancelled(NamedTuple):
    """From outside: the invocation is asked to end. Seen by the handler as a TerminalError 409 where it waits."""

    at_ms: int


class PauseAsked(NamedTuple):
    """From outside: an operator wants the running attempt to pause."""

    at_ms: int


class Resumed(NamedTuple):
    """Event: an operator let a paused invocation go on; consecutive failures count from 0 again."""

    at_ms: int


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


Waiting = Call | Attach | Awakeable | SignalWait | PromiseWait
"""Commands whose result the outside brings; `Sleep` is one, too, with a way of its own."""

Written = Send | Resolve | CancelOther | SetState | ClearState | ClearAll
"""Commands that are done when they are written."""

OUTGOING = (Call, Send, Attach, Resolve, CancelOther, CancelChild, PromiseWait)
"""What has to reach something beside this journal, and has a deadline in `due` until it did."""

Command = Run | Lookup | Sleep | Waiting | Written
Event = StepFailed | AttemptStarted | AttemptFailed | Paused | CancelChild | PauseAsked | Resumed
Entry = Command | Event | Input | Completion | Signalled | Cancelled | Output | Unknown


class Positioned(NamedTuple):
    """An entry where it stands: the `position`-th of its journal, written under `epoch`."""

    position: int
    epoch: int
    entry: Entry
