"""One step: executing its action, and deciding what its failure means."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NamedTuple

from perdure.journal.retry import RetryPolicy, next_delay_ms
from perdure.schemas.entries import Failure, StepFailed
from perdure.schemas.errors import RetryableError, TerminalError, UsageError, text_of
from perdure.schemas.limits import METADATA_CHARACTERS_MAX, METADATA_MAX, NAME_LENGTH_MAX, shorten

from .actions import ActionTraits
from .options import RunOptions


class StepCall(NamedTuple):
    """A step as the handler asked for it. `context` is a copy of the handler's context variables at that moment."""

    name: str
    action: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: RunOptions[Any]
    traits: ActionTraits
    context: Context


class Exhausted(NamedTuple):
    """The step's policy allows no more executions: this is its result, for good."""

    failure: Failure


class Again(NamedTuple):
    """The step's policy allows another execution, after `failed.retry_ms`."""

    failed: StepFailed


class AttemptFails(NamedTuple):
    """The step has no policy of its own: the attempt fails, and the invocation's policy decides."""

    error: BaseException


Verdict = Exhausted | Again | AttemptFails


def check_step(name: str, action: object) -> None:
    """Refuse what cannot be a step.

    Raises:
        UsageError: The name is too long or not Unicode text, or the action cannot be called.
    """
    if not callable(action):
        raise UsageError(f"ctx.run({name!r}) takes a function to call, not {action!r:.200}.")
    if len(name) > NAME_LENGTH_MAX:
        raise UsageError(f"A step's name has at most {NAME_LENGTH_MAX} characters, not {len(name)}: {name:.80}...")
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"A step's name is Unicode text, and {name!r:.200} is not: {error}.") from error


async def execute_in_thread(call: StepCall, threads: Executor) -> Any:
    """Run a sync action once in a thread and return what it returned.

    What it returned is awaited here where it can be: a lambda that returns a coroutine works.
    """
    loop = asyncio.get_running_loop()
    # The thread gets a copy of its own, since one context can be entered by one thread at a time.
    work = partial(copy_context().run, _guarded, call.action, call.args, call.kwargs)
    value = await loop.run_in_executor(threads, work)
    return await value if inspect.isawaitable(value) else value


def _guarded(action: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return action(*args, **kwargs)
    except StopIteration as error:
        # asyncio refuses to carry it out of a thread.
        raise RuntimeError("the step's action raised StopIteration") from error


def judge(
    call: StepCall, index: int, error: BaseException, *, before: StepFailed | None, spent_ms: int, at_ms: int
) -> Verdict:
    """What the failure of an execution means.

    Args:
        call: The step.
        index: Its command index.
        error: What the action, or writing its result, raised; not a TerminalError.
        before: The step's last recorded failure.
        spent_ms: How long this execution took. Planned pauses count too, outages do not: no two clocks are compared.
        at_ms: Now, for display.
    """
    policy: RetryPolicy | None = call.options.policy()
    if policy is None:
        return AttemptFails(error)
    failures = 1 if before is None else before.failures + 1
    elapsed_ms = spent_ms if before is None else before.elapsed_ms + before.retry_ms + spent_ms
    delay_ms = next_delay_ms(policy, failures=failures, elapsed_ms=elapsed_ms, retry_after_ms=retry_after_ms(error))
    if delay_ms is None:
        return Exhausted(Failure(500, shorten(describe_error(error))))
    text = shorten(f"{type(error).__name__}: {text_of(error)}")
    return Again(StepFailed(index, call.name, at_ms, failures, elapsed_ms, delay_ms, text))


def retry_after_ms(error: BaseException) -> int | None:
    """The delay that a RetryableError asks for."""
    if isinstance(error, RetryableError) and error.retry_after is not None:
        return max(0, int(error.retry_after.total_seconds() * 1000))
    return None


def describe_error(error: BaseException) -> str:
    """An error's message; its type where it has none."""
    return text_of(error) or type(error).__name__


def as_failure(error: TerminalError) -> Failure:
    """A TerminalError as it is recorded."""
    return Failure(error.status_code, shorten(error.message), _bounded(error.metadata))


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    # Texts, whatever the author put there: what is no JSON could not be recorded.
    texts = [(str(name), str(value)) for name, value in list(metadata.items())[:METADATA_MAX]]
    bounded = {shorten(n, METADATA_CHARACTERS_MAX): shorten(v, METADATA_CHARACTERS_MAX) for n, v in texts}
    if len(metadata) > METADATA_MAX:
        bounded["…"] = f"{len(metadata) - METADATA_MAX} entries left out"
    return bounded


def terminal_cause(error: BaseException) -> TerminalError | None:
    """The TerminalError that an error is, was raised from, or holds in an exception group; `None` where there is none.

    Source: Restate's Python SDK honours a TerminalError that user code wrapped with `raise ... from`.
    """
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop()
        if isinstance(current, TerminalError):
            return current
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(reversed(current.exceptions))
        if current.__cause__ is not None:
            waiting.append(current.__cause__)
    return None
