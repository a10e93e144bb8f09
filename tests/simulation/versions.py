"""Two versions of the simulated application's code, and what they differ in: one move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

Difference = Literal["renamed", "other", "less", "more", "gathered", "twins"]
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)


class Change(NamedTuple):
    """What the newer code does otherwise, in every program that is long enough.

    Attributes:
        kind: A step has another name; it is another command; it is left out; a step comes before it, awaited as it
            is or with `gather`, or a step and a sleep at once.
        at: At which move.
    """

    kind: Difference
    at: int


def moves_of(program: Sequence[Any], change: Change | None) -> list[tuple[Any, Any]]:
    """The moves that a version makes, each with its label: what its step is called by, and what it results in."""
    moves: list[tuple[Any, Any]] = list(enumerate(program))
    match change:
        case Change("more", at) if at <= len(moves):
            moves.insert(at, ("x", ("step", 0)))
        case Change("gathered", at) if at <= len(moves):
            moves.insert(at, ("x", ("both",)))
        case Change("twins", at) if at <= len(moves):
            moves.insert(at, ("x", ("both", 1)))
        case Change(kind, at) if at < len(moves):
            if kind == "less":
                del moves[at]
            elif kind == "renamed":
                moves[at] = (f"r{at}", program[at])
            else:
                moves[at] = (at, ("sleep", 1) if program[at][0] in ("step", "both") else ("step", 0))
        case _:
            pass
    return moves
