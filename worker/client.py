"""Calling handlers from Python: send, call, result, status. Asynchronous; nothing here blocks the event loop.

```
send/call --envelope--> Kafka <ns>.<Service> ... worker ... Redis --outcome--> one subscription --> every wait
```
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from perdure.journal.connected_store import connected_store
from perdure.journal.inspection import InvocationView, view_of
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace, read_namespace
from perdure.journal.redis_store import RedisStore
from perdure.schemas.entries import Outcome
from perdure.schemas.errors import InvocationNotFoundError, RecordTooLargeError, UsageError
from perdure.schemas.ids import InvocationId, new_invocation_id

from .broker import Outgoing
from .clock import SystemClock, system_random
from .envelope import NOTHING, Options, Target, checked_id, envelope_of, target_of, untyped_result_of
from .outcomes import Expected, Outcomes
from .sender import Sender
from .settings import Settings
from .topics import service_topic

TOPICS_MAX = 1024
"""Names of topics that are kept ready, so that their parts are not checked for each record."""

_topic = lru_cache(TOPICS_MAX)(service_topic)

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Handle(Generic[Result]):
    """An invocation that Kafka has acknowledged."""

    invocation_id: InvocationId
    _client: Client
    _target: Target

    async def result(self, *, timeout: timedelta | None = None) -> Result:  # noqa: ASYNC109 # part of a public API
        """Return the result, as soon as there is one.

        Args:
            timeout: How long to wait; for ever without it.

        Raises:
            TerminalError: The invocation failed; with its code and metadata.
            TimeoutError: There was no outcome in time; the invocation goes on.
            InvocationNotFoundError: It completed, and its retention ended.
            SerdeError: The result is not of the declared type.
        """
        outcome = await self._client.outcome(self.invocation_id, timeout, sent=True)
        result: Result = self._target.result_of(outcome)
        return result

    async def status(self) -> InvocationView:
        """As `Client.status`; not found, too, while it is not yet admitted."""
        return await self._client.status(self.invocation_id)


class Client:
    """Sends invocations and waits for their outcomes. Use as an async context manager, one per process.

    Args:
        settings: Where Kafka and Redis are; without it, what the environment says.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = Settings.load() if settings is None else settings
        self._clock = SystemClock()
        self._entropy = system_random()
        self.client_id = f"client-{self._entropy.randbytes(8).hex()}"
        self._sender = Sender(self._settings.kafka_config(client_id=self.client_id))
        self._stack = contextlib.AsyncExitStack()
        self._entered: tuple[RedisStore, Outcomes] | None = None

    @classmethod
    def connect(
        cls, *, bootstrap_servers: str | None = None, redis_url: str | None = None, namespace: str | None = None
    ) -> Client:
        """Make a client for these places; what is not given comes from the environment. Then `async with` it.

        Raises:
            SettingsError: A value, here or in the environment, is wrong.
        """
        places = {"bootstrap_servers": bootstrap_servers, "redis_url": redis_url, "namespace": namespace}
        return cls(Settings.load(**places))

    async def __aenter__(self) -> Client:
        """Connect to Redis; Kafka follows with the first record.

        Raises:
            SettingsError: The Redis login is wrong, or the namespace is of a newer version.
            StoreError: Redis does not answer.
        """
        settings = self._settings
        config = settings.redis_config
        found = await read_namespace(config, settings.namespace)
        if found is None:
            found = await open_namespace(config, settings.namespace, slots=settings.slots)
        keys = Keys(settings.namespace, slots=found.slots)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._sender)
            store = await stack.enter_async_context(connected_store(config, keys, name=f"perdure-{self.client_id}"))
            outcomes = await stack.enter_async_context(Outcomes(store, config, keys, client=self.client_id))
            self._stack = stack.pop_all()
        self._entered = (store, outcomes)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = None
        await self._stack.aclose()

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
        chosen = target_of(target)
        invocation_id, record = self._record(chosen, argument, options)
        await self._sender.send(record)
        return Handle(invocation_id, self, chosen)

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
        chosen = target_of(target)
        started_ms = self._clock.monotonic_ms()
        options = Options(None, idempotency_key, key, None, headers, None, outcomes.channel)
        invocation_id, record = self._record(chosen, argument, options)
        expected = outcomes.expect(invocation_id)
        try:
            await self._sender.send(record)
            left_s = max(0.0, timeout.total_seconds() - (self._clock.monotonic_ms() - started_ms) / 1000)
            return chosen.result_of(await _outcome(outcomes, invocation_id, left_s, sent=True, expected=expected))
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

    async def status(self, invocation_id: str) -> InvocationView:
        """Return what is known of an invocation.

        Raises:
            InvocationNotFoundError: There is none of that id, not yet or not any more.
            UsageError: It is not an invocation id.
        """
        store, _ = self._inside()
        summary = await store.read_invocation(checked_id(invocation_id))
        if summary is None:
            raise InvocationNotFoundError(
                f"There is no invocation {invocation_id}: it is not admitted yet, or its retention ended."
            )
        return view_of(summary)

    async def outcome(self, invocation_id: InvocationId, within: timedelta | None, *, sent: bool) -> Outcome:
        """Wait for an outcome without judging it. See `Outcomes.wait` for `sent`.

        Raises:
            TimeoutError: There was none in time.
            InvocationNotFoundError: There is no such invocation.
        """
        _, outcomes = self._inside()
        within_s = None if within is None else max(0.0, within.total_seconds())
        return await _outcome(outcomes, invocation_id, within_s, sent=sent)

    def _inside(self) -> tuple[RedisStore, Outcomes]:
        if self._entered is None:
            raise UsageError("The client is used outside its `async with` block: enter it first.")
        return self._entered

    def _start(self, not_before: datetime | None, delay: timedelta | None) -> datetime | None:
        if not_before is not None and delay is not None:
            raise UsageError("Give not_before or delay, not both.")
        if delay is not None:
            return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC) + delay
        return not_before

    def _record(self, target: Target, argument: object, options: Options) -> tuple[InvocationId, Outgoing]:
        fresh_id = new_invocation_id(target.service, options.key, self._entropy)
        invocation_id, envelope = envelope_of(target, argument, options, fresh_id=fresh_id)
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
