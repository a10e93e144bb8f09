"""How one step is retried: with the invocation, by a policy of its own, after a delay that it names, or not at all.

Run it with `perdure dev examples.step_retries:application`, and then
`perdure call Weather/patiently '{"place": "Oslo", "failures": 2}'`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from examples.ledger import Ledger
from perdure import (
    Context,
    InvocationRetryPolicy,
    RetryableError,
    RunOptions,
    Service,
    TerminalError,
    app,
    current_step,
)

weather = Service("Weather")

THREE_TIMES = RunOptions[str](max_attempts=3, initial_retry_interval=timedelta(milliseconds=20))
FOR_A_MINUTE = RunOptions[str](
    max_duration=timedelta(minutes=1),
    initial_retry_interval=timedelta(milliseconds=20),
    max_retry_interval=timedelta(seconds=1),
    retry_interval_factor=3.0,
)
SOON = InvocationRetryPolicy(initial_interval=timedelta(milliseconds=20))


class Question(BaseModel):
    """Where, and how often each station fails before it answers."""

    place: str
    failures: int = 0


@weather.handler(invocation_retry_policy=SOON)
async def plainly(ctx: Context, question: Question) -> str:
    """No option: a failure fails the attempt, and the invocation's policy brings another one."""
    return await ctx.run("ask", ask, args=(question,))


@weather.handler()
async def patiently(ctx: Context, question: Question) -> str:
    """A policy of the step's own: the attempt goes on, and failures are counted in the journal across crashes."""
    return await ctx.run_typed("ask", ask, FOR_A_MINUTE, question)


@weather.handler()
async def with_a_fallback(ctx: Context, question: Question) -> str:
    """Exhausted, the step ends in a TerminalError that every replay sees at the same place: handle it, or let it be."""
    try:
        return await ctx.run_typed("ask", ask, THREE_TIMES, question)
    except TerminalError:
        return await ctx.run("look out of the window", lambda: f"{question.place}: it is dark")


@weather.handler()
async def politely(ctx: Context, question: Question) -> str:
    """The station says when to ask again: `retry_after` comes before the policy's own delay."""
    return await ctx.run_typed("ask politely", ask_politely, THREE_TIMES, question)


def ask(question: Question) -> str:
    """Ask a station that fails at first."""
    if not _record(question):
        raise ConnectionError(f"the station of {question.place} does not answer")
    return f"{question.place}: sunny"


def ask_politely(question: Question) -> str:
    """Ask a station that fails at first and says when to come back."""
    if not _record(question):
        raise RetryableError("too many questions", status_code=429, retry_after=timedelta(milliseconds=50))
    return f"{question.place}: sunny"


def _record(question: Question) -> bool:
    step = current_step()
    assert step is not None, "called as a step"
    return Ledger().record(step.invocation_id, "ask", key=step.idempotency_key, refusals=question.failures).done


application = app([weather])
