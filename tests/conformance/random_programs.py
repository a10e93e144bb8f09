"""Random programs for layered objects: made of a seed, written as JSON, and made smaller where they fail."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import TypeAdapter

LAYERS: Final = 3
KEYS: Final = ("a", "b")
"""Of each layer's objects: few, so that programs wait for each other."""

NAMES: Final = ("x", "y", "z")
"""Of the state that programs set, get and clear."""

Future = Literal[
    "sleep", "step", "flaky", "broken", "raising", "call", "attach", "tally", "dance", "signal", "doom", "eventual",
    "cancelled", "workflow",
]  # fmt: skip
Kind = Literal[
    Future, "increment", "set", "get", "clear", "wipe", "names", "peek", "add", "send", "forget", "crash", "later",
    "together", "tasks", "fail",
]  # fmt: skip

Together = Literal[
    "gather", "gather_results", "select", "as_completed", "wait_completed", "first_success", "with_timeout",
    "asyncio.gather", "asyncio.wait",
]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """One command of a program.

    Attributes:
        kind: `sleep`; `step`; `flaky`, a step that fails a few times; `broken`, one that uses its attempts up;
            `raising`, one that fails for good; `call` of a program of the next layer; `attach` to one that was sent;
            `tally`, which counts in another object; `dance` and `signal`, which a helper completes; `doom`, a call that
            fails for good; `eventual`, one that fails a few times; `cancelled`, one that is; `workflow`, submitted
            twice and let go on by a promise. These have a future, the others are awaited at once:
            `increment`, `set`, `get`, `clear`, `wipe`, `names` and `peek` (a shared handler of the same object) are
            about the object's own state; `add` sends to the object itself; `send` and `forget` (a call that nobody
            awaits) invoke the next layer; `crash` fails a few attempts; `later` starts a future that is awaited at the
            end; `together` awaits several through a combinator, `tasks` in tasks; `fail` ends the program for good.
        ms: How long, or how much later.
        times: How often it fails, or a number that is written.
        name: A state's name; how something is done, such as which combinator awaits.
        key: Of the object that is called; else one that no other command has.
        program: What the next layer does, or what is awaited together.
    """

    kind: Kind
    ms: int = 0
    times: int = 0
    name: str = ""
    key: str = ""
    program: tuple[Command, ...] = ()


Program = tuple[Command, ...]


@dataclass(frozen=True)
class Root:
    """What a client sends to an object of the first layer.

    Attributes:
        key: Of the object.
        name: Its idempotency key.
        ms: How much later it begins.
        times: How often it is sent.
        program: What it does.
    """

    key: str
    name: str
    ms: int
    times: int
    program: Program


@dataclass(frozen=True)
class Plan:
    """All programs of one seed."""

    seed: int
    roots: tuple[Root, ...]


_PLANS: Final = TypeAdapter(Plan)


def to_json(plan: Plan) -> str:
    """A plan as text; what is at its default is left out."""
    return _PLANS.dump_json(plan, exclude_defaults=True).decode()


def from_json(text: str) -> Plan:
    """The plan that `to_json` wrote."""
    return _PLANS.validate_json(text)


_CALLS: Final[tuple[Kind, ...]] = ("call", "attach", "send", "forget")
_FUTURES: Final[tuple[Kind, ...]] = get_args(Future)
_ALL: Final[tuple[Kind, ...]] = tuple(kind for kind in get_args(Kind) if kind != "fail")
_WEIGHTS: Final = {"increment": 5, "call": 5, "send": 3, "attach": 2, "together": 4, "tasks": 3, "later": 3, "dance": 3}


class _Maker:
    def __init__(self, seed: int, *, commands_max: int) -> None:
        self.chance = random.Random(seed)
        self._seed = seed
        self._numbers = 0
        self._commands_max = commands_max
        self._left = 0

    def root(self) -> Root:
        chance = self.chance
        self._left = self._commands_max
        delay_ms = chance.randrange(1, 40) if chance.random() < 0.2 else 0
        times = 2 if chance.random() < 0.2 else 1
        return Root(self._object(), self._unique(), delay_ms, times, self._program(0, 8))

    def _program(self, layer: int, length_max: int) -> Program:
        length = self.chance.randint(1, length_max)
        commands = [self._command(layer, _ALL) for _ in range(length) if self._left > 0]
        if layer > 0 and self.chance.random() < 0.15:
            commands.append(Command("fail"))
        return tuple(commands)

    def _command(self, layer: int, kinds: tuple[Kind, ...]) -> Command:
        self._left -= 1
        chance = self.chance
        if layer == LAYERS - 1 or self._left <= 0:
            kinds = tuple(kind for kind in kinds if kind not in _CALLS)
        (kind,) = chance.choices(kinds, [_WEIGHTS.get(kind, 2) for kind in kinds])
        match kind:
            case "call" | "attach" | "send" | "forget":
                delay_ms = chance.choice((0, 0, chance.randrange(1, 40)))
                return Command(kind, ms=delay_ms, key=self._object(), program=self._program(layer + 1, 4))
            case "set" | "get" | "clear":
                return Command(kind, name=chance.choice(NAMES), times=chance.randrange(1, 100))
            case "later":
                return Command(kind, program=(self._command(layer, _FUTURES),))
            case "together" | "tasks":
                futures = tuple(self._command(layer, _FUTURES) for _ in range(chance.randint(2, 4)))
                return Command(kind, name=chance.choice(get_args(Together)), program=futures)
            case "dance" | "signal":
                how = chance.choice(("resolve", "reject", "both"))
                return Command(
                    kind, name=how, ms=chance.choice((0, 10)), times=chance.choice((0, 1)), key=self._unique()
                )
            case "step":
                return Command(kind, name=chance.choice(("async", "thread")), ms=chance.choice((0, 0, 15)))
            case "sleep" | "add":
                return Command(kind, ms=chance.choice((0, 1, chance.randrange(1, 50))))
            case "tally":
                return Command(kind, key=self._object())
            case "workflow":
                return Command(kind, name=chance.choice(("early", "late")), key=self._unique())
            case _:
                return Command(kind, times=chance.randint(1, 3), key=self._unique() if kind == "crash" else "")

    def _object(self) -> str:
        return f"{self.chance.choice(KEYS)}{self._seed}"

    def _unique(self) -> str:
        self._numbers += 1
        return f"u{self._seed}-{self._numbers}"


def make_plan(seed: int, *, roots: int = 5, commands_max: int = 14) -> Plan:
    """The programs of a seed: always the same ones.

    Args:
        seed: Also part of the objects' keys, so that plans of two seeds share no object.
        roots: How many programs clients send.
        commands_max: In each of them, those of inner programs included; about so many are reached.
    """
    maker = _Maker(seed, commands_max=commands_max)
    return Plan(seed, tuple(maker.root() for _ in range(roots)))


def smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with something left out, those without much of it first."""
    for index, root in enumerate(plan.roots):
        rest = (plan.roots[:index], plan.roots[index + 1 :])
        if len(plan.roots) > 1:
            yield dataclasses.replace(plan, roots=rest[0] + rest[1])
        for shorter in _shorter(root.program):
            yield dataclasses.replace(plan, roots=(*rest[0], dataclasses.replace(root, program=shorter), *rest[1]))
        if root.ms or root.times > 1:
            plain = dataclasses.replace(root, ms=0, times=1)
            yield dataclasses.replace(plan, roots=(*rest[0], plain, *rest[1]))


def _shorter(program: Program) -> Iterator[Program]:
    if len(program) > 3:
        half = len(program) // 2
        yield program[half:]
        yield program[:half]
    for index, command in enumerate(program):
        yield program[:index] + program[index + 1 :]
        for inner in _shorter(command.program):
            if inner or command.kind in _CALLS:
                yield (*program[:index], dataclasses.replace(command, program=inner), *program[index + 1 :])


def size(plan: Plan) -> int:
    """How many commands a plan has, those of inner programs included."""

    def count(program: Program) -> int:
        return sum(1 + count(command.program) for command in program)

    return sum(count(root.program) for root in plan.roots)
