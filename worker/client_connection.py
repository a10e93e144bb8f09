"""What all parts of a client share: its connections, how it writes values, what it does with what it leaves behind."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace, read_namespace
from perdure.journal.redis_store import RedisStore
from perdure.journal.store import Due
from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import InvocationNotFoundError, UsageError
from perdure.schemas.limits import shorten

from .calling import typed
from .clock import SystemClock, system_random
from .definitions import Definition
from .envelope import untyped_result_of
from .handler import handler_of
from .outcomes import Outcomes
from .payload_codec import PayloadCodec, checked_codec
from .sealing import Sealer
from .sender import Sender
from .serde import DEFAULT_SERDE, Serde, decode_value, encode_value
from .service_kinds import Description
from .settings import Settings

T = TypeVar("T")

Named = str | Definition | Callable[..., Awaitable[Any]]
"""An object or a workflow: its name, what defines it, or one of its handlers."""


class ClientConnection:
    """Connections to Redis and Kafka, and one subscription for all that waits. Entered and left as a context manager.

    Args:
        settings: Where Kafka and Redis are; without it, what the environment says.
        payload_codec: The one that the application was made with, if it was.
    """

    def __init__(self, settings: Settings | None = None, *, payload_codec: PayloadCodec | None = None) -> None:
        self._settings = Settings.load() if settings is None else settings
        codec = checked_codec(payload_codec)
        self._sealer = None if codec is None else Sealer(codec)
        self._clock = SystemClock()
        self._entropy = system_random()
        self.client_id = f"client-{self._entropy.randbytes(8).hex()}"
        self._numbers = itertools.count(1)
        self._sender = Sender(self._settings.kafka_config(client_id=self.client_id))
        self._stack = contextlib.AsyncExitStack()
        self._entered: tuple[RedisStore, Outcomes] | None = None
        # One for each service that is called by name.
        self._told: dict[str, Description] = {}

    @classmethod
    def connect(
        cls,
        *,
        bootstrap_servers: str | None = None,
        redis_url: str | None = None,
        namespace: str | None = None,
        payload_codec: PayloadCodec | None = None,
    ) -> Self:
        """Make a client for these places; what is not given comes from the environment. Then `async with` it.

        Raises:
            SettingsError: A value, here or in the environment, is wrong.
        """
        places = {"bootstrap_servers": bootstrap_servers, "redis_url": redis_url, "namespace": namespace}
        return cls(Settings.load(**places), payload_codec=payload_codec)

    async def __aenter__(self) -> Self:
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

    def _inside(self) -> tuple[RedisStore, Outcomes]:
        if self._entered is None:
            raise UsageError("The client is used outside its `async with` block: enter it first.")
        return self._entered

    @property
    def _store(self) -> RedisStore:
        return self._inside()[0]

    async def _leave_to_workers(self, due: Sequence[Due]) -> None:
        # A client has no part in what follows; workers look at their slots a few times a second.
        if due:
            await self._store.hasten(due)

    def _once(self, kind: str, name: str | None) -> str:
        """A name by which a repeat of this request is known: the caller's, or one that nobody else has."""
        return f"{kind}:{self.client_id}:{next(self._numbers)}" if name is None else f"{kind}:by:{name}"

    def _written(self, value: object, serde: Serde[Any], type_hint: Any, *, what: str) -> bytes:
        raw = encode_value(typed(serde, type_hint), value, what=what)
        return raw if self._sealer is None else self._sealer.seal(raw)

    def _read(self, raw: bytes, serde: Serde[Any], type_hint: Any, *, what: str) -> Any:
        return self._value(raw if self._sealer is None else self._sealer.open(raw), serde, type_hint, what=what)

    @staticmethod
    def _value(payload: bytes, serde: Serde[Any], type_hint: Any, *, what: str) -> Any:
        if type_hint is None and serde is DEFAULT_SERDE:
            return untyped_result_of(Success(payload))
        return decode_value(typed(serde, type_hint), payload, what=what)

    def _success(self, value: object, serde: Serde[Any], type_hint: Any, *, what: str) -> Success:
        return Success(self._written(value, serde, type_hint, what=what))

    def _failure(self, message: str, code: int) -> Outcome:
        failure = Failure(code, shorten(message))
        return failure if self._sealer is None else self._sealer.seal_outcome(failure)

    def _opened(self, outcome: Outcome) -> Outcome:
        return outcome if self._sealer is None else self._sealer.open_outcome(outcome)


def name_of(named: Named) -> str:
    """The name of an object or a workflow.

    Raises:
        DefinitionError: A function is not a handler.
        UsageError: The text cannot be a name.
    """
    if isinstance(named, str):
        if not named or "/" in named:
            raise UsageError(f"{named!r} is not the name of an object or a workflow.")
        return named
    return named.name if isinstance(named, Definition) else handler_of(named).service


def unknown(invocation_id: str) -> InvocationNotFoundError:
    """What is raised for an id that the store does not know."""
    return InvocationNotFoundError(
        f"There is no invocation {invocation_id}: it is not admitted yet, or its retention ended."
    )
