"""Running one attempt from its claim to its end: call the handler, then record what became of it."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import AsyncExitStack

from perdure.journal.retry import next_delay_ms
from perdure.journal.transitions import SUSPECT_AFTER
from perdure.schemas.entries import OUTGOING, AttemptFailed, Entry, Failure, Outcome, Output, Paused, Success
from perdure.schemas.errors import (
    DecodeError,
    FencedError,
    GapError,
    HandlerNotFoundError,
    JournalMismatchError,
    PerdureError,
    SerdeError,
    UsageError,
    text_of,
)
from perdure.schemas.limits import shorten

from .attempt import Attempt
from .clock import seeded_random
from .context import AttemptFinishedEvent, Request
from .departures import (
    AttemptEnd,
    Completed,
    Failing,
    Holding,
    Left,
    Losing,
    Lost,
    Pausing,
    Released,
    Releasing,
    Suspending,
)
from .handler import HandlerMode, decode_argument, encode_result
from .leash import leashed, raised_by_author
from .object_context import context_class
from .record_source import read_source
from .scope import SCOPE
from .source_lines import function_line
from .steps import as_failure, describe_error, retry_after_ms, terminal_cause


async def run_attempt(attempt: Attempt) -> AttemptEnd:
    """Run the attempt in the calling task, which must be its own.

    Guarantees that nothing of the handler or its steps runs any more when it returns, other than threads.

    Raises:
        asyncio.CancelledError: The task was cancelled from outside; nothing was recorded, the lease runs out.
    """
    try:
        outcome = await _outcome(attempt)
        await attempt.absorb()
        if isinstance(attempt.departure, Failing | Holding):
            # A step that is being executed right now would be executed again; its result is worth waiting for.
            await attempt.steps.executed()
            await attempt.writer.quiet()
        return await _record(attempt, outcome)
    except (FencedError, GapError) as error:
        return await _lose(attempt, error)
    except PerdureError as error:
        return Lost(error)
    finally:
        await attempt.close()


async def _outcome(attempt: Attempt) -> Outcome | None:
    """The handler's outcome; `None` where the attempt departs without one."""
    try:
        attempt.begin()
        if attempt.departure is not None:
            # It was told to leave before it began.
            return None
        _refuse_if_exhausted(attempt)
        try:
            outcome = await _call(attempt)
        finally:
            attempt.end_handler()
        if not attempt.machine.stalled or attempt.writer.busy:
            await attempt.finish_steps()
        if attempt.departure is None:
            attempt.machine.finish()
            return outcome
        attempt.handler_returned()
    except asyncio.CancelledError as error:
        await attempt.absorb()
        if attempt.cancelled_from_outside:
            # Maybe before the departure's own cancellation had arrived.
            raise
        if attempt.departure is None:
            # Not ours: the handler waited for something of its own that was cancelled.
            attempt.depart_quietly(Failing(error))
    except JournalMismatchError as error:
        attempt.depart_quietly(Pausing(error.at(function_line(attempt.handler.fn))))
    except (DecodeError, _ExhaustedError) as error:
        attempt.depart_quietly(Pausing(error))
    except BaseException as error:
        if not raised_by_author(error, attempt.task):
            raise
        # Whatever a handler raises ends its attempt and never the worker.
        attempt.depart_quietly(Failing(error))
    return None


async def _call(attempt: Attempt) -> Outcome:
    handler = attempt.handler
    token = SCOPE.set(attempt)
    # Context managers around the handler may ask for it, too.
    attempt.context = context_class(handler)(
        attempt, lambda: _request(attempt), lambda: seeded_random(attempt.invocation_id)
    )
    try:
        raw = await (_result_inside(attempt) if handler.context_managers else _result(attempt))
    except (Exception, SystemExit) as error:
        terminal = terminal_cause(error)
        if terminal is None or attempt.departure is not None:
            raise
        failure = as_failure(terminal)
        return failure if attempt.limits.sealer is None else attempt.limits.sealer.seal_outcome(failure)
    finally:
        SCOPE.reset(token)
    if len(raw) > attempt.limits.payload_bytes_max:
        raise SerdeError(
            f"The result of {handler.target} has {len(raw)} bytes; at most {attempt.limits.payload_bytes_max} fit into "
            "a journal. Store it elsewhere and return where it is."
        )
    return Success(raw)


async def _result(attempt: Attempt) -> bytes:
    handler = attempt.handler
    sealer = attempt.limits.sealer
    given = attempt.input.value
    argument = decode_argument(handler, given if sealer is None else sealer.open(given))
    context = attempt.context
    attempt.playing = True
    try:
        called = handler.fn(context, argument) if handler.takes_argument else handler.fn(context)
        value = await leashed(called, attempt)
    finally:
        attempt.playing = False
    raw = encode_result(handler, value)
    return raw if sealer is None else sealer.seal(raw)


async def _result_inside(attempt: Attempt) -> bytes:
    """The result, made inside of the handler's context managers; in the attempt's own task, as it all is."""
    async with AsyncExitStack() as stack:
        for factory in attempt.handler.context_managers:
            await stack.enter_async_context(factory())
        return await _result(attempt)
    raise UsageError(
        f"A context manager around {attempt.handler.target} swallowed what was raised inside of it, and so there is no "
        "outcome. It may raise another error instead; to have a result, catch the error in the handler."
    )


def _request(attempt: Attempt) -> Request:
    claim, first = attempt.claim, attempt.input
    attempt.finished = AttemptFinishedEvent()
    return Request(
        id=claim.lease.invocation_id,
        headers={name: value.decode("utf-8", "replace") for name, value in first.headers if value is not None},
        raw_headers=first.headers,
        attempt=claim.lease.epoch,
        body=first.value if attempt.limits.sealer is None else attempt.limits.sealer.open(first.value),
        idempotency_key=claim.idempotency_key or None,
        source=read_source(claim.source),
        attempt_finished_event=attempt.finished,
    )


class _ExhaustedError(PerdureError):
    """The attempts that are allowed were used up by deaths of workers, which no attempt could record by itself."""


def _refuse_if_exhausted(attempt: Attempt) -> None:
    attempts_max = attempt.limits.retry.policy.attempts_max
    if attempts_max is not None and attempt.claim.failures >= attempts_max:
        claim = attempt.claim
        how = "by taking its worker down"
        if claim.lost <= SUSPECT_AFTER:
            how = "together with its worker, by taking its worker down or beside another one that did"
        raise _ExhaustedError(
            f"{attempt.invocation_id} failed {claim.failures} times without progress, the last {claim.lost} times "
            f"{how}. Look at its journal, and at the logs of workers and machine (out of memory?), then resume it."
        )


async def _record(attempt: Attempt, outcome: Outcome | None) -> AttemptEnd:
    attempt.conclude()
    match attempt.departure:
        case None:
            assert outcome is not None, "without a departure there is an outcome"
            return await _complete(attempt, outcome)
        case Suspending(due_in_ms):
            return Left("suspended", due_in_ms=due_in_ms)
        case Releasing():
            await attempt.writer.quiet()
            attempt.writer.close()
            await attempt.store.release(attempt.claim.lease, [], **_position(attempt))
            return Released()
        case Pausing(error):
            return await _give_up(attempt, error, command="")
        case Holding():
            return await _hold(attempt)
        case Failing(error, command):
            return await _fail(attempt, error, command)
        case Losing(error):
            return await _lose(attempt, error)


def _position(attempt: Attempt) -> dict[str, int]:
    return {"after": attempt.machine.length, "seq": attempt.writer.next_seq()}


async def _complete(attempt: Attempt, outcome: Outcome, *events: Entry) -> Completed:
    """Record the outcome, behind what the machine has pending and behind `events`."""
    if attempt.machine.cancelled_callees:
        # Its end may be what they wait for, such as the object that it frees. What it called has to be in its journal.
        await attempt.writer.quiet()
        await attempt.cancel_callees()
    attempt.writer.close()
    entries: list[Entry] = [*attempt.machine.drain(), *events, Output(attempt.clock.now_ms(), outcome)]
    concluded = await attempt.store.complete(
        attempt.claim.lease,
        entries,
        **_position(attempt),
        retention_ms=attempt.limits.retention_ms,
        journal_retention_ms=attempt.limits.journal_retention_ms,
        timers=attempt.unfired,
        follow=attempt.follow() if attempt.claim.mode == HandlerMode.EXCLUSIVE else None,
    )
    if attempt.writer.sends:
        for at, entry in enumerate(entries, concluded.length - len(entries) + 1):
            if isinstance(entry, OUTGOING):
                attempt.sent(at, entry)
    topics, callers, following, _, claim, due = concluded
    return Completed(outcome, topics, callers, following, claim, due)


async def _fail(attempt: Attempt, error: BaseException, command: str) -> AttemptEnd:
    failures = 1 if attempt.writer.progressed else attempt.claim.failures + 1
    policy = attempt.limits.retry.policy
    delay_ms = next_delay_ms(policy, failures=failures, elapsed_ms=0, retry_after_ms=retry_after_ms(error))
    if delay_ms is None:
        return await _give_up(attempt, error, command=command)
    failed = _failed(attempt, error, command=command, retry_ms=delay_ms)
    attempt.writer.close()
    await attempt.store.back_off(
        attempt.claim.lease,
        [*attempt.machine.drain(), failed],
        **_position(attempt),
        retry_in_ms=delay_ms,
        failure=failed.error,
    )
    return Left("backing-off", failed.error, delay_ms)


async def _hold(attempt: Attempt) -> AttemptEnd:
    reason = "paused by an operator"
    attempt.writer.close()
    entries: list[Entry] = [*attempt.machine.drain(), Paused(attempt.clock.now_ms(), reason)]
    await attempt.store.give_up(attempt.claim.lease, entries, **_position(attempt), failure="")
    return Left("paused", reason)


async def _give_up(attempt: Attempt, error: BaseException, *, command: str) -> AttemptEnd:
    failed = _failed(attempt, error, command=command, retry_ms=-1)
    exhausted = not isinstance(error, JournalMismatchError | DecodeError)
    if exhausted and attempt.limits.retry.on_max_attempts == "kill":
        killed = Failure(
            500, shorten(f"All attempts failed; the last one with {type(error).__name__}: {text_of(error)}")
        )
        return await _complete(attempt, killed, failed)
    reason = failed.error
    if isinstance(error, HandlerNotFoundError) or not exhausted:
        reason = shorten(describe_error(error))
    attempt.writer.close()
    entries: list[Entry] = [*attempt.machine.drain(), failed, Paused(attempt.clock.now_ms(), reason)]
    await attempt.store.give_up(attempt.claim.lease, entries, **_position(attempt), failure=reason)
    return Left("paused", reason)


def _failed(attempt: Attempt, error: BaseException, *, command: str, retry_ms: int) -> AttemptFailed:
    stack = "".join(traceback.format_exception(error))
    return AttemptFailed(
        attempt.clock.now_ms(), shorten(f"{type(error).__name__}: {text_of(error)}"), shorten(stack), command, retry_ms
    )


async def _lose(attempt: Attempt, error: BaseException) -> AttemptEnd:
    """Let go; where the store lost entries but not our lease, hand over at once, so that another attempt replays."""
    if isinstance(error, GapError):
        try:
            await attempt.store.release(attempt.claim.lease, [], after=0, seq=attempt.writer.next_seq())
        except PerdureError as refusal:
            return Lost(refusal)
        return Released()
    return Lost(error)
