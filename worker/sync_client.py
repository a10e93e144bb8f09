"""A client for code that is not asynchronous, such as scripts and Django's views: the same methods, which block.

One event loop in a thread of its own serves all threads of the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Generic, Required, Self, TypedDict, TypeVar, Unpack, overload

from perdure.journal.inspection import InvocationView
from perdure.journal.listing import InvocationPage
from perdure.journal.selection import InvocationFilter
from perdure.schemas.entries import Outcome, Positioned
from perdure.schemas.errors import UsageError
from perdure.schemas.ids import InvocationId

from .client import Client
from .client_connection import Named
from .client_controls import Action, Bulk, Control
from .client_handle import Handle
from .envelope import NOTHING
from .payload_codec import PayloadCodec
from .serde import DEFAULT_SERDE, Serde
from .settings import Settings

Argument = TypeVar("Argument")
Result = TypeVar("Result")
T = TypeVar("T")

CLOSE_S: Final = 30.0
"""For the thread to end after the client was left: it has nothing more to do then."""

_END: Final = object()


class CallOptions(TypedDict, total=False):
    """See `Client.call`."""

    timeout: Required[timedelta]
    idempotency_key: str | None
    key: str | None
    headers: Mapping[str, str] | None


class SendOptions(TypedDict, total=False):
    """See `Client.send`."""

    id: str | None
    idempotency_key: str | None
    key: str | None
    not_before: datetime | None
    delay: timedelta | None
    headers: Mapping[str, str] | None
    reply_to: str | None


@dataclass(frozen=True, slots=True)
class SyncHandle(Generic[Result]):
    """As `Handle`, and blocking."""

    _client: SyncClient
    _handle: Handle[Result]

    @property
    def invocation_id(self) -> InvocationId:
        """Its id."""
        return self._handle.invocation_id

    @property
    def already_accepted(self) -> bool:
        """See `Handle`."""
        return self._handle.already_accepted

    def result(self, *, timeout: timedelta | None = None) -> Result:
        """See `Handle.result`."""
        return self._client.run(self._handle.result(timeout=timeout))

    def status(self) -> InvocationView:
        """See `Handle.status`."""
        return self._client.run(self._handle.status())

    def cancel(self) -> Control:
        """See `Handle.cancel`."""
        return self._client.run(self._handle.cancel())

    def kill(self) -> Control:
        """See `Handle.kill`."""
        return self._client.run(self._handle.kill())

    def pause(self) -> Control:
        """See `Handle.pause`."""
        return self._client.run(self._handle.pause())

    def resume(self) -> Control:
        """See `Handle.resume`."""
        return self._client.run(self._handle.resume())

    def purge(self) -> Control:
        """See `Handle.purge`."""
        return self._client.run(self._handle.purge())


class SyncClient:
    """`Client` for synchronous code. Use as a context manager, one per process; any thread may call its methods.

    Each method does and raises what the method of that name of `Client` does. Not for code that runs in an event loop,
    which it would block.

    Args:
        settings: Where Kafka and Redis are; without it, what the environment says.
        payload_codec: The one that the application was made with, if it was.
    """

    def __init__(self, settings: Settings | None = None, *, payload_codec: PayloadCodec | None = None) -> None:
        self._client = Client(settings, payload_codec=payload_codec)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def connect(
        cls,
        *,
        bootstrap_servers: str | None = None,
        redis_url: str | None = None,
        namespace: str | None = None,
        payload_codec: PayloadCodec | None = None,
    ) -> Self:
        """See `Client.connect`."""
        places = {"bootstrap_servers": bootstrap_servers, "redis_url": redis_url, "namespace": namespace}
        return cls(Settings.load(**places), payload_codec=payload_codec)

    def __enter__(self) -> Self:
        """Connect. Raises as `Client` does."""
        if self._loop is not None:
            raise UsageError("The client is entered already.")
        self._loop = asyncio.new_event_loop()
        # A daemon: a process that ends without leaving the client must not hang.
        self._thread = threading.Thread(target=self._loop.run_forever, name="perdure-client", daemon=True)
        self._thread.start()
        try:
            self.run(self._client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.run(self._client.__aexit__(kind, error, trace))
        finally:
            self._end()

    def _end(self) -> None:
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSE_S)
            if not thread.is_alive():
                loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the client's on its event loop, and return what it returns."""
        loop = self._loop
        if loop is None:
            work.close()
            raise UsageError("The client is used outside its `with` block: enter it first.")
        if threading.current_thread() is self._thread:
            work.close()
            raise UsageError("The client would wait for itself: it was called on its own event loop.")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            # Such as KeyboardInterrupt, which nobody on that loop hears of.
            future.cancel()
            raise

    @overload
    def send(
        self,
        target: Callable[[Any, Argument], Awaitable[Result]],
        argument: Argument,
        **options: Unpack[SendOptions],
    ) -> SyncHandle[Result]: ...
    @overload
    def send(
        self, target: Callable[[Any], Awaitable[Result]], **options: Unpack[SendOptions]
    ) -> SyncHandle[Result]: ...
    @overload
    def send(self, target: str, argument: object = ..., **options: Unpack[SendOptions]) -> SyncHandle[Any]: ...
    def send(
        self,
        target: str | Callable[..., Awaitable[Any]],
        argument: Any = NOTHING,
        **options: Unpack[SendOptions],
    ) -> SyncHandle[Any]:
        """See `Client.send`."""
        # What the overloads take is what those of `Client` take.
        client: Any = self._client
        return SyncHandle(self, self.run(client.send(target, argument, **options)))

    @overload
    def call(
        self,
        target: Callable[[Any, Argument], Awaitable[Result]],
        argument: Argument,
        **options: Unpack[CallOptions],
    ) -> Result: ...
    @overload
    def call(self, target: Callable[[Any], Awaitable[Result]], **options: Unpack[CallOptions]) -> Result: ...
    @overload
    def call(self, target: str, argument: object = ..., **options: Unpack[CallOptions]) -> Any: ...
    def call(
        self,
        target: str | Callable[..., Awaitable[Any]],
        argument: Any = NOTHING,
        **options: Unpack[CallOptions],
    ) -> Any:
        """See `Client.call`."""
        client: Any = self._client
        return self.run(client.call(target, argument, **options))

    def result(self, invocation_id: str, *, timeout: timedelta | None = None) -> Any:
        """See `Client.result`."""
        return self.run(self._client.result(invocation_id, timeout=timeout))

    def attach(self, invocation_id: str, target: str | Callable[..., Awaitable[Any]] | None = None) -> SyncHandle[Any]:
        """See `Client.attach`."""
        return SyncHandle(self, self._client.attach(invocation_id, target))

    def workflow_run(self, main: str | Callable[..., Awaitable[Any]], key: str) -> SyncHandle[Any]:
        """See `Client.workflow_run`."""
        return SyncHandle(self, self._client.workflow_run(main, key))

    def status(self, invocation_id: str) -> InvocationView:
        """See `Client.status`."""
        return self.run(self._client.status(invocation_id))

    def list_invocations(
        self, chosen: InvocationFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> InvocationPage:
        """See `Client.list_invocations`."""
        return self.run(self._client.list_invocations(chosen, limit=limit, cursor=cursor))

    def journal(self, invocation_id: str, *, after: int = 0, follow: bool = False) -> Iterator[Positioned]:
        """See `Client.journal`."""
        rows = self._client.journal(invocation_id, after=after, follow=follow)

        async def following() -> Any:
            return await anext(rows, _END)

        while (row := self.run(following())) is not _END:
            yield row

    def cancel(self, invocation_id: str, *, once: str | None = None) -> Control:
        """See `Client.cancel`."""
        return self.run(self._client.cancel(invocation_id, once=once))

    def kill(self, invocation_id: str) -> Control:
        """See `Client.kill`."""
        return self.run(self._client.kill(invocation_id))

    def pause(self, invocation_id: str) -> Control:
        """See `Client.pause`."""
        return self.run(self._client.pause(invocation_id))

    def resume(self, invocation_id: str) -> Control:
        """See `Client.resume`."""
        return self.run(self._client.resume(invocation_id))

    def purge(self, invocation_id: str) -> Control:
        """See `Client.purge`."""
        return self.run(self._client.purge(invocation_id))

    def restart_as_new(self, invocation_id: str, *, keep: int = 0, new_id: str | None = None) -> Control:
        """See `Client.restart_as_new`."""
        return self.run(self._client.restart_as_new(invocation_id, keep=keep, new_id=new_id))

    def control(self, action: Action, invocation_id: str, *, keep: int = 0) -> Control:
        """See `Client.control`."""
        return self.run(self._client.control(action, invocation_id, keep=keep))

    def control_each(self, action: Action, invocation_ids: Sequence[str], *, keep: int = 0) -> Bulk:
        """See `Client.control_each`."""
        return self.run(self._client.control_each(action, invocation_ids, keep=keep))

    def control_many(
        self, action: Action, chosen: InvocationFilter, *, limit: int = 1_000, dry_run: bool = False
    ) -> Bulk:
        """See `Client.control_many`."""
        return self.run(self._client.control_many(action, chosen, limit=limit, dry_run=dry_run))

    def resolve_awakeable(
        self, awakeable_id: str, value: object = None, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None
    ) -> bool:
        """See `Client.resolve_awakeable`."""
        return self.run(self._client.resolve_awakeable(awakeable_id, value, serde, type_hint))

    def reject_awakeable(self, awakeable_id: str, message: str, code: int = 500) -> bool:
        """See `Client.reject_awakeable`."""
        return self.run(self._client.reject_awakeable(awakeable_id, message, code))

    def send_signal(
        self,
        invocation_id: str,
        name: str,
        value: object = None,
        serde: Serde[Any] = DEFAULT_SERDE,
        type_hint: Any = None,
        *,
        once: str | None = None,
    ) -> bool:
        """See `Client.send_signal`."""
        return self.run(self._client.send_signal(invocation_id, name, value, serde, type_hint, once=once))

    def reject_signal(
        self, invocation_id: str, name: str, message: str, code: int = 500, *, once: str | None = None
    ) -> bool:
        """See `Client.reject_signal`."""
        return self.run(self._client.reject_signal(invocation_id, name, message, code, once=once))

    def peek_promise(
        self, workflow: Named, key: str, name: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None
    ) -> Any:
        """See `Client.peek_promise`."""
        return self.run(self._client.peek_promise(workflow, key, name, serde, type_hint))

    def promise_outcome(self, workflow: Named, key: str, name: str) -> Outcome | None:
        """See `Client.promise_outcome`."""
        return self.run(self._client.promise_outcome(workflow, key, name))

    def resolve_promise(
        self,
        workflow: Named,
        key: str,
        name: str,
        value: object = None,
        serde: Serde[Any] = DEFAULT_SERDE,
        type_hint: Any = None,
    ) -> None:
        """See `Client.resolve_promise`."""
        self.run(self._client.resolve_promise(workflow, key, name, value, serde, type_hint))

    def reject_promise(self, workflow: Named, key: str, name: str, message: str, code: int = 500) -> None:
        """See `Client.reject_promise`."""
        self.run(self._client.reject_promise(workflow, key, name, message, code))

    def read_state(self, of: Named, key: str) -> dict[str, Any]:
        """See `Client.read_state`."""
        return self.run(self._client.read_state(of, key))

    def read_value(
        self, of: Named, key: str, name: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None
    ) -> Any:
        """See `Client.read_value`."""
        return self.run(self._client.read_value(of, key, name, serde, type_hint))

    def set_state(
        self,
        of: Named,
        key: str,
        values: Mapping[str, object],
        serde: Serde[Any] = DEFAULT_SERDE,
        *,
        replace: bool = False,
        force: bool = False,
    ) -> None:
        """See `Client.set_state`."""
        self.run(self._client.set_state(of, key, values, serde, replace=replace, force=force))

    def clear_state(self, of: Named, key: str, names: Iterable[str] | None = None, *, force: bool = False) -> None:
        """See `Client.clear_state`."""
        self.run(self._client.clear_state(of, key, names, force=force))
