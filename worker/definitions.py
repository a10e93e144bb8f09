"""What services, objects and workflows have in common: a name, options, and handlers that are checked when defined.

Pure. Decorators return the function as it is, so that a unit test can call it; what the engine needs to run it is a
frozen `Handler`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from perdure.schemas.errors import DefinitionError
from perdure.schemas.limits import NAME_LENGTH_MAX

from .definition_options import GivenOptions
from .handler import Handler, HandlerMode, ServiceKind, mark
from .options import HandlerOptions
from .serde import DefaultSerde, Serde
from .signature import describe, read_handler

HandlerFunction = TypeVar("HandlerFunction", bound=Callable[..., Awaitable[Any]])

# Topics are `<namespace>.<Service>`: Kafka's own letters. A first letter or digit keeps names apart from flags.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

# `<namespace>.dead` and `<namespace>.<Service>.resume` are topics already.
_DEAD: Final = "dead"
_RESUME: Final = ".resume"


class HandlerForm(NamedTuple):
    """What only a handler has: its mode, its name where that is not the function's, and how its values travel."""

    mode: HandlerMode
    name: str | None
    accept: str
    content_type: str
    input_serde: Serde[Any]
    output_serde: Serde[Any]


class Definition:
    """A named group of handlers: `Service`, `VirtualObject` or `Workflow`.

    Args:
        name: Letters, digits, `.`, `_` and `-`; part of the topic's name.
        description: For people.
        given: Options for handlers that do not give their own.
        queue_max: How many invocations may wait for one object.

    Raises:
        DefinitionError: The name is not valid, or an option is not.
    """

    kind: ServiceKind

    def __init__(
        self, name: str, description: str | None, given: GivenOptions, *, queue_max: int | None = None
    ) -> None:
        where = f"{type(self).__name__}({name!r})"
        _check_name(name, what=where)
        if name == _DEAD or name.endswith(_RESUME):
            raise DefinitionError(
                f"{where}: `<namespace>.dead` and `<namespace>.<Service>.resume` are Perdure's own topics. "
                "Choose another name."
            )
        checked = given.check(where)
        self.name: Final = name
        self.description: Final = description
        self.metadata: Final = checked.metadata
        self.options: Final = checked.options
        self.queue_max: Final = queue_max
        self._context_managers: Final = checked.context_managers
        self._handlers: dict[str, Handler] = {}
        self._sealed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by name, in order of definition; a view."""
        return MappingProxyType(self._handlers)

    def check(self) -> None:
        """Refuse what is not complete yet.

        Raises:
            DefinitionError: A handler is missing.
        """
        if not self._handlers:
            raise DefinitionError(
                f"{self!r} has no handlers. Decorate functions with its .handler(), and import their modules before "
                "app(...)."
            )

    def seal(self) -> None:
        """Take no more handlers: an application has been made of those that are there."""
        self._sealed = True

    def _decorator(self, form: HandlerForm, given: GivenOptions) -> Callable[[HandlerFunction], HandlerFunction]:
        def register(fn: HandlerFunction) -> HandlerFunction:
            # The scope that defines the function: annotations that are text may name local classes.
            self._add(self._handler(fn, form, given, local_names=sys._getframe(1).f_locals))
            return fn

        return register

    def _handler(
        self, fn: Callable[..., Awaitable[Any]], form: HandlerForm, given: GivenOptions, local_names: Mapping[str, Any]
    ) -> Handler:
        where = self._where(fn)
        checked = given.check(where)
        signature = read_handler(fn, local_names=local_names)
        return Handler(
            service=self.name,
            name=fn.__name__ if form.name is None else form.name,
            kind=self.kind,
            mode=form.mode,
            fn=fn,
            takes_argument=signature.takes_argument,
            default=signature.default,
            input_type=signature.argument_hint,
            output_type=signature.result_hint,
            input_serde=_serde(f"{where}, input_serde", form.input_serde, signature.argument_hint),
            output_serde=_serde(f"{where}, output_serde", form.output_serde, signature.result_hint),
            options=_merged(where, checked.options, self.options),
            context_managers=self._context_managers + checked.context_managers,
            queue_max=self.queue_max,
            accept=form.accept,
            content_type=form.content_type,
            description=inspect.getdoc(fn),
            metadata=checked.metadata,
            source=signature.source,
        )

    def _add(self, handler: Handler) -> None:
        where = self._where(handler.fn)
        _check_name(handler.name, what=where)
        if self._sealed:
            raise DefinitionError(f"{where} comes after app(...), which would never run it. Define it before.")
        if other := self._handlers.get(handler.name):
            raise DefinitionError(
                f"{where}: there is a handler {handler.name!r} already, defined at {other.source}. "
                "Rename one of them, or give name=..."
            )
        mark(handler)
        self._handlers[handler.name] = handler

    def _where(self, fn: object) -> str:
        return f"The handler {describe(fn)} of {self!r}"


def _check_name(name: object, *, what: str) -> None:
    if not isinstance(name, str) or len(name) > NAME_LENGTH_MAX or _NAME.fullmatch(name) is None:
        raise DefinitionError(
            f"{what}: {name!r} is not a name. Names are 1 to {NAME_LENGTH_MAX} ASCII letters, digits, '.', '_' or '-', "
            "and start with a letter, a digit or '_'."
        )


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
