"""The part of a client that brings what invocations wait for: awakeables, signals, promises of workflows."""

from __future__ import annotations

from typing import Any

from perdure.schemas.entries import Completion, Outcome, Signalled, Success
from perdure.schemas.errors import ConflictError, TerminalError, UsageError

from .callees import checked_awakeable
from .client_connection import ClientConnection, Named, name_of, unknown
from .envelope import checked_id
from .refusals import refusal
from .serde import DEFAULT_SERDE, Serde


class ClientCompletions(ClientConnection):
    """Completing from outside."""

    async def resolve_awakeable(
        self, awakeable_id: str, value: object = None, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None
    ) -> bool:
        """Complete an awakeable. The first completion counts.

        The result may come before the command is recorded: a handler hands the id out before that. It is kept, and is
        that command's if it is an awakeable. So an id that somebody made up is refused only where another command has
        its index, or none can have it (`JOURNAL_ENTRIES_CEILING`).

        Returns:
            Whether this one did.

        Raises:
            InvocationNotFoundError: Its invocation is not known.
            ConflictError: The command of that index is no awakeable, or its invocation was sent too much already.
            UsageError: It cannot be the id of an awakeable.
            SerdeError: The value cannot be written.
        """
        what = f"The value of awakeable {awakeable_id}"
        return await self._awake(awakeable_id, self._success(value, serde, type_hint, what=what))

    async def reject_awakeable(self, awakeable_id: str, message: str, code: int = 500) -> bool:
        """Complete an awakeable with a failure, which is raised as a TerminalError; as `resolve_awakeable`.

        Raises:
            InvocationNotFoundError: Its invocation is not known.
            ConflictError: The command of that index is no awakeable, or its invocation was sent too much already.
            UsageError: It cannot be the id of an awakeable.
        """
        return await self._awake(awakeable_id, self._failure(message, code))

    async def send_signal(
        self,
        invocation_id: str,
        name: str,
        value: object = None,
        serde: Serde[Any] = DEFAULT_SERDE,
        type_hint: Any = None,
        *,
        once: str | None = None,
    ) -> bool:
        """Signal an invocation. It is kept until the handler waits for that name; each counts.

        Args:
            invocation_id: Whom.
            name: What the handler waits for.
            value: What it gets.
            serde: How the value travels.
            type_hint: Its type.
            once: A name of your own: with the same one it is the same signal.

        Returns:
            Whether it came: not where the invocation is completed, or knows this `once` already.

        Raises:
            InvocationNotFoundError: There is none of that id.
            ConflictError: It was sent too much already.
            UsageError: It is not an invocation id, or there is no name.
            SerdeError: The value cannot be written.
        """
        outcome = self._success(value, serde, type_hint, what=f"The value of signal {name!r}")
        return await self._signal(invocation_id, name, outcome, once)

    async def reject_signal(
        self, invocation_id: str, name: str, message: str, code: int = 500, *, once: str | None = None
    ) -> bool:
        """Signal a failure, which is raised as a TerminalError; as `send_signal`.

        Raises:
            InvocationNotFoundError: There is none of that id.
            ConflictError: It was sent too much already.
            UsageError: It is not an invocation id, or there is no name.
        """
        return await self._signal(invocation_id, name, self._failure(message, code), once)

    async def peek_promise(
        self, workflow: Named, key: str, name: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None
    ) -> Any:
        """The value of a workflow's promise; `None` while it is open.

        Raises:
            TerminalError: It was rejected.
            UsageError: The workflow or the key cannot be one.
        """
        outcome = await self.promise_outcome(workflow, key, name)
        if outcome is None:
            return None
        if isinstance(outcome, Success):
            return self._value(outcome.value, serde, type_hint, what=f"The value of promise {name!r}")
        raise outcome.to_error()

    async def promise_outcome(self, workflow: Named, key: str, name: str) -> Outcome | None:
        """What a workflow's promise was completed with, without judging it; `None` while it is open.

        Raises:
            UsageError: The workflow or the key cannot be one.
        """
        found = await self._store.peek_promise(_target(workflow, key), name)
        return None if found is None else self._opened(found.outcome)

    async def resolve_promise(
        self,
        workflow: Named,
        key: str,
        name: str,
        value: object = None,
        serde: Serde[Any] = DEFAULT_SERDE,
        type_hint: Any = None,
    ) -> None:
        """Complete a promise of a workflow, before, while or after its `main` runs.

        Raises:
            TerminalError: With code 409, where it is completed already.
            UsageError: The workflow or the key cannot be one.
            SerdeError: The value cannot be written.
        """
        outcome = self._success(value, serde, type_hint, what=f"The value of promise {name!r}")
        await self._promise(workflow, key, name, outcome)

    async def reject_promise(self, workflow: Named, key: str, name: str, message: str, code: int = 500) -> None:
        """Complete a promise with a failure, which is raised as a TerminalError; as `resolve_promise`.

        Raises:
            TerminalError: With code 409, where it is completed already.
            UsageError: The workflow or the key cannot be one.
        """
        await self._promise(workflow, key, name, self._failure(message, code))

    async def _awake(self, awakeable_id: str, outcome: Outcome) -> bool:
        invocation_id, index = checked_awakeable(awakeable_id)
        entry = Completion(index, self._clock.now_ms(), outcome)
        delivery = await self._store.complete_awakeable(invocation_id, entry)
        if delivery.result == "unknown":
            raise unknown(invocation_id)
        if refused := refusal(delivery, invocation_id, index):
            raise ConflictError(refused)
        await self._leave_to_workers(delivery.due)
        return delivery.result == "delivered"

    async def _signal(self, invocation_id: str, name: str, outcome: Outcome, once: str | None) -> bool:
        chosen = checked_id(invocation_id)
        if not name:
            raise UsageError("A signal needs a name.")
        entry = Signalled(name, self._clock.now_ms(), outcome)
        delivery = await self._store.deliver(chosen, entry, once=self._once("s", once))
        if delivery.result == "unknown":
            raise unknown(chosen)
        if refused := refusal(delivery, chosen):
            raise ConflictError(refused)
        await self._leave_to_workers(delivery.due)
        return delivery.result == "delivered"

    async def _promise(self, workflow: Named, key: str, name: str, outcome: Outcome) -> None:
        target = _target(workflow, key)
        done, due = await self._store.complete_promise(target, name, outcome, by=self._once("by", None))
        if not done:
            raise TerminalError(f"The promise {name!r} of {target} is completed already.", 409)
        await self._leave_to_workers(due)


def _target(workflow: Named, key: str) -> str:
    if not key:
        raise UsageError("A workflow needs a key.")
    return f"{name_of(workflow)}/{key}"
