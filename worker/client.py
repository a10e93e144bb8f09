"""Calling handlers from Python, and operating what they do. Asynchronous; nothing here blocks the event loop.

```
send/call --envelope--> Kafka <ns>.<Service> ... worker ... Redis --outcome--> one subscription --> every wait
```
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar, overload

from perdure.schemas.entries import Outcome
from perdure.schemas.errors import RecordTooLargeError, UsageError
from perdure.schemas.ids import InvocationId, id_of_workflow, new_invocation_id

from .broker import Outgoing
from .client_completions import ClientCompletions
from .client_controls import ClientControls
from .client_handle import Find, Handle
from .client_reading import ClientReading
from .client_state import ClientState
from .envelope import NOTHING, Options, Target, checked_id, envelope_of, placed, target_of, untyped_result_of
from .handler import HandlerMode
from .outcomes import Expected, Outcomes
from .service_kinds import Description, read_description
from .topics import service_topic

TOPICS_MAX = 1024
"""Names of topics that are kept ready, so that their parts are not checked for each record."""

_topic = lru_cache(TOPICS_MAX)(service_topic)

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Client(ClientControls, ClientCompletions, ClientState, ClientReading):
    """Sends invocations, waits for their outcomes, and operates them. Use as an async context manager, one per process.

    Args:
        settings: Where Kafka and Redis are; without it, what the environment says.
        payload_codec: The one that the application was made with, if it was.
    """

    @overload
    async def send(
        self,
        target: Callable[[Any, Argument], Awaitable[Result]],
        argument: Argument,
        *,
        id: str | None = ...,
        idempotency_key: str | None = ...,
        key: str | None = ...,
        not_before: datetime | None = ...,
        delay: timedelta | None = ...,
        headers: Mapping[str, str] | None = ...,
        reply_to: str | None = ...,
    ) -> Handle[Result]: ...
    @overload
    async def send(
        self,
        target: Callable[[Any], Awaitable[Result]],
        *,
        id: str | None = ...,
        idempotency_key: str | None = ...,
        key: str | None = ...,
        not_before: datetime | None = ...,
        delay: timedelta | None = ...,
        headers: Mapping[str, str] | None = ...,
        reply_to: str | None = ...,
    ) -> Handle[Result]: ...
    @overload
    async def send(
        self,
        target: str,
        argument: object = ...,
        *,
        id: str | None = ...,
        idempotency_key: str | None = ...,
        key: str | None = ...,
        not_before: datetime | None = ...,
        delay: timedelta | None = ...,
        headers: Mapping[str, str] | None = ...,
        reply_to: str | None = ...,
    ) -> Handle[Any]: ...
    async def send(
        self,
        target: str | Callable[..., Awaitable[Any]],
        argument: object = NOTHING,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
        key: str | None = None,
        not_before: datetime | None = None,
        delay: timedelta | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
    ) -> Handle[Any]:
        """Have a handler run, and return once Kafka has acknowledged it: from then on it will be done.

        Args:
            target: `"Service/handler"`, or the handler function itself.
            argument: Left out for a handler that takes none. With a name as target it travels as JSON.
            id: An id of your own making (`new_invocation_id`); sending it again does nothing.
            idempotency_key: A name of your own for this invocation; likewise, while its result is kept.
            key: The object's or workflow's.
            not_before: Do not start before; needs a time zone. Not together with `delay`.
            delay: Likewise, from now on by this machine's clock.
            headers: For the handler.
            reply_to: A topic that the outcome is produced to.

        Raises:
            UsageError: The target or an option is not of its form.
            SettingsError: There is no topic for this service.
            SerdeError: The argument is not of the declared type.
            RecordTooLargeError: The argument is too large.
            BrokerError: Kafka did not acknowledge it in time; it may still arrive. With `id` or `idempotency_key` it is
                safe to send again.
        """
        options = Options(id, idempotency_key, key, self._start(not_before, delay), headers, reply_to, None)
        self._inside()
        chosen, options = await self._placed(target_of(target), options)
        invocation_id, record = self._record(chosen, argument, options)
        named = options.id is not None or options.idempotency_key is not None
        shared = named or chosen.mode is HandlerMode.MAIN
        known = shared and await self._known(invocation_id)
        # Only the record can say that another topic wants the outcome, too.
        if not known or reply_to is not None:
            await self._sender.send(record)
        find = self._finder(chosen, options, invocation_id)
        return Handle(invocation_id, self, chosen, already_accepted=known, _find=find)

    @overload
    async def call(
        self,
        target: Callable[[Any, Argument], Awaitable[Result]],
        argument: Argument,
        *,
        timeout: timedelta,  # noqa: ASYNC109 # part of a public API
        idempotency_key: str | None = ...,
        key: str | None = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> Result: ...
    @overload
    async def call(
        self,
        target: Callable[[Any], Awaitable[Result]],
        *,
        timeout: timedelta,  # noqa: ASYNC109 # part of a public API
        idempotency_key: str | None = ...,
        key: str | None = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> Result: ...
    @overload
    async def call(
        self,
        target: str,
        argument: object = ...,
        *,
        timeout: timedelta,  # noqa: ASYNC109 # part of a public API
        idempotency_key: str | None = ...,
        key: str | None = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> Any: ...
    async def call(
        self,
        target: str | Callable[..., Awaitable[Any]],
        argument: object = NOTHING,
        *,
        timeout: timedelta,  # noqa: ASYNC109 # part of a public API; its error names the invocation
        idempotency_key: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Have a handler run and return its result.

        Args:
            target: As `send`; a function gives its declared types, a name gives JSON.
            argument: As `send`.
            timeout: How long to wait, from now on. The invocation goes on afterwards.
            idempotency_key: As `send`.
            key: As `send`.
            headers: As `send`.

        Raises:
            TerminalError: The invocation failed; with its code and metadata.
            TimeoutError: There was no outcome in time; the message holds the id with which to ask again.
            UsageError: As `send`, and so are SettingsError, SerdeError, RecordTooLargeError and BrokerError.
        """
        _, outcomes = self._inside()
        started_ms = self._clock.monotonic_ms()
        options = Options(None, idempotency_key, key, None, headers, None, outcomes.channel)
        chosen, options = await self._placed(target_of(target), options)
        invocation_id, record = self._record(chosen, argument, options)
        expected = outcomes.expect(invocation_id)
        try:
            await self._sender.send(record)
            left_s = max(0.0, timeout.total_seconds() - (self._clock.monotonic_ms() - started_ms) / 1000)
            if find := self._finder(chosen, options, invocation_id):
                handle: Handle[Any] = Handle(invocation_id, self, chosen, _find=find)
                return await handle.result(timeout=timedelta(seconds=left_s))
            outcome = await _outcome(outcomes, invocation_id, left_s, sent=True, expected=expected)
            return chosen.result_of(self._opened(outcome))
        finally:
            outcomes.forget(invocation_id, expected)

    async def result(self, invocation_id: str, *, timeout: timedelta | None = None) -> Any:  # noqa: ASYNC109 # as call
        """Return the result of any invocation, as JSON's value, as soon as there is one.

        Args:
            invocation_id: Of an invocation that is admitted.
            timeout: How long to wait; for ever without it.

        Raises:
            TerminalError: The invocation failed; with its code and metadata.
            TimeoutError: There was no outcome in time.
            InvocationNotFoundError: There is none of that id, not yet or not any more.
            UsageError: It is not an invocation id.
        """
        return untyped_result_of(await self.outcome(checked_id(invocation_id), timeout, sent=False))

    @overload
    def attach(self, invocation_id: str, target: Callable[[Any, Any], Awaitable[Result]]) -> Handle[Result]: ...
    @overload
    def attach(self, invocation_id: str, target: Callable[[Any], Awaitable[Result]]) -> Handle[Result]: ...
    @overload
    def attach(self, invocation_id: str, target: str | None = ...) -> Handle[Any]: ...
    def attach(self, invocation_id: str, target: str | Callable[..., Awaitable[Any]] | None = None) -> Handle[Any]:
        """Return a handle of any invocation, by whomever it was sent.

        Args:
            invocation_id: Whose; whether there is one is asked by the handle's methods.
            target: Its handler, for the type of its result; without it that is JSON's value.

        Raises:
            UsageError: It is not an invocation id, or the target is not of its form.
        """
        chosen = None if target is None else target_of(target)
        return Handle(checked_id(invocation_id), self, chosen, already_accepted=True, _sent=False)

    @overload
    def workflow_run(self, main: Callable[[Any, Any], Awaitable[Result]], key: str) -> Handle[Result]: ...
    @overload
    def workflow_run(self, main: Callable[[Any], Awaitable[Result]], key: str) -> Handle[Result]: ...
    @overload
    def workflow_run(self, main: str, key: str) -> Handle[Any]: ...
    def workflow_run(self, main: str | Callable[..., Awaitable[Any]], key: str) -> Handle[Any]:
        """Return a handle of the one run of a workflow's key, by whomever it was sent.

        Args:
            main: Its handler, or `"Workflow/main"`.
            key: Which run.

        Raises:
            UsageError: The target is not of its form.
        """
        chosen = target_of(main)
        run = id_of_workflow(chosen.service, key)
        return Handle(run, self, chosen, already_accepted=True, _sent=False)

    async def outcome(self, invocation_id: InvocationId, within: timedelta | None, *, sent: bool) -> Outcome:
        """Wait for an outcome without judging it. See `Outcomes.wait` for `sent`.

        Raises:
            TimeoutError: There was none in time.
            InvocationNotFoundError: There is no such invocation.
        """
        _, outcomes = self._inside()
        within_s = None if within is None else max(0.0, within.total_seconds())
        return self._opened(await _outcome(outcomes, invocation_id, within_s, sent=sent))

    async def _known(self, invocation_id: InvocationId) -> bool:
        return await self._store.attach(invocation_id, "") is not None

    async def _placed(self, target: Target, options: Options) -> tuple[Target, Options]:
        if target.kind is None:
            # Known by name only: workers say what it is. Where none ever did, `_finder` learns it later.
            kind, modes = await self._described(target.service)
            target = target._replace(kind=kind, mode=modes.get(target.handler))
        return target, placed(target, options)

    async def _described(self, service: str) -> Description:
        told = self._told.get(service)
        if told is None:
            told = read_description(await self._store.description(service))
            if told[0] is not None:
                self._told[service] = told
        return told

    def _finder(self, target: Target, options: Options, invocation_id: InvocationId) -> Find | None:
        """For what is sent by name to a service that nobody has described: how its id is learnt later."""
        key = options.key
        if target.kind is not None or key is None:
            return None

        async def find() -> InvocationId | None:
            kind, modes = await self._described(target.service)
            if kind is not None:
                # A worker gives a workflow's run the one id of its key, whatever its record says.
                main = modes.get(target.handler) is HandlerMode.MAIN
                return id_of_workflow(target.service, key) if main else invocation_id
            # One of another version may have described it in words that say nothing here.
            return invocation_id if await self._known(invocation_id) else None

        return find

    def _start(self, not_before: datetime | None, delay: timedelta | None) -> datetime | None:
        if not_before is not None and delay is not None:
            raise UsageError("Give not_before or delay, not both.")
        if delay is not None:
            return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC) + delay
        return not_before

    def _record(self, target: Target, argument: object, options: Options) -> tuple[InvocationId, Outgoing]:
        fresh_id = new_invocation_id(target.service, options.key, self._entropy)
        invocation_id, envelope = envelope_of(target, argument, options, fresh_id=fresh_id, sealer=self._sealer)
        if len(envelope) > self._settings.record_bytes_max:
            raise RecordTooLargeError(
                f"The argument of {target.name} makes a record of {len(envelope)} bytes, and "
                f"PERDURE_RECORD_BYTES_MAX is {self._settings.record_bytes_max}: keep the data elsewhere, send where."
            )
        topic = _topic(self._settings.namespace, target.service)
        record_key = None if options.key is None else options.key.encode()
        return invocation_id, Outgoing(topic, record_key, envelope)


async def _outcome(
    outcomes: Outcomes,
    invocation_id: InvocationId,
    within_s: float | None,
    *,
    sent: bool,
    expected: Expected | None = None,
) -> Outcome:
    try:
        return await outcomes.wait(invocation_id, sent=sent, expected=expected, within_s=within_s)
    except TimeoutError:
        raise TimeoutError(
            f"{invocation_id} had no outcome in time. It goes on: ask again with client.result({invocation_id!r}), "
            f"or look at it with `perdure journal show {invocation_id}`."
        ) from None
