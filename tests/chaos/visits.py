"""Desks: objects whose visitors wait, and are meanwhile answered, cancelled, killed or paused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from perdure import ObjectContext, TerminalError, VirtualObject

from .steps import RETRY, step

Wait = Literal["signal", "awakeable", "sleep"]

SIGNAL: Final = "go"

AWAKEABLE_INDEX: Final = 1
"""The command index of the awakeable that a visitor waits for: behind its first step."""

UNDO: Final = "undo"
CANCELLED: Final = 409


@dataclass(frozen=True)
class Visit:
    """What a visitor does.

    Attributes:
        tag: The visit's own.
        waits: For what, between its two steps.
        ms: How long its steps take, and the durable wait.
    """

    tag: str
    waits: Wait
    ms: int = 0


@dataclass(frozen=True)
class Visited:
    """The outcome of a visit.

    Attributes:
        tag: The visit's.
        executions: The steps that its handler saw, in program order.
        value: What it was answered.
    """

    tag: str
    executions: list[str]
    value: str


desk = VirtualObject("Desk", invocation_retry_policy=RETRY)


@desk.handler()
async def visit(ctx: ObjectContext, wish: Visit) -> Visited:
    """Work, wait, work; undo it where it is cancelled meanwhile."""
    seen, value = [], ""
    try:
        seen.append(await step(ctx, "enter", wish.ms))
        match wish.waits:
            case "signal":
                value = await ctx.signal(SIGNAL, type_hint=str)
            case "awakeable":
                _, answer = ctx.awakeable(type_hint=str)
                value = await answer
            case "sleep":
                await ctx.sleep(timedelta(milliseconds=wish.ms))
        seen.append(await step(ctx, "leave", wish.ms))
    except TerminalError as error:
        if error.status_code != CANCELLED:
            raise
        await step(ctx, UNDO, wish.ms)
        raise
    return Visited(wish.tag, seen, value)
