"""What a client asked for, and what it knows of it. PURE."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

FED: Final = "fed"
OFFER: Final = "offer"
RUN: Final = "run"
ASKED: Final = "asked"
CANCELLED: Final = "cancelled"
KILLED: Final = "killed"
PAUSED: Final = "paused"

VISITS: Final = (ASKED, CANCELLED, KILLED, PAUSED)


@dataclass
class Request:
    """What a client asked for, and what it knows of it. Times are of the machine's monotonic clock.

    Attributes:
        tag: Its own.
        kind: `plan`, `order`, `parcel`, or `delayed` for a plan that is to begin later; a visit of a desk that is
            `asked` for what it waits for, `cancelled`, `killed` or `paused`; `run` of a workflow, `offer` of its
            promise's value by a handler; `fed` for a record of somebody else's topic, one for each try.
        tags: Of all invocations that come of it, its own among them.
        orders: Those among them that are orders: to which account, and how much.
        number: Of an order: the how manieth to this account from this client, from 1.
        key: Of a visit: the desk. Of a run and of what is offered to it: the workflow's key. Of a record: its own.
        waits: Of a visit: for what.
        value: What a client answers, or completes a promise with, or has a handler complete it with.
        races: Whether what is cancelled or killed is answered, too.
        pauses: How often it is to be paused.
        act_ms: From when on the client insists on what it wants of it.
        invocation_id: Once it was acknowledged.
        ids: Under which it was acknowledged, once for each time that it was sent on purpose.
        not_before_ms: When it may begin.
        sent_ms: When it was sent first.
        acknowledged_ms: When Kafka had it.
        outcome: What the client was told, as JSON's value; a failure as text.
        outcome_ms: When.
        accepted: What it was told to have changed, and when: `signal`, `awakeable`, `promise`, `cancel` or `kill`.
        promised: What the promise held behind the outcome, where that is known.
        tries: How often it was sent.
    """

    tag: str
    kind: str
    tags: tuple[str, ...]
    orders: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    number: int = 0
    key: str = ""
    waits: str = ""
    value: str = ""
    races: bool = False
    pauses: int = 0
    act_ms: int = 0
    invocation_id: str = ""
    ids: tuple[str, ...] = ()
    not_before_ms: int = 0
    sent_ms: int = 0
    acknowledged_ms: int = 0
    outcome: Any = None
    outcome_ms: int = 0
    accepted: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    promised: str = ""
    tries: int = 0

    @property
    def awaited(self) -> bool:
        """Whether its client waits for an outcome."""
        return self.kind != FED


def failure_text(code: int, message: str) -> str:
    """How a failure is written down as an outcome."""
    return f"TerminalError {code}: {message}"


CANCELLED_TEXT: Final = failure_text(409, "cancelled")
KILLED_TEXT: Final = failure_text(409, "killed")
