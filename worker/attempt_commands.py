"""The commands of one attempt beyond steps and timers: calls, state, promises, awakeables, signals.

Each takes its command index at the call. What comes of it is decided by the machine and by the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any, Protocol, TypeVar

import orjson

from perdure.journal.machine import Machine
from perdure.journal.promised import ALREADY, COMPLETED, completer
from perdure.journal.store import Claim, Due, Store
from perdure.schemas.commands import (
    COMPLETE_PROMISE,
    GET,
    PEEK,
    STATE_KEYS,
    Attach,
    Awakeable,
    Call,
    CancelOther,
    ClearAll,
    ClearState,
    PromiseWait,
    Resolve,
    Send,
    SetState,
    SignalWait,
)
from perdure.schemas.entries import Failure, Outcome, Success, Waiting, Written
from perdure.schemas.errors import SerdeError, UsageError
from perdure.schemas.ids import (
    InvocationId,
    awakeable_id,
    id_of_call,
    id_of_idempotency_key,
    id_of_workflow,
)
from perdure.schemas.limits import CHILDREN_MAX, PAYLOAD_BYTES_MAX

from .callees import (
    LATEST_MS,
    Asked,
    Callee,
    checked_awakeable,
    checked_headers,
    checked_id,
    checked_name,
    checked_outcome,
)
from .clock import Clock
from .futures import DurableCallFuture, DurableFuture
from .sealing import Sealer
from .serde import JSON, Serde, decode_value, encode_value
from .state_view import StateView

T = TypeVar("T")

ABSENT = Failure(404, "there is no such value")
"""How the journal says that a state has no value, or a promise no outcome yet."""

Settle = Callable[[DurableFuture[Any], Outcome], None]
"""Gives a future what the journal holds."""


class Issuer(Protocol):
    """An attempt, as its commands see it."""

    claim: Claim
    clock: Clock
    machine: Machine
    store: Store

    def act(self, due: Sequence[Due]) -> None:
        """See to what a transition of the store has left to do."""

    def issue(
        self,
        what: str,
        command: Callable[[int], Waiting | Written],
        settle: Settle | None = None,
        future: DurableFuture[Any] | None = None,
    ) -> DurableFuture[Any]:
        """Issue a command, made for its index; `settle` and `future` are for those that have a result."""

    def look_up(
        self,
        what: str,
        kind: str,
        name: str,
        *,
        known: Outcome | None,
        ask: Callable[[int], Awaitable[Outcome]],
        settle: Settle,
    ) -> DurableFuture[Any]:
        """Issue a lookup: the answer is `known`, or is what `ask`, given the command index, brings."""


class Commands:
    """Issues commands for one attempt.

    Args:
        issuer: The attempt.
        state: What is known of its object's state.
        sealer: Of the application's payload codec.
        mains: See `AttemptLimits.mains`; for calls by name.
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        state: StateView,
        sealer: Sealer | None = None,
        mains: Set[tuple[str, str]] = frozenset(),
    ) -> None:
        self._issuer = issuer
        self._state = state
        self._sealer = sealer
        self._mains = mains
        self._children = 0

    def _sealed(self, payload: bytes) -> bytes:
        return payload if self._sealer is None else self._sealer.seal(payload)

    def _sealed_outcome(self, outcome: Outcome) -> Outcome:
        return outcome if self._sealer is None else self._sealer.seal_outcome(outcome)

    @property
    def _invocation_id(self) -> InvocationId:
        return self._issuer.claim.lease.invocation_id

    def call(self, callee: Callee, argument: bytes, asked: Asked, serde: Serde[Any]) -> DurableCallFuture[Any]:
        """Invoke a handler; the future of its outcome."""
        headers = checked_headers(callee, argument, asked)
        self._one_more_child(callee)
        argument = self._sealed(argument)
        invocation_id = self._id_of(callee, asked)

        def command(index: int) -> Call:
            return Call(
                index,
                self._issuer.clock.now_ms(),
                callee.service,
                callee.handler,
                callee.key,
                invocation_id,
                asked.idempotency_key or "",
                headers,
                argument,
            )

        future = DurableCallFuture[Any](loop=asyncio.get_running_loop())
        future._invocation_id = invocation_id
        future._cancel_callee = lambda: self.cancel(invocation_id)
        self._issuer.issue(f"a call of {callee.name}", command, value_of(serde, callee.name), future)
        return future

    def send(self, callee: Callee, argument: bytes, asked: Asked) -> InvocationId:
        """Invoke a handler and go on; its id."""
        headers, at_ms = checked_headers(callee, argument, asked), self._issuer.clock.now_ms()
        if at_ms + asked.delay_ms > LATEST_MS:
            raise UsageError(f"A send to {callee.name} is delayed beyond the year 9999.")
        self._one_more_child(callee)
        argument = self._sealed(argument)
        invocation_id = self._id_of(callee, asked)

        def command(index: int) -> Send:
            return Send(
                index,
                at_ms,
                callee.service,
                callee.handler,
                callee.key,
                invocation_id,
                asked.idempotency_key or "",
                headers,
                at_ms + asked.delay_ms if asked.delay_ms else 0,
                argument,
            )

        self._issuer.issue(f"a send to {callee.name}", command)
        return invocation_id

    def _one_more_child(self, callee: Callee) -> None:
        # Counted by asking, so that it is the same in every replay.
        if self._children >= CHILDREN_MAX:
            raise UsageError(
                f"{callee.name} would be child {self._children + 1} of {self._invocation_id}; {CHILDREN_MAX} are "
                "allowed. Have its children call some of them."
            )
        self._children += 1

    def _id_of(self, callee: Callee, asked: Asked) -> InvocationId:
        index = self._issuer.machine.next_index
        recorded = self._issuer.machine.recorded(index)
        if isinstance(recorded, Call | Send):
            # What is known of other applications' services may have changed since.
            return recorded.invocation_id
        service, key = callee.service, callee.key
        if key is not None and (callee.main or (service, callee.handler) in self._mains):
            return id_of_workflow(service, key)
        if asked.idempotency_key:
            return id_of_idempotency_key(service, callee.handler, key, idempotency_key=asked.idempotency_key)
        return id_of_call(service, key, parent=self._invocation_id, command_index=index)

    def attach(self, invocation_id: str, serde: Serde[Any]) -> DurableFuture[Any]:
        """Wait for another invocation's outcome."""
        checked = checked_id(invocation_id)
        return self._issuer.issue(
            "attach_invocation",
            lambda index: Attach(index, self._issuer.clock.now_ms(), checked),
            value_of(serde, invocation_id),
        )

    def cancel(self, invocation_id: str) -> None:
        """Cancel another invocation."""
        checked = checked_id(invocation_id)
        self._issuer.issue("cancel_invocation", lambda index: CancelOther(index, self._issuer.clock.now_ms(), checked))

    def awakeable(self, serde: Serde[Any]) -> tuple[str, DurableFuture[Any]]:
        """A name under which anybody may complete the future."""
        future = self._issuer.issue(
            "awakeable", lambda index: Awakeable(index, self._issuer.clock.now_ms()), value_of(serde, "an awakeable")
        )
        return awakeable_id(self._invocation_id, future.command_index), future

    def complete_awakeable(self, name: str, outcome: Outcome) -> None:
        """Complete an awakeable of any invocation; the first completion counts."""
        invocation_id, awaited = checked_awakeable(name)
        at_ms, outcome = self._issuer.clock.now_ms(), self._sealed_outcome(checked_outcome("The value", outcome))
        self._issuer.issue(
            "resolve_awakeable", lambda index: Resolve(index, at_ms, invocation_id, awaited, "", outcome)
        )

    def signal(self, name: str, serde: Serde[Any]) -> DurableFuture[Any]:
        """Wait for the next signal of that name to this invocation."""
        checked = checked_name("A signal", name)
        return self._issuer.issue(
            "signal", lambda index: SignalWait(index, self._issuer.clock.now_ms(), checked), value_of(serde, name)
        )

    def send_signal(self, invocation_id: str, name: str, outcome: Outcome) -> None:
        """Send a signal to an invocation."""
        checked, to = checked_name("A signal", name), checked_id(invocation_id)
        at_ms, outcome = self._issuer.clock.now_ms(), self._sealed_outcome(checked_outcome("The value", outcome))
        self._issuer.issue("resolve_signal", lambda index: Resolve(index, at_ms, to, -1, checked, outcome))

    def get(self, name: str, serde: Serde[Any]) -> DurableFuture[Any]:
        """Read a value of the object's state; `None` where there is none."""
        checked_name("A state", name)
        known: Outcome | None = None
        if self._state.knows(name):
            value = self._state.value(name)
            known = ABSENT if value is None else Success(value)

        async def ask(index: int) -> Outcome:
            value = await self._issuer.store.read_value(self._issuer.claim.lease.target, name)
            return ABSENT if value is None else Success(value)

        settle = value_or_none(serde, f"state {name!r}")
        return self._issuer.look_up("ctx.get", GET, name, known=known, ask=ask, settle=settle)

    def state_keys(self) -> DurableFuture[list[str]]:
        """All names of the object's state, sorted."""
        names = self._state.keys()
        # As it is at the call, whenever the store answers.
        view = self._state.snapshot() if names is None else self._state

        async def ask(index: int) -> Outcome:
            stored = await self._issuer.store.read_names(self._issuer.claim.lease.target)
            return Success(orjson.dumps(view.merged(stored)))

        known = None if names is None else Success(orjson.dumps(names))
        return self._issuer.look_up(
            "ctx.state_keys", STATE_KEYS, "", known=known, ask=ask, settle=value_of(JSON, "the state's names")
        )

    def set(self, name: str, value: object, serde: Serde[Any]) -> None:
        """Write a value of the object's state."""
        checked = checked_name("A state", name)
        raw = encode_value(serde, value, what=f"The state {name!r}")
        if len(raw) > PAYLOAD_BYTES_MAX:
            raise SerdeError(f"The state {name!r} has {len(raw)} bytes; at most {PAYLOAD_BYTES_MAX} are allowed.")
        raw = self._sealed(raw)
        self._issuer.issue("ctx.set", lambda index: SetState(index, checked, raw))
        self._state.set(checked, raw)

    def clear(self, name: str) -> None:
        """Remove a value of the object's state."""
        checked = checked_name("A state", name)
        self._issuer.issue("ctx.clear", lambda index: ClearState(index, checked))
        self._state.clear(checked)

    def clear_all(self) -> None:
        """Remove the object's whole state."""
        self._issuer.issue("ctx.clear_all", ClearAll)
        self._state.clear_all()

    def promise(self, name: str, serde: Serde[Any]) -> DurableFuture[Any]:
        """Wait for a promise of the workflow."""
        checked = checked_name("A promise", name)
        return self._issuer.issue(
            "promise", lambda index: PromiseWait(index, self._issuer.clock.now_ms(), checked), value_of(serde, name)
        )

    def peek(self, name: str, serde: Serde[Any]) -> DurableFuture[Any]:
        """A promise's value; `None` while it is open."""
        checked = checked_name("A promise", name)

        async def ask(index: int) -> Outcome:
            promise = await self._issuer.store.peek_promise(self._issuer.claim.lease.target, checked)
            return ABSENT if promise is None else promise.outcome

        settle = value_or_none(serde, f"promise {name!r}")
        return self._issuer.look_up("promise.peek", PEEK, checked, known=None, ask=ask, settle=settle)

    def complete_promise(self, name: str, outcome: Outcome) -> DurableFuture[None]:
        """Complete a promise; a TerminalError 409 where somebody else has."""
        checked = checked_name("A promise", name)
        outcome = self._sealed_outcome(checked_outcome(f"The value of promise {name!r}", outcome))

        async def ask(index: int) -> Outcome:
            by = completer(self._invocation_id, index)
            target = self._issuer.claim.lease.target
            won, due = await self._issuer.store.complete_promise(target, checked, outcome, by=by)
            self._issuer.act(due)
            return COMPLETED if won else ALREADY

        return self._issuer.look_up(
            "promise.resolve", COMPLETE_PROMISE, checked, known=None, ask=ask, settle=value_of(JSON, "a promise")
        )


def value_of(serde: Serde[Any], what: str) -> Settle:
    """Give a future the value that a serde reads, or the error."""

    def settle(future: DurableFuture[Any], outcome: Outcome) -> None:
        match outcome:
            case Failure() as failure:
                future.set_exception(failure.to_error())
            case Success(raw):
                try:
                    future.set_result(decode_value(serde, raw, what=f"The recorded result of {what}"))
                except Exception as error:
                    future.set_exception(error)

    return settle


def value_or_none(serde: Serde[Any], what: str) -> Settle:
    """As `value_of`, and `None` for `ABSENT`."""
    read = value_of(serde, what)

    def settle(future: DurableFuture[Any], outcome: Outcome) -> None:
        if outcome == ABSENT:
            future.set_result(None)
        else:
            read(future, outcome)

    return settle
