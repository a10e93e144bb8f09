"""A workflow whose run waits for a promise that clients complete, or one of its handlers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perdure import TerminalError, Workflow, WorkflowContext, WorkflowSharedContext

from .steps import RETENTION, RETRY, step

PROMISE: Final = "word"
TAKEN: Final = 409


@dataclass(frozen=True)
class Errand:
    """What a workflow's run does.

    Attributes:
        tag: Its own, and its key.
        ms: How long its steps take.
    """

    tag: str
    ms: int = 0


@dataclass(frozen=True)
class Offer:
    """What a handler completes the promise with."""

    tag: str
    value: str


@dataclass(frozen=True)
class Word:
    """The outcome of a run, or of an offer.

    Attributes:
        tag: Whose.
        executions: The steps that its handler saw, in program order.
        value: Of a run: what the promise was completed with. Of an offer: what it completed it with, empty where the
            promise was completed already.
    """

    tag: str
    executions: list[str]
    value: str


flow = Workflow("Flow", invocation_retry_policy=RETRY)


@flow.main(workflow_retention=RETENTION)
async def run(ctx: WorkflowContext, errand: Errand) -> Word:
    """Work, wait for the word, work."""
    seen = [await step(ctx, "enter", errand.ms)]
    value = await ctx.promise(PROMISE, type_hint=str)
    seen.append(await step(ctx, "leave", errand.ms))
    return Word(errand.tag, seen, value)


@flow.handler()
async def settle(ctx: WorkflowSharedContext, offer: Offer) -> Word:
    """Work, and complete the promise, if nobody else has."""
    seen = [await step(ctx, "offer", 0)]
    try:
        await ctx.promise(PROMISE, type_hint=str).resolve(offer.value)
    except TerminalError as error:
        if error.status_code != TAKEN:
            raise
        return Word(offer.tag, seen, "")
    return Word(offer.tag, seen, offer.value)
