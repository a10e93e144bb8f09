"""What every context can do with other invocations: call, send, attach, cancel, and complete what they wait for.

Source: names, signatures and meaning follow Restate's Python SDK.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from perdure.schemas.entries import Failure, Success
from perdure.schemas.errors import DefinitionError, UsageError
from perdure.schemas.limits import shorten

from .attempt_commands import Commands
from .callees import Asked, Callee, named_callee
from .futures import DurableCallFuture, DurableFuture
from .handler import Handler, ServiceKind, handler_of
from .serde import DEFAULT_SERDE, BytesSerde, DefaultSerde, Serde, encode_value, serde_or_json

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

HandlerType = Callable[[Any, I], Awaitable[O]] | Callable[[Any], Awaitable[O]]
"""The function of a handler. One that takes no argument is called with `None`."""

_BYTES = BytesSerde()


class SendHandle:
    """An invocation that was sent."""

    def __init__(self, commands: Commands, invocation_id: str) -> None:
        self._commands = commands
        self._invocation_id = invocation_id

    async def invocation_id(self) -> str:
        """Its id."""
        return self._invocation_id

    async def cancel_invocation(self) -> None:
        """Ask it to end; see `Context.cancel_invocation`."""
        self._commands.cancel(self._invocation_id)


class Calling:
    """Calls from a handler. Everything takes its place in the journal at the call."""

    @property
    def _commands(self) -> Commands:
        raise NotImplementedError

    def service_call(
        self,
        tpe: HandlerType[I, O],
        arg: I,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> DurableCallFuture[O]:
        """Call a handler of a service and wait for its outcome.

        A terminal failure of the callee is raised where the future is awaited, with its code and metadata. A
        cancellation of this invocation goes on to callees that have not answered.

        Args:
            tpe: The handler's function.
            arg: Its argument.
            idempotency_key: Of repeated calls with one key only the first runs; all get its outcome.
            headers: For the callee's `ctx.request()`.

        Raises:
            UsageError: Inside a step, or `tpe` is not a handler of a service.
            SerdeError: The argument cannot be written.
        """
        return self._call(ServiceKind.SERVICE, tpe, None, arg, Asked(idempotency_key, headers))

    def object_call(
        self,
        tpe: HandlerType[I, O],
        key: str,
        arg: I,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> DurableCallFuture[O]:
        """Call a handler of a virtual object; see `service_call`. `key` says which object.

        Raises:
            UsageError: Inside a step, or `tpe` is not a handler of an object.
            SerdeError: The argument cannot be written.
        """
        return self._call(ServiceKind.OBJECT, tpe, key, arg, Asked(idempotency_key, headers))

    def workflow_call(
        self,
        tpe: HandlerType[I, O],
        key: str,
        arg: I,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> DurableCallFuture[O]:
        """Call a handler of a workflow; see `service_call`. A second call of `main` gets the one run's outcome.

        Raises:
            UsageError: Inside a step, or `tpe` is not a handler of a workflow.
            SerdeError: The argument cannot be written.
        """
        return self._call(ServiceKind.WORKFLOW, tpe, key, arg, Asked(idempotency_key, headers))

    def service_send(
        self,
        tpe: HandlerType[I, O],
        arg: I,
        send_delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> SendHandle:
        """Invoke a handler of a service and go on; `send_delay` has it begin later.

        Raises:
            UsageError: Inside a step, or `tpe` is not a handler of a service.
            SerdeError: The argument cannot be written.
        """
        return self._send(ServiceKind.SERVICE, tpe, None, arg, _asked(send_delay, idempotency_key, headers))

    def object_send(
        self,
        tpe: HandlerType[I, O],
        key: str,
        arg: I,
        send_delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> SendHandle:
        """Invoke a handler of an object and go on. A delay passes before it joins the object's queue.

        Raises:
            UsageError: Inside a step, or `tpe` is not a handler of an object.
            SerdeError: The argument cannot be written.
        """
        return self._send(ServiceKind.OBJECT, tpe, key, arg, _asked(send_delay, idempotency_key, headers))

    def workflow_send(
        self,
        tpe: HandlerType[I, O],
        key: str,
        arg: I,
        send_delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> SendHandle:
        """Invoke a handler of a workflow and go on; a second send of `main` changes nothing.

        Raises:
            UsageError: Inside a step, or `tpe` is not a handler of a workflow.
            SerdeError: The argument cannot be written.
        """
        return self._send(ServiceKind.WORKFLOW, tpe, key, arg, _asked(send_delay, idempotency_key, headers))

    def generic_call(
        self,
        service: str,
        handler: str,
        arg: bytes,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> DurableCallFuture[bytes]:
        """Call a handler by name, with the argument's bytes; the result's bytes come back.

        The id of a workflow's run is known once a worker of it has been up (docs/workflows.md).

        Raises:
            UsageError: Inside a step, or a name is not one.
        """
        callee = named_callee(service, handler, key)
        return self._commands.call(callee, bytes(arg), Asked(idempotency_key, headers), _BYTES)

    def generic_send(
        self,
        service: str,
        handler: str,
        arg: bytes,
        key: str | None = None,
        send_delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> SendHandle:
        """Invoke a handler by name, with the argument's bytes, and go on.

        The id of a workflow's run is known once a worker of it has been up (docs/workflows.md).

        Raises:
            UsageError: Inside a step, or a name is not one.
        """
        asked = _asked(send_delay, idempotency_key, headers)
        return SendHandle(self._commands, self._commands.send(named_callee(service, handler, key), bytes(arg), asked))

    @overload
    def attach_invocation(self, invocation_id: str, serde: Serde[T], type_hint: Any = ...) -> DurableFuture[T]: ...
    @overload
    def attach_invocation(self, invocation_id: str, *, type_hint: type[T]) -> DurableFuture[T]: ...
    @overload
    def attach_invocation(self, invocation_id: str, *, type_hint: Any = ...) -> DurableFuture[Any]: ...
    def attach_invocation(
        self, invocation_id: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None
    ) -> DurableFuture[Any]:
        """Wait for the outcome of an invocation that somebody else made. A TerminalError 404 where it is not known.

        Raises:
            UsageError: Inside a step, or it is not an id.
        """
        return self._commands.attach(invocation_id, typed(serde, type_hint))

    def cancel_invocation(self, invocation_id: str) -> None:
        """Ask an invocation to end: a TerminalError 409 is raised where it waits next, and where its callees do.

        Raises:
            UsageError: Inside a step, or it is not an id.
        """
        self._commands.cancel(invocation_id)

    @overload
    def awakeable(self, serde: Serde[T], type_hint: Any = ...) -> tuple[str, DurableFuture[T]]: ...
    @overload
    def awakeable(self, *, type_hint: type[T]) -> tuple[str, DurableFuture[T]]: ...
    @overload
    def awakeable(self, *, type_hint: Any = ...) -> tuple[str, DurableFuture[Any]]: ...
    def awakeable(self, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None) -> tuple[str, DurableFuture[Any]]:
        """A future that anybody completes who is told the id: handlers, clients, `perdure awakeable resolve`.

        The id can be told at once, before the journal knows of it: what comes that early is kept. After a crash the
        replay makes the same id again.

        Raises:
            UsageError: Inside a step.
        """
        return self._commands.awakeable(typed(serde, type_hint))

    def resolve_awakeable(self, name: str, value: T, serde: Serde[T] = DEFAULT_SERDE) -> None:
        """Complete an awakeable of any invocation with a value; the first completion counts.

        Raises:
            UsageError: Inside a step, or `name` is not the id of an awakeable.
            SerdeError: The value cannot be written.
        """
        self._commands.complete_awakeable(name, Success(encode_value(typed(serde, None), value, what="The value")))

    def reject_awakeable(self, name: str, failure_message: str, failure_code: int = 500) -> None:
        """Complete an awakeable of any invocation with a failure: its waiter sees a TerminalError.

        Raises:
            UsageError: Inside a step, or `name` is not the id of an awakeable.
        """
        self._commands.complete_awakeable(name, Failure(failure_code, shorten(failure_message)))

    @overload
    def signal(self, name: str, serde: Serde[T], type_hint: Any = ...) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, *, type_hint: type[T]) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, *, type_hint: Any = ...) -> DurableFuture[Any]: ...
    def signal(self, name: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None) -> DurableFuture[Any]:
        """Wait for the next signal of that name to this invocation; one that came before is kept for it.

        Raises:
            UsageError: Inside a step.
        """
        return self._commands.signal(name, typed(serde, type_hint))

    def resolve_signal(self, invocation_id: str, name: str, value: T, serde: Serde[T] = DEFAULT_SERDE) -> None:
        """Send a signal with a value.

        Raises:
            UsageError: Inside a step, or it is not an id.
            SerdeError: The value cannot be written.
        """
        raw = encode_value(typed(serde, None), value, what="The value")
        self._commands.send_signal(invocation_id, name, Success(raw))

    def reject_signal(self, invocation_id: str, name: str, failure_message: str, failure_code: int = 500) -> None:
        """Send a signal that its waiter sees as a TerminalError.

        Raises:
            UsageError: Inside a step, or it is not an id.
        """
        self._commands.send_signal(invocation_id, name, Failure(failure_code, shorten(failure_message)))

    def _call(
        self, kind: ServiceKind, fn: Callable[..., Any], key: str | None, arg: object, asked: Asked
    ) -> DurableCallFuture[Any]:
        handler = _handler(kind, fn)
        callee = _callee(handler, key)
        return self._commands.call(callee, _argument(handler, arg), asked, handler.output_serde)

    def _send(
        self, kind: ServiceKind, fn: Callable[..., Any], key: str | None, arg: object, asked: Asked
    ) -> SendHandle:
        handler = _handler(kind, fn)
        invocation_id = self._commands.send(_callee(handler, key), _argument(handler, arg), asked)
        return SendHandle(self._commands, invocation_id)


_KIND_NAMES = {
    ServiceKind.SERVICE: "a service",
    ServiceKind.OBJECT: "a virtual object",
    ServiceKind.WORKFLOW: "a workflow",
}


def _asked(send_delay: timedelta | None, idempotency_key: str | None, headers: Mapping[str, str] | None) -> Asked:
    if send_delay is None:
        return Asked(idempotency_key, headers)
    if not isinstance(send_delay, timedelta):
        raise UsageError(f"send_delay is a timedelta, not {send_delay!r:.200}.")
    # Rounded up: never early.
    whole_ms, rest = divmod(send_delay, timedelta(milliseconds=1))
    return Asked(idempotency_key, headers, max(0, whole_ms + bool(rest)))


def _handler(kind: ServiceKind, fn: Callable[..., Any]) -> Handler:
    try:
        handler = handler_of(fn)
    except DefinitionError as error:
        raise UsageError(str(error)) from error
    if handler.kind is not kind:
        raise UsageError(
            f"{handler.target} is a handler of {_KIND_NAMES[handler.kind]} and not of {_KIND_NAMES[kind]}: use "
            f"{handler.kind}_call or {handler.kind}_send."
        )
    return handler


def _callee(handler: Handler, key: str | None) -> Callee:
    if handler.keyed and key is None:
        raise UsageError(f"{handler.target} is a handler of {_KIND_NAMES[handler.kind]}: call it with a key.")
    return Callee(handler.service, handler.name, key, handler.mode == "main")


def _argument(handler: Handler, value: object) -> bytes:
    if value is None and not handler.takes_argument:
        return b""
    return encode_value(handler.input_serde, value, what=f"The argument of {handler.target}")


def typed(serde: Serde[Any], type_hint: Any) -> Serde[Any]:
    """The serde that a caller asks for by serde and type."""
    if isinstance(serde, DefaultSerde):
        return serde_or_json(type_hint) if type_hint is not None else serde
    return serde
