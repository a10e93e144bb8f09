"""Commands of objects, calls, promises, awakeables and signals: journal entries, as those in `entries`."""

from __future__ import annotations

from typing import NamedTuple

from .ids import InvocationId
from .outcomes import Headers, Identity, Outcome


class Lookup(NamedTuple):
    """Something that was read or done in the store for the handler, and what came of it, in one entry.

    `type` is one of `LOOKUPS`. `eager`: the answer was there when the handler asked, and is so in every replay.
    """

    type: str
    command_index: int
    name: str
    at_ms: int
    eager: bool
    outcome: Outcome

    @property
    def identity(self) -> Identity:
        """Its type and its name."""
        return Identity(self.type, self.name)


GET = "get"
STATE_KEYS = "state_keys"
PEEK = "peek_promise"
COMPLETE_PROMISE = "complete_promise"

LOOKUPS = (GET, STATE_KEYS, PEEK, COMPLETE_PROMISE)
"""Types of `Lookup`."""


class Call(NamedTuple):
    """Command: invoke a handler, and be told its outcome.

    Attributes:
        command_index: Its place in program order.
        at_ms: When it was asked for.
        service: Whose handler.
        handler: Its name.
        key: Of the object or workflow.
        invocation_id: Of the invocation that it makes or finds.
        idempotency_key: Where the caller gave one, else empty.
        headers: For the callee.
        value: The argument.
    """

    command_index: int
    at_ms: int
    service: str
    handler: str
    key: str | None
    invocation_id: InvocationId
    idempotency_key: str
    headers: Headers
    value: bytes

    @property
    def identity(self) -> Identity:
        """`call`, whom, and the key; not the argument."""
        return Identity("call", f"{self.service}/{self.handler}", key=self.key or "")


class Send(NamedTuple):
    """Command: invoke a handler and go on. `not_before_ms` delays it (0: at once); the rest is as in `Call`."""

    command_index: int
    at_ms: int
    service: str
    handler: str
    key: str | None
    invocation_id: InvocationId
    idempotency_key: str
    headers: Headers
    not_before_ms: int
    value: bytes

    @property
    def identity(self) -> Identity:
        """`send`, whom, and the key; not the argument and not the delay."""
        return Identity("send", f"{self.service}/{self.handler}", key=self.key or "")


class Attach(NamedTuple):
    """Command: be told the outcome of another invocation."""

    command_index: int
    at_ms: int
    invocation_id: InvocationId

    @property
    def identity(self) -> Identity:
        """`attach`; ids may be passed in from outside, so which one is part of it."""
        return Identity("attach", "", target=self.invocation_id)


class Awakeable(NamedTuple):
    """Command: wait for a completion that anybody who knows the id may bring."""

    command_index: int
    at_ms: int

    @property
    def identity(self) -> Identity:
        """`awakeable`."""
        return Identity("awakeable", "")


class SignalWait(NamedTuple):
    """Command: wait for the next signal of that name."""

    command_index: int
    at_ms: int
    name: str

    @property
    def identity(self) -> Identity:
        """`signal` and its name."""
        return Identity("signal", self.name)


class PromiseWait(NamedTuple):
    """Command: wait until a promise of the workflow is completed."""

    command_index: int
    at_ms: int
    name: str

    @property
    def identity(self) -> Identity:
        """`promise` and its name."""
        return Identity("promise", self.name)


class Resolve(NamedTuple):
    """Command: complete an awakeable of another invocation, or signal it.

    `name` is the signal's; empty for an awakeable, whose command index is `awaited_index` (-1 for signals).
    """

    command_index: int
    at_ms: int
    invocation_id: InvocationId
    awaited_index: int
    name: str
    outcome: Outcome

    @property
    def identity(self) -> Identity:
        """`resolve`, the signal's name, and whose."""
        return Identity("resolve", self.name, target=self.invocation_id)


class CancelOther(NamedTuple):
    """Command: cancel another invocation."""

    command_index: int
    at_ms: int
    invocation_id: InvocationId

    @property
    def identity(self) -> Identity:
        """`cancel_invocation`, and which."""
        return Identity("cancel_invocation", "", target=self.invocation_id)


class SetState(NamedTuple):
    """Command: write one value of the object's state."""

    command_index: int
    name: str
    value: bytes

    @property
    def identity(self) -> Identity:
        """`set` and the state's name; not the value."""
        return Identity("set", self.name)


class ClearState(NamedTuple):
    """Command: remove one value of the object's state."""

    command_index: int
    name: str

    @property
    def identity(self) -> Identity:
        """`clear` and the state's name."""
        return Identity("clear", self.name)


class ClearAll(NamedTuple):
    """Command: remove the object's whole state."""

    command_index: int

    @property
    def identity(self) -> Identity:
        """`clear_all`."""
        return Identity("clear_all", "")
