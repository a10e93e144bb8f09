"""One handler as the engine sees it: what it is called with, what holds for it, how its values are read and written.

Pure. A `Handler` is made where it is defined (`definitions.py`), and found through its service or, with `handler_of`,
through the function.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from perdure.schemas.errors import (
    DefinitionError,
    HandlerNotFoundError,
    RetryableError,
    SerdeError,
    TerminalError,
    text_of,
)

from .context_managers import ContextManagerFactory
from .options import HandlerOptions
from .serde import DEFAULT_SERDE, Serde, encode_value, type_name
from .signature import describe

_ATTRIBUTE: Final = "__perdure_handler__"


class ServiceKind(StrEnum):
    """What a definition is: which order and state its invocations have."""

    SERVICE = "service"
    OBJECT = "object"
    WORKFLOW = "workflow"


class HandlerMode(StrEnum):
    """What an invocation of a handler may do with the object or workflow of its key."""

    PLAIN = ""
    """Of a service: there are no keys."""
    EXCLUSIVE = "exclusive"
    """The only one of its object at a time; writes its state."""
    MAIN = "main"
    """The one run of its workflow; writes its state."""
    SHARED = "shared"
    """At any time, beside the others; reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler, as it was defined.

    Attributes:
        service: The service's name.
        name: The handler's name.
        kind: Of the service.
        mode: What its invocations may do with their object or workflow.
        fn: The function itself; called with `(ctx)` or `(ctx, argument)`.
        takes_argument: Which of the two.
        default: The argument of an invocation that has none; `inspect.Parameter.empty` where the function has none.
        input_type: The argument's annotation; `Any` without one.
        output_type: The return annotation; `Any` without one.
        input_serde: Reads the argument, and writes it for callers.
        output_serde: Writes the result, and reads it for callers.
        options: The handler's own over its service's.
        context_managers: Entered around each attempt's call of the function, the service's before the handler's own.
        queue_max: How many invocations may wait for one object; `None` leaves it to `QUEUE_MAX`.
        accept: The argument's content type, for people and tools; nothing checks it.
        content_type: The result's content type, for people and tools; nothing checks it.
        description: The function's docstring.
        metadata: Strings of the author's own.
        source: `file:line` of the definition.
    """

    service: str
    name: str
    kind: ServiceKind
    mode: HandlerMode
    fn: Callable[..., Awaitable[Any]]
    takes_argument: bool
    default: object
    input_type: Any
    output_type: Any
    input_serde: Serde[Any]
    output_serde: Serde[Any]
    options: HandlerOptions
    context_managers: tuple[ContextManagerFactory, ...]
    queue_max: int | None
    accept: str
    content_type: str
    description: str | None
    metadata: Mapping[str, str]
    source: str

    @property
    def target(self) -> str:
        """`Service/handler`, as the command line and messages write it."""
        return f"{self.service}/{self.name}"

    @property
    def keyed(self) -> bool:
        """Whether its invocations have the key of an object or a workflow."""
        return self.kind is not ServiceKind.SERVICE

    @property
    def state_preload(self) -> bool | tuple[str, ...]:
        """Whether an attempt is to begin with the state at hand, where that is small; or the names that it will read.

        `False` where there is no state. Whole states are the default.
        """
        if not self.keyed:
            return False
        return True if self.options.state_preload is None else self.options.state_preload


def mark(handler: Handler) -> None:
    """Remember with the function that it is this handler, for `handler_of`.

    Raises:
        DefinitionError: It is another one already.
    """
    registered: Handler | None = getattr(handler.fn, _ATTRIBUTE, None)
    # functools.wraps copies the attribute to wrappers, which are functions of their own.
    if registered is not None and registered.fn is handler.fn:
        raise DefinitionError(
            f"{describe(handler.fn)} is the handler {registered.target} already. Write a function that calls it."
        )
    setattr(handler.fn, _ATTRIBUTE, handler)


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
        why = str(error) if isinstance(error, SerdeError) else f"{type(error).__name__}: {text_of(error)}"
        raise TerminalError(f"{handler.target} takes {expected}. {why}", 400) from error


def encode_result(handler: Handler, value: object) -> bytes:
    """Return the bytes of what the handler returned; a value of another type than declared goes by what it is.

    Raises:
        SerdeError: It cannot be written; names the handler and the value's type.
    """
    return encode_value(handler.output_serde, value, what=f"The result of {handler.target}")


def unknown_handler(service: str, name: str, *, kind: ServiceKind = ServiceKind.SERVICE) -> Handler:
    """Return a stand-in for a handler that this worker does not have: each attempt fails, to be retried elsewhere.

    Retryable, since a rolling deployment heals it; paused after as many attempts as any invocation.

    Args:
        service: As the record says.
        name: As the record says.
        kind: Of the service. One of an object or workflow is exclusive: the handler may turn out to be.
    """

    async def refuse(ctx: Any) -> None:
        raise HandlerNotFoundError(
            f"No worker here has a handler {service}/{name}. Deploy one that has it and resume the invocation, or fix "
            "the name in the record."
        )

    return Handler(
        service=service,
        name=name,
        kind=kind,
        mode=HandlerMode.PLAIN if kind is ServiceKind.SERVICE else HandlerMode.EXCLUSIVE,
        fn=refuse,
        takes_argument=False,
        default=inspect.Parameter.empty,
        input_type=Any,
        output_type=Any,
        input_serde=DEFAULT_SERDE,
        output_serde=DEFAULT_SERDE,
        options=HandlerOptions(),
        context_managers=(),
        queue_max=None,
        accept="",
        content_type="",
        description=None,
        metadata=MappingProxyType({}),
        source="<unknown>",
    )
