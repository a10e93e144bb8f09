"""Every exception of Perdure, split by what the catcher must do.

```
PerdureError                        str() is a full sentence: what happened, to what, what to do next
├── TerminalError                   raised by handler authors: becomes the recorded outcome (code, message, metadata)
├── RetryableError                  raised by handler authors: the attempt or step is tried again, after `retry_after`
├── DefinitionError (ValueError)    a service, handler or option is wrong: mend the code; raised at definition
├── UsageError                      `ctx` was used where it may not be: mend the handler; fails the attempt
├── ConflictError                   what is asked for cannot be done in this state: do first what the message says
├── SettingsError                   a setting or the command line is wrong: exit code 2
├── DecodeError                     bytes are not what their place demands: dead-letter the record, never retry
├── SerdeError                      a value could not be turned into bytes or back: a retryable failure of the attempt
├── HandlerNotFoundError            no such handler in this worker: retryable, a rolling deployment heals it
├── JournalMismatchError            the handler diverged from its journal: pause at once, show the diff
├── FencedError                     another attempt owns the invocation: end silently, append nothing
├── GapError                        the store lost what was appended: abandon the attempt and replay
├── StoreError                      Redis refused or cannot serve: the message says which command mends it
├── BrokerError                     Kafka refused or did not answer: nothing was acknowledged, send again
│   └── RecordTooLargeError         the record is over a limit: sending it again cannot help
├── ServerProcessError              a server that we started ourselves (embedded, tests) did not: read the log it names
└── InvocationNotFoundError         the store knows no invocation of that id (never admitted, or expired)
```
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta


def text_of(error: BaseException) -> str:
    """An error's own text, whatever its code does; may be empty, and of any length."""
    try:
        return str(error)
    # The author's code.
    except Exception as broken:
        return f"(no text: its __str__ raised {type(broken).__name__})"


class PerdureError(Exception):
    """The root of everything that Perdure raises on purpose."""


class TerminalError(PerdureError):
    """Ends an invocation, or a step, for good: recorded once and raised again by every replay.

    Args:
        message: What the caller is told.
        status_code: An HTTP-like code that travels with the failure.
        metadata: Small strings that travel with the failure.
    """

    def __init__(self, message: str, status_code: int = 500, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.metadata: dict[str, str] = dict(metadata or {})


class RetryableError(PerdureError):
    """Fails this attempt or step and asks for another one.

    Args:
        message: Why, for the journal and for people.
        status_code: An HTTP-like code, kept with the failure.
        retry_after: The delay before the next try; `None` leaves it to the policy in force.
    """

    def __init__(self, message: str, status_code: int = 500, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.retry_after = retry_after


class DefinitionError(PerdureError, ValueError):
    """A service, handler or option was defined wrongly; the message names the function."""


class UsageError(PerdureError):
    """`ctx` was used where it may not be, such as inside a step or after the attempt ended."""


class ConflictError(PerdureError):
    """An invocation or an object is in a state in which what is asked for cannot be done; the message says which."""


class SettingsError(PerdureError):
    """A setting or a command-line argument is wrong; the message names it. Exit code 2."""


class DecodeError(PerdureError):
    """Bytes are not what their place demands. Poison: dead-letter it, never retry."""


class SerdeError(PerdureError):
    """A value could not be serialised, or bytes could not be read as the declared type."""


class HandlerNotFoundError(PerdureError):
    """This worker has no such handler. Retryable: during a rolling deployment another one may."""


class JournalMismatchError(PerdureError):
    """The handler issued another command than its journal holds at that index.

    Attributes:
        index: The command index at which they differ.
        recorded: The command in the journal, as a line for people.
        issued: The command of this attempt, as a line for people.
        likely: What such a difference mostly comes from.
        where: The handler's line, as `file:line, in function`; empty where it is not known.
    """

    def __init__(self, *, index: int, recorded: str, issued: str, likely: str = "", where: str = "") -> None:
        super().__init__(
            f"The handler diverged from its journal at command {index}.\n"
            f"  journal: {recorded}\n"
            f"  handler: {issued}\n"
            + (f"       at: {where}\n" if where else "")
            + (f"{likely} " if likely else "")
            + "The code changed while this invocation was in flight, or it reads something that is not recorded (time, "
            "random numbers, a global). Wrap that in ctx.run, or deploy the old code, and resume."
        )
        self.index = index
        self.recorded = recorded
        self.issued = issued
        self.likely = likely
        self.where = where

    def at(self, where: str) -> JournalMismatchError:
        """The same, with the handler's line."""
        return JournalMismatchError(
            index=self.index, recorded=self.recorded, issued=self.issued, likely=self.likely, where=where
        )


class FencedError(PerdureError):
    """A later epoch or another token holds the invocation; nothing was written."""


class GapError(PerdureError):
    """The journal in the store is shorter than what this attempt has seen: the store lost writes."""


class StoreError(PerdureError):
    """Redis refused a command, or is set up so that it cannot keep what it is told."""


class BrokerError(PerdureError):
    """Kafka refused a request or did not answer in time; what was sent is not acknowledged."""


class ServerProcessError(PerdureError):
    """A Redis or Kafka that Perdure runs as a child process did not start, or does not run; the log is named."""


class RecordTooLargeError(BrokerError):
    """A record is larger than the producer, or the topic, takes; the message names the limit. Never retry as it is."""


class InvocationNotFoundError(PerdureError):
    """The store knows no invocation of that id: it was never admitted, or its retention ended."""
