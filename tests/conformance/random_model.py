"""PURE. What must come of a plan: each counter, how many invocations of each handler, how many steps.

Law: it knows nothing of time, order, retries or crashes; that is the point.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from .random_programs import Command, Plan, Program

FAILED: Final = 418
"""The code of programs and callees that fail on purpose."""

_HELPED: Final = {"dance": "complete", "signal": "complete", "cancelled": "block"}


@dataclass
class Prediction:
    """What must come of a plan.

    Attributes:
        counters: By `Service/key`; an object that nobody counts in is not among them.
        invocations: How many complete, by `Service/handler`.
        steps: How many steps are executed.
        roots: By idempotency key: whether the program succeeds.
    """

    counters: Counter[str] = field(default_factory=Counter)
    invocations: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    roots: dict[str, bool] = field(default_factory=dict)

    def __add__(self, other: Prediction) -> Prediction:
        return Prediction(
            self.counters + other.counters,
            self.invocations + other.invocations,
            self.steps + other.steps,
            self.roots | other.roots,
        )


def fails(program: Program) -> bool:
    """Whether a program fails for good."""
    return any(command.kind == "fail" for command in program)


def predict(plan: Plan) -> Prediction:
    """What must come of a plan."""
    found = Prediction()
    for root in plan.roots:
        found.roots[root.name] = not fails(root.program)
        _program(found, 0, root.key, root.program)
    return found


def _program(found: Prediction, layer: int, key: str, program: Program) -> None:
    found.invocations[f"Layer{layer}/interpret"] += 1
    for command in program:
        if command.kind == "fail":
            return
        _command(found, layer, key, command)


def _command(found: Prediction, layer: int, key: str, command: Command) -> None:
    match command.kind:
        case "increment":
            found.counters[f"Layer{layer}/{key}"] += 1
        case "add":
            found.counters[f"Layer{layer}/{key}"] += 1
            found.invocations[f"Layer{layer}/add"] += 1
        case "peek":
            found.invocations[f"Layer{layer}/look"] += 1
        case "tally":
            found.counters[f"Tally/{command.key}"] += 1
            found.invocations["Tally/count"] += 1
        case "call" | "attach" | "send" | "forget":
            _program(found, layer + 1, command.key, command.program)
        case "later" | "together" | "tasks":
            for inner in command.program:
                _command(found, layer, key, inner)
        case "dance" | "signal" | "doom" | "eventual" | "cancelled":
            found.invocations[f"Helper/{_HELPED.get(command.kind, command.kind)}"] += 1
        case "workflow":
            found.invocations["Ritual/main"] += 1
            found.invocations["Ritual/bless"] += 1
            found.invocations["Tally/count"] += 1
            found.counters[f"Tally/{key}"] += 1
        case "step" | "flaky" | "broken" | "raising":
            found.steps += 1
        case _:
            pass
