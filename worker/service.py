"""What handler authors write: a service and its handlers, checked where they are defined.

Pure. `@service.handler()` returns the function as it is, so that a unit test can call it; what the engine needs to run
it is a frozen `Handler`, found through the service or, with `handler_of`, through the function.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar

from perdure.schemas.errors import DefinitionError, HandlerNotFoundError, RetryableError, SerdeError, TerminalError
from perdure.schemas.limits import NAME_LENGTH_MAX

from .options import HandlerOptions, InvocationRetryPolicy
from .serde import DEFAULT_SERDE, DefaultSerde, Serde, encode_value, type_name
from .signature import describe, read_handler

HandlerFunction = TypeVar("HandlerFunction", bound=Callable[..., Awaitable[Any]])

# Topics are `<namespace>.<Service>`: Kafka's own letters. A first letter or digit keeps names apart from flags.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

# `<namespace>.dead` and `<namespace>.<Service>.resume` are topics already.
_DEAD: Final = "dead"
_RESUME: Final = ".resume"

_ATTRIBUTE: Final = "__perdure_handler__"


class ServiceKind(StrEnum):
    """What a definition is: which order and state its invocations have."""

    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler, as it was defined.

    Attributes:
        service: The service's name.
        name: The handler's name.
        kind: Of the service.
        fn: The function itself; called with `(ctx)` or `(ctx, argument)`.
        takes_argument: Which of the two.
        default: The argument of an invocation that has none; `inspect.Parameter.empty` where the function has none.
        input_type: The argument's annotation; `Any` without one.
        output_type: The return annotation; `Any` without one.
        input_serde: Reads the argument, and writes it for callers.
        output_serde: Writes the result, and reads it for callers.
        options: The handler's own over its service's.
        accept: The argument's content type, for people and tools; nothing checks it.
        content_type: The result's content type, for people and tools; nothing checks it.
        description: The function's docstring.
        metadata: Strings of the author's own.
        source: `file:line` of the definition.
    """

    service: str
    name: str
    kind: ServiceKind
    fn: Callable[..., Awaitable[Any]]
    takes_argument: bool
    default: object
    input_type: Any
    output_type: Any
    input_serde: Serde[Any]
    output_serde: Serde[Any]
    options: HandlerOptions
    accept: str
    content_type: str
    description: str | None
    metadata: Mapping[str, str]
    source: str

    @property
    def target(self) -> str:
        """`Service/handler`, as the command line and messages write it."""
        return f"{self.service}/{self.name}"


class Service:
    """A named group of stateless handlers: invocations run at once and in any order.

    Options given here hold for every handler that does not give its own.

    Args:
        name: Letters, digits, `.`, `_` and `-`; part of the topic's name.
        description: For people.
        metadata: Strings of your own, kept with the definition.
        inactivity_timeout: How long an attempt waits in memory before it is suspended.
        abort_timeout: Not supported yet.
        journal_retention: How long journals are kept after completion.
        idempotency_retention: How long results are kept after completion.
        ingress_private: Not supported yet.
        invocation_retry_policy: How failed attempts are retried.
        invocation_context_managers: Not supported yet.

    Raises:
        DefinitionError: The name is not valid, an option is out of its bounds or not supported yet.
    """

    kind: ServiceKind = ServiceKind.SERVICE

    def __init__(
        self,
        name: str,
        description: str | None = None,
        metadata: Mapping[str, str] | None = None,
        inactivity_timeout: timedelta | None = None,
        abort_timeout: timedelta | None = None,
        journal_retention: timedelta | None = None,
        idempotency_retention: timedelta | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: list[Any] | None = None,
    ) -> None:
        where = f"Service({name!r})"
        _check_name(name, what=where)
        if name == _DEAD or name.endswith(_RESUME):
            raise DefinitionError(
                f"{where}: `<namespace>.dead` and `<namespace>.<Service>.resume` are Perdure's own topics. "
                "Choose another name."
            )
        _refuse_unsupported(
            where,
            abort_timeout=abort_timeout,
            ingress_private=ingress_private,
            invocation_context_managers=invocation_context_managers,
        )
        self.name: Final = name
        self.description: Final = description
        self.metadata: Final = _checked_metadata(metadata, where=where)
        self.options: Final = _options(
            where, inactivity_timeout, journal_retention, idempotency_retention, invocation_retry_policy
        )
        self._handlers: dict[str, Handler] = {}
        self._sealed = False

    def __repr__(self) -> str:
        return f"Service({self.name!r})"

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by name, in order of definition; a view."""
        return MappingProxyType(self._handlers)

    def handler(
        self,
        name: str | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        input_serde: Serde[Any] = DEFAULT_SERDE,
        output_serde: Serde[Any] = DEFAULT_SERDE,
        metadata: Mapping[str, str] | None = None,
        inactivity_timeout: timedelta | None = None,
        abort_timeout: timedelta | None = None,
        journal_retention: timedelta | None = None,
        idempotency_retention: timedelta | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: list[Any] | None = None,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register an async function `(ctx)` or `(ctx, argument)` as a handler, and return it unchanged.

        Type hints decide how the argument is read and the result written, where no serde is given; the docstring is the
        description. Options are as for the service, of which they override each by itself. `accept` and `content_type`
        describe the handler and are enforced by nothing.

        Raises:
            DefinitionError: On use as a decorator; names the function with `file:line` and what is wrong with it.
        """

        def register(fn: HandlerFunction) -> HandlerFunction:
            where = f"The handler {describe(fn)} of {self!r}"
            _refuse_unsupported(
                where,
                abort_timeout=abort_timeout,
                ingress_private=ingress_private,
                invocation_context_managers=invocation_context_managers,
            )
            own = _options(where, inactivity_timeout, journal_retention, idempotency_retention, invocation_retry_policy)
            # The scope that defines the function: annotations that are text may name local classes.
            signature = read_handler(fn, local_names=sys._getframe(1).f_locals)
            self._add(
                Handler(
                    service=self.name,
                    name=fn.__name__ if name is None else name,
                    kind=self.kind,
                    fn=fn,
                    takes_argument=signature.takes_argument,
                    default=signature.default,
                    input_type=signature.argument_hint,
                    output_type=signature.result_hint,
                    input_serde=_serde(f"{where}, input_serde", input_serde, signature.argument_hint),
                    output_serde=_serde(f"{where}, output_serde", output_serde, signature.result_hint),
                    options=_merged(where, own, self.options),
                    accept=accept,
                    content_type=content_type,
                    description=inspect.getdoc(fn),
                    metadata=_checked_metadata(metadata, where=where),
                    source=signature.source,
                )
            )
            return fn

        return register

    def seal(self) -> None:
        """Take no more handlers: an application has been made of those that are there."""
        self._sealed = True

    def _add(self, handler: Handler) -> None:
        where = f"The handler {describe(handler.fn)} of {self!r}"
        _check_name(handler.name, what=where)
        if self._sealed:
            raise DefinitionError(f"{where} comes after app(...), which would never run it. Define it before.")
        if other := self._handlers.get(handler.name):
            raise DefinitionError(
                f"{where}: there is a handler {handler.name!r} already, defined at {other.source}. "
                "Rename one of them, or give name=..."
            )
        registered: Handler | None = getattr(handler.fn, _ATTRIBUTE, None)
        # functools.wraps copies the attribute to wrappers, which are functions of their own.
        if registered is not None and registered.fn is handler.fn:
            raise DefinitionError(
                f"{where}: the function is the handler {registered.target} already. Write one that calls it."
            )
        setattr(handler.fn, _ATTRIBUTE, handler)
        self._handlers[handler.name] = handler


def handler_of(fn: Callable[..., Any]) -> Handler:
    """Return what `@service.handler()` made of this function; options are without the application's defaults.

    Raises:
        DefinitionError: The function is not a handler.
    """
    handler: Handler | None = getattr(fn, _ATTRIBUTE, None)
    if handler is None:
        raise DefinitionError(f"{describe(fn)} is not a handler. Decorate it with @service.handler().")
    return handler


def decode_argument(handler: Handler, raw: bytes) -> Any:
    """Return the argument of an invocation, as the handler's serde reads it.

    Args:
        handler: A handler without an argument gets `None`, whatever was sent.
        raw: Empty where none was sent: the parameter's default, else `None` where the type allows it.

    Raises:
        TerminalError: With code 400, when the type refuses it; says where and why, and leaves the values out.
    """
    if not handler.takes_argument:
        return None
    if not raw and handler.default is not inspect.Parameter.empty:
        return handler.default
    try:
        return handler.input_serde.deserialize(raw)
    except (TerminalError, RetryableError):
        raise
    # A serde may be the user's code.
    except Exception as error:
        expected = f"an argument of type {type_name(handler.input_type)}"
        if not raw:
            raise TerminalError(f"{handler.target} takes {expected}, and none was sent.", 400) from error
        why = str(error) if isinstance(error, SerdeError) else f"{type(error).__name__}: {error}"
        raise TerminalError(f"{handler.target} takes {expected}. {why}", 400) from error


def encode_result(handler: Handler, value: object) -> bytes:
    """Return the bytes of what the handler returned; a value of another type than declared goes by what it is.

    Raises:
        SerdeError: It cannot be written; names the handler and the value's type.
    """
    return encode_value(handler.output_serde, value, what=f"The result of {handler.target}")


def _check_name(name: object, *, what: str) -> None:
    if not isinstance(name, str) or len(name) > NAME_LENGTH_MAX or _NAME.fullmatch(name) is None:
        raise DefinitionError(
            f"{what}: {name!r} is not a name. Names are 1 to {NAME_LENGTH_MAX} ASCII letters, digits, '.', '_' or '-', "
            "and start with a letter, a digit or '_'."
        )


def _checked_metadata(metadata: Mapping[str, str] | None, *, where: str) -> Mapping[str, str]:
    found = dict(metadata or {})
    if not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise DefinitionError(f"{where}: metadata maps strings to strings.")
    return MappingProxyType(found)


def _refuse_unsupported(where: str, **options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise DefinitionError(f"{where}: {', '.join(given)} is not supported yet, and would do nothing. Leave it out.")


def _options(
    where: str,
    inactivity_timeout: timedelta | None,
    journal_retention: timedelta | None,
    idempotency_retention: timedelta | None,
    invocation_retry_policy: InvocationRetryPolicy | None,
) -> HandlerOptions:
    try:
        return HandlerOptions(
            inactivity_timeout=inactivity_timeout,
            journal_retention=journal_retention,
            idempotency_retention=idempotency_retention,
            invocation_retry_policy=invocation_retry_policy,
        )
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}") from error


def _merged(where: str, own: HandlerOptions, fallback: HandlerOptions) -> HandlerOptions:
    try:
        return own.over(fallback)
    except DefinitionError as error:
        raise DefinitionError(f"{where}, with the options of its service: {error}") from error


def _serde(where: str, given: Serde[Any], hint: Any) -> Serde[Any]:
    if not isinstance(given, Serde):
        raise DefinitionError(f"{where}=... takes a Serde instance, not {given!r}.")
    if not isinstance(given, DefaultSerde):
        return given
    try:
        return given.with_hint(hint)
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}") from error


def unknown_handler(service: str, name: str) -> Handler:
    """Return a stand-in for a handler that this worker does not have: each attempt fails, to be retried elsewhere.

    Retryable, since a rolling deployment heals it; paused after as many attempts as any invocation.
    """

    async def refuse(ctx: Any) -> None:
        raise HandlerNotFoundError(
            f"No worker here has a handler {service}/{name}. Deploy one that has it and resume the invocation, or fix "
            "the name in the record."
        )

    return Handler(
        service=service,
        name=name,
        kind=ServiceKind.SERVICE,
        fn=refuse,
        takes_argument=False,
        default=inspect.Parameter.empty,
        input_type=Any,
        output_type=Any,
        input_serde=DEFAULT_SERDE,
        output_serde=DEFAULT_SERDE,
        options=HandlerOptions(),
        accept="",
        content_type="",
        description=None,
        metadata=MappingProxyType({}),
        source="<unknown>",
    )
