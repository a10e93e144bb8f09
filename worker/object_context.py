"""Contexts of virtual objects and workflows.

Source: names, signatures and meaning follow Restate's Python SDK.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Generic, TypeVar, overload

from perdure.schemas.entries import Failure, Success
from perdure.schemas.errors import UsageError
from perdure.schemas.limits import shorten

from .attempt_commands import Commands
from .calling import typed
from .context import Context
from .futures import DurableFuture
from .handler import Handler, HandlerMode
from .serde import DEFAULT_SERDE, Serde, encode_value

T = TypeVar("T")


class ObjectSharedContext(Context):
    """The context of a shared handler: reads the state of its object, as it was committed."""

    def key(self) -> str:
        """The key of the object or workflow."""
        key = self._driver.claim.key
        assert key is not None, "what has such a context has a key"
        return key

    @overload
    def get(
        self, name: str, serde: Serde[T], type_hint: Any = ..., entry_name: str | None = ...
    ) -> DurableFuture[T | None]: ...
    @overload
    def get(self, name: str, *, type_hint: type[T], entry_name: str | None = ...) -> DurableFuture[T | None]: ...
    @overload
    def get(self, name: str, *, type_hint: Any = ..., entry_name: str | None = ...) -> DurableFuture[Any]: ...
    def get(
        self, name: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None, entry_name: str | None = None
    ) -> DurableFuture[Any]:
        """Read a value of the state; `None` where there is none.

        What a replay sees is what the first attempt saw. `entry_name` is accepted and not used.

        Raises:
            UsageError: Inside a step.
        """
        return self._commands.get(name, typed(serde, type_hint))

    def state_keys(self, entry_name: str | None = None) -> DurableFuture[list[str]]:
        """The names of all values, sorted.

        Raises:
            UsageError: Inside a step.
        """
        return self._commands.state_keys()

    def _refuse(self, what: str) -> UsageError:
        return UsageError(
            f"ctx.{what} was called by a shared handler: only exclusive handlers of an object, and `main` of a "
            "workflow, write its state. Make the handler exclusive, or send the change to one that is."
        )


class ObjectContext(ObjectSharedContext):
    """The context of an exclusive handler: alone with its object, whose state it reads and writes."""

    def set(self, name: str, value: T, serde: Serde[T] = DEFAULT_SERDE, entry_name: str | None = None) -> None:
        """Write a value. It is committed with the journal, and stays when the handler fails later.

        Raises:
            UsageError: Inside a step, or in a shared handler.
            SerdeError: The value cannot be written.
        """
        self._commands.set(name, value, typed(serde, None))

    def clear(self, name: str, entry_name: str | None = None) -> None:
        """Remove a value.

        Raises:
            UsageError: Inside a step, or in a shared handler.
        """
        self._commands.clear(name)

    def clear_all(self, entry_name: str | None = None) -> None:
        """Remove the whole state.

        Raises:
            UsageError: Inside a step, or in a shared handler.
        """
        self._commands.clear_all()


class DurablePromise(Generic[T]):
    """A promise of a workflow: completed once, awaited by any number."""

    def __init__(self, commands: Commands, name: str, serde: Serde[T]) -> None:
        self._commands = commands
        self._name = name
        self._serde = serde
        self._value: DurableFuture[T] | None = None

    def __await__(self) -> Generator[Any, None, T]:
        return self.value().__await__()

    def value(self) -> DurableFuture[T]:
        """The future of its value; a rejection is raised as a TerminalError."""
        if self._value is None:
            self._value = self._commands.promise(self._name, self._serde)
        return self._value

    def resolve(self, value: T) -> DurableFuture[None]:
        """Complete it. Where it is completed already, a TerminalError 409 is raised at the await.

        Raises:
            SerdeError: The value cannot be written.
        """
        raw = encode_value(self._serde, value, what=f"The value of promise {self._name!r}")
        return self._commands.complete_promise(self._name, Success(raw))

    def reject(self, message: str, code: int = 500) -> DurableFuture[None]:
        """Complete it with a failure; as `resolve`."""
        return self._commands.complete_promise(self._name, Failure(code, shorten(message)))

    def peek(self) -> DurableFuture[T | None]:
        """Its value, or `None` while it is open; a rejection is raised as a TerminalError."""
        return self._commands.peek(self._name, self._serde)


class WorkflowSharedContext(ObjectSharedContext):
    """The context of a workflow's shared handlers, which run before, while and after `main` does."""

    @overload
    def promise(self, name: str, serde: Serde[T], type_hint: Any = ...) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, *, type_hint: type[T]) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, *, type_hint: Any = ...) -> DurablePromise[Any]: ...
    def promise(self, name: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None) -> DurablePromise[Any]:
        """A durable promise of this workflow key."""
        return DurablePromise(self._commands, name, typed(serde, type_hint))


class WorkflowContext(ObjectContext, WorkflowSharedContext):
    """The context of a workflow's `main`."""


class ReadingContext(WorkflowSharedContext):
    """What shared handlers are really given: writes are refused by name, not as missing attributes."""

    def set(self, name: str, *args: object, **kwargs: object) -> None:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise self._refuse(f"set({name!r})")

    def clear(self, name: str, *args: object, **kwargs: object) -> None:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise self._refuse(f"clear({name!r})")

    def clear_all(self, *args: object, **kwargs: object) -> None:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise self._refuse("clear_all()")


_CLASSES: Mapping[HandlerMode, type[Context]] = {
    HandlerMode.PLAIN: Context,
    HandlerMode.EXCLUSIVE: ObjectContext,
    HandlerMode.MAIN: WorkflowContext,
    HandlerMode.SHARED: ReadingContext,
}


def context_class(handler: Handler) -> type[Context]:
    """What a handler is called with."""
    return _CLASSES[handler.mode]
