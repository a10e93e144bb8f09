"""What handler authors call: `Context`.

Every method is a plain `def`: it takes its place in the journal at the call, and returns something to await.

Source: names, signatures and meaning follow Restate's Python SDK.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from perdure.journal.store import Claim
from perdure.schemas.ids import InvocationId

from .attempt_commands import Commands
from .calling import Calling
from .clock import Clock
from .futures import DurableFuture
from .options import RunOptions
from .record_source import RecordSource
from .scope import SCOPE, StepInfo, current_step
from .serde import DEFAULT_SERDE, Serde

T = TypeVar("T")
P = ParamSpec("P")

_DEFAULT_OPTIONS: RunOptions[Any] = RunOptions()


class AttemptFinishedEvent:
    """Set when the attempt has ended, however it did: for what a step or task must not go on with after it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def is_set(self) -> bool:
        """Whether the attempt has ended."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when the attempt has ended."""
        await self._event.wait()

    def finish(self) -> None:
        """The attempt has ended; called by the worker."""
        self._event.set()


@dataclass(frozen=True, slots=True)
class Request:
    """What an invocation was asked with.

    Attributes:
        id: The invocation's id.
        headers: The record's headers as text: of repeated names the last, without null ones, bytes that are not UTF-8
            replaced.
        raw_headers: All of them, as they arrived.
        attempt: Which attempt this is, from 1.
        body: The argument, before any serde.
        idempotency_key: Of the invocation, where its record had one.
        source: The record that it was made of; `None` where another invocation called it.
        attempt_finished_event: Set when this attempt has ended.
    """

    id: InvocationId
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[str, bytes | None], ...]
    attempt: int
    body: bytes
    idempotency_key: str | None
    source: RecordSource | None = None
    attempt_finished_event: AttemptFinishedEvent = field(default_factory=AttemptFinishedEvent)

    @property
    def step_idempotency_key(self) -> str | None:
        """Inside a step: a key of this step that stays the same across its retries; `None` outside of steps."""
        step = current_step()
        return None if step is None else step.idempotency_key


class Driver(Protocol):
    """An attempt, as its context sees it."""

    clock: Clock
    claim: Claim

    @property
    def commands(self) -> Commands:
        """What the context can do beside steps and timers."""

    def run_step(
        self,
        name: str,
        action: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: RunOptions[T],
    ) -> DurableFuture[T]:
        """Issue a step."""

    def sleep(self, name: str, delta: timedelta) -> DurableFuture[None]:
        """Issue a durable timer."""

    def check_usable(self, what: str) -> None:
        """Refuse `ctx` inside a step and after the attempt."""


class Context(Calling):
    """The durable operations of one attempt of a handler.

    Futures may be awaited directly, many times, and through asyncio (`gather`, `wait`, `TaskGroup`): who completed
    first is what the journal says, in every replay. Using a context inside a step raises `UsageError`.
    """

    def __init__(
        self, driver: Driver, request: Callable[[], Request], seeded_random: Callable[[], random.Random]
    ) -> None:
        self._driver = driver
        # Both are made when they are first asked for: most handlers ask for neither.
        self._make_request = request
        self._make_random = seeded_random
        self._request: Request | None = None
        self._random: random.Random | None = None

    @property
    def _commands(self) -> Commands:
        return self._driver.commands

    def request(self) -> Request:
        """What the invocation was asked with. May be called inside a step."""
        if self._request is None:
            self._request = self._make_request()
        return self._request

    def random(self) -> random.Random:
        """Random numbers that are the same in every replay while they are drawn in the same order. Not for secrets."""
        self._driver.check_usable("ctx.random")
        if self._random is None:
            # Seeded by the invocation: the same numbers in every attempt, without an entry.
            self._random = self._make_random()
        return self._random

    def uuid(self) -> uuid.UUID:
        """A version 4 UUID that is the same in every replay; stable as long as the order of calls is."""
        self._driver.check_usable("ctx.uuid")
        return uuid.UUID(int=self.random().getrandbits(128), version=4)

    def time(self) -> DurableFuture[float]:
        """Seconds since the epoch, read once and recorded."""
        clock = self._driver.clock

        async def now() -> float:
            return clock.now_ms() / 1000

        return self._driver.run_step("time", now, (), {}, _DEFAULT_OPTIONS)

    def sleep(self, delta: timedelta, name: str | None = None) -> DurableFuture[None]:
        """Wait durably, for milliseconds or months; never less than `delta`.

        Raises:
            UsageError: Inside a step.
        """
        return self._driver.sleep(name or "", delta)

    @overload
    def run(
        self,
        name: str,
        action: Callable[..., Awaitable[T]],
        serde: Serde[T] = ...,
        max_attempts: int | None = ...,
        max_retry_duration: timedelta | None = ...,
        type_hint: Any = ...,
        args: tuple[Any, ...] | None = ...,
    ) -> DurableFuture[T]: ...

    @overload
    def run(
        self,
        name: str,
        action: Callable[..., T],
        serde: Serde[T] = ...,
        max_attempts: int | None = ...,
        max_retry_duration: timedelta | None = ...,
        type_hint: Any = ...,
        args: tuple[Any, ...] | None = ...,
    ) -> DurableFuture[T]: ...

    def run(
        self,
        name: str,
        action: Callable[..., Any],
        serde: Serde[Any] = DEFAULT_SERDE,
        max_attempts: int | None = None,
        max_retry_duration: timedelta | None = None,
        type_hint: Any = None,
        args: tuple[Any, ...] | None = None,
    ) -> DurableFuture[Any]:
        """Execute a step: once its result is recorded, it is never executed again.

        Async actions run on the loop, others in a thread with the context variables of this moment. The step starts at
        once, awaited or not.

        Args:
            name: For the journal; part of what must stay the same in a replay.
            action: What to do.
            serde: Writes and reads the result.
            max_attempts: See `RunOptions`.
            max_retry_duration: See `RunOptions`.
            type_hint: The result's type, where the action has no annotation.
            args: Passed to the action.

        Raises:
            UsageError: Inside a step, or the name or action is not one.
            DefinitionError: An option is out of its bounds.
        """
        if serde is DEFAULT_SERDE and max_attempts is None and max_retry_duration is None and type_hint is None:
            options: RunOptions[Any] = _DEFAULT_OPTIONS
        else:
            options = RunOptions(
                serde=serde, type_hint=type_hint, max_attempts=max_attempts, max_duration=max_retry_duration
            )
        return self._driver.run_step(name, action, args or (), {}, options)

    @overload
    def run_typed(
        self,
        name: str,
        action: Callable[P, Awaitable[T]],
        options: RunOptions[T] = ...,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DurableFuture[T]: ...

    @overload
    def run_typed(
        self, name: str, action: Callable[P, T], options: RunOptions[T] = ..., /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...

    def run_typed(
        self,
        name: str,
        action: Callable[..., Any],
        options: RunOptions[Any] = _DEFAULT_OPTIONS,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> DurableFuture[Any]:
        """Like `run`, with options in one value and the action's arguments behind them, typed.

        Raises:
            UsageError: Inside a step, or the name or action is not one.
        """
        return self._driver.run_step(name, action, args, kwargs, options)


def current_context() -> Context | None:
    """The context of the handler that the calling code runs in; `None` in steps and outside of handlers."""
    scope = SCOPE.get()
    if scope is None or isinstance(scope, StepInfo):
        return None
    context: Context | None = scope.context
    return context
