"""What happens in one simulation, as a value: what clients ask, and what goes wrong. Made from a seed, and shrunk."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from .programs import BOX, FLOW, NEST, SIGNAL, WORK, Program
from .versions import DIFFERENCES, Change

Kind = Literal[
    "crash",
    "freeze",
    "stop",
    "cut",
    "block",
    "blackout",
    "failover",
    "kafka-outage",
    "rebalance",
    "step-back",
    "lose-ends",
    "skew",
    "store-jump",
    "cancel",
    "kill",
    "pause",
    "resume",
    "deploy",
]
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "deploy")
"""What happens in any schedule; a newer version is deployed in some."""

SPAN_S = 3.0
"""Events are within it; what clients ask comes in its first half. Short, so that thousands fit into a minute."""

NESTING = 0.08
"""In so many of all schedules somebody has an object wait for itself, and kills what does."""

DEPLOYING = 0.06
"""In so many of all schedules workers run newer code for a while."""

NO_CHANGE = Change("more", 1_000)
"""Further on than any program goes."""

_OFTEN: tuple[Kind, ...] = ("crash", "freeze", "freeze", "block", "failover", "cancel")
"""What is chosen more often than the rest."""


@dataclass(frozen=True, slots=True)
class Request:
    """One record that a client produces.

    Attributes:
        at_s: When.
        service: Whose handler; the handler follows from it.
        argument: A program; an amount for `Box`.
        key: Of an object or workflow.
        delay_ms: It is not to start before.
        copies: How often the record arrives: clients send again what was not acknowledged to them.
    """

    at_s: float
    service: str
    argument: Any
    key: str | None = None
    delay_ms: int = 0
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that goes wrong, or that somebody does.

    Attributes:
        at_s: When.
        kind: What.
        target: Which worker; which request, for what is done to an invocation.
        steps: So many callbacks of the worker later, or commands of the store: each await can be hit.
        amount: How long in ms, how many, or how much, by kind.
    """

    at_s: float
    kind: Kind
    target: int = 0
    steps: int = 0
    amount: float = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """One simulation.

    Attributes:
        seed: Of all delays and of whose turn it is.
        workers: How many.
        requests: What is asked.
        events: What goes wrong.
        change: What the newer code does otherwise, where it is deployed.
    """

    seed: int
    workers: int
    requests: tuple[Request, ...]
    events: tuple[Event, ...]
    change: Change = NO_CHANGE

    @property
    def versions(self) -> bool:
        """Whether workers run newer code for a while."""
        return any(event.kind == "deploy" for event in self.events)

    def without(self, *, request: int | None = None, event: int | None = None) -> Schedule:
        """The same with one thing less. What was done to a request goes with it."""
        if event is not None:
            return replace(self, events=self.events[:event] + self.events[event + 1 :])
        assert request is not None, "something is left out"
        events = tuple(
            replace(each, target=each.target - (each.target > request)) if each.kind in CONTROLS else each
            for each in self.events
            if each.kind not in CONTROLS or each.target != request
        )
        return replace(self, requests=self.requests[:request] + self.requests[request + 1 :], events=events)


CONTROLS = frozenset({"cancel", "kill", "pause", "resume"})


def generate(
    seed: int,
    kinds: Sequence[Kind] = (*KINDS, *_OFTEN),
    *,
    counts: Sequence[int] = (0, 1, 1, 2, 2, 3, 4, 5),
    nesting: float = NESTING,
    deploying: float = DEPLOYING,
) -> Schedule:
    """The schedule of a seed.

    Args:
        seed: Any number.
        kinds: What may happen in it; what is named twice happens more often.
        counts: How often, likewise.
        nesting: How likely it is that an object is made to wait for itself.
        deploying: How likely it is that workers run newer code.
    """
    chance = random.Random(f"schedule {seed}")
    workers = chance.choice((1, 2, 2, 3))
    requests = [request for _ in range(chance.randint(1, 4)) for request in _requests(chance)]
    requests.sort(key=lambda request: request.at_s)
    count = chance.choice(counts)
    events = [_event(chance, chance.choice(kinds), workers, requests) for _ in range(count)]
    # Rare things have a generator of their own: the other schedules are what they were without them.
    rarely = random.Random(f"rare {seed}")
    if rarely.random() < nesting:
        _nest(rarely, requests, events)
    if rarely.random() < deploying:
        events += _deployments(rarely, workers, requests)
    events.sort(key=lambda event: event.at_s)
    change = Change(rarely.choice(DIFFERENCES), rarely.choice((0, 0, 1, 1, 2, 3)))
    return Schedule(seed, workers, tuple(requests), tuple(events), change)


def _nest(chance: random.Random, requests: list[Request], events: list[Event]) -> None:
    """Have one or two objects wait for themselves, with others behind them, and kill whose fault it is."""
    for _ in range(chance.choice((1, 1, 2))):
        at_s, key = round(chance.random() * SPAN_S / 2, 3), chance.choice("ab")
        own: Program = (("step", 0),) * chance.randrange(2) + (("add", key, 7),)
        programs = chance.choice(((), (own,), (own, _program(chance, depth=1)), ((("call", own),),)))
        requests.append(Request(at_s, NEST, programs, key))
        kill = Event(round(at_s + chance.choice((0.1, 0.4, 2.0)) * chance.random(), 3), "kill", len(requests) - 1)
        behind = [Request(round(at_s + chance.random() * 0.1, 3), BOX, 2, key) for _ in range(chance.randrange(3))]
        requests += behind
        if chance.random() < 0.8:
            events.append(kill)


def _deployments(chance: random.Random, workers: int, requests: list[Request]) -> list[Event]:
    """Have workers run newer code for a while, and something wait meanwhile that was begun with the other."""
    at_s = round(chance.random() * SPAN_S / 2, 3)
    program = (*_program(chance, depth=1), ("sleep", chance.choice((200, 700))), *_program(chance, depth=1))
    requests.append(Request(at_s, WORK, program))
    some = [_event(chance, "deploy", workers, requests) for _ in range(chance.choice((1, 2, 3)))]
    last = replace(some[-1], at_s=round(at_s + 0.2 * chance.random(), 3))
    # One after the other all of them, or whoever it is.
    rolling = range(chance.choice((0, workers)))
    return [*some[:-1], last, *(replace(last, target=number) for number in rolling if number != last.target)]


def _requests(chance: random.Random) -> list[Request]:
    at_s = round(chance.random() * SPAN_S / 2, 3)
    delay_ms = chance.choice((0, 0, 0, 0, 400))
    copies = chance.choice((1, 1, 1, 2))
    match chance.randrange(5):
        case 0 | 1:
            return [Request(at_s, WORK, _program(chance, depth=2), None, delay_ms, copies)]
        case 2 | 3:
            key = chance.choice("ab")
            return [
                Request(round(at_s + 0.002 * number, 3), BOX, chance.choice((2, 7, 60, 301)), key, 0, copies)
                for number in range(chance.randint(1, 4))
            ]
        case _:
            key, later_s = f"w{chance.randrange(1000)}", round(at_s + chance.random(), 3)
            run = Request(at_s, FLOW, _program(chance, depth=1), key, 0, copies)
            return [run, Request(later_s, f"{FLOW}/give", chance.randrange(100), key, 0, copies)]


_MOVES = ("step", "step", "sleep", "both", "call", "send", "add", "post", "awakeable", "signal", "fail")


def _program(chance: random.Random, *, depth: int) -> Program:
    moves: list[Any] = []
    for _ in range(chance.randint(1, 4)):
        match chance.choice(_MOVES):
            case "step":
                moves.append(("step", chance.choice((0, 0, 0, 1, 2))))
            case "sleep" | "both" as what:
                moves.append((what, chance.choice((1, 50, 700))))
            case "call" | "send" as what if depth:
                moves.append((what, _program(chance, depth=depth - 1)))
            case "add" | "post" as what:
                moves.append((what, chance.choice("ab"), chance.choice((2, 7, 60))))
            case "awakeable":
                moves.append(("awakeable",))
            case "signal" if depth == 2:
                moves.append(("signal", SIGNAL))
            case "fail" if chance.random() < 0.2:
                moves.append(("fail",))
            case _:
                moves.append(("step", 0))
    return tuple(moves)


def _event(chance: random.Random, kind: Kind, workers: int, requests: list[Request]) -> Event:
    # Where something is under way there is more to hit.
    busy_s = chance.choice(requests).at_s + chance.choice((0.02, 0.3)) * chance.random()
    at_s = round(chance.choice((busy_s, busy_s, chance.random() * SPAN_S)), 3)
    worker, steps = chance.randrange(workers), int(1.5 ** chance.randrange(12))
    match kind:
        case "deploy":
            return Event(at_s, kind, worker, steps, chance.choice((300, 1_000, 3_000)))
        case "freeze" | "block":
            return Event(at_s, kind, worker, steps, chance.choice((100, 700, 2_500, 4_000)))
        case "crash" | "stop":
            return Event(at_s, kind, worker, steps, chance.choice((10, 500, 2_500)))
        case "cut":
            return Event(at_s, kind, worker, steps)
        case "blackout" | "kafka-outage":
            return Event(at_s, kind, steps=steps, amount=chance.choice((100, 1_000, 3_000)))
        case "failover":
            return Event(at_s, kind, steps=steps, amount=round(chance.random(), 3))
        case "step-back":
            return Event(at_s, kind, amount=chance.randint(1, 5))
        case "skew":
            return Event(at_s, kind, worker, steps, chance.choice((-3_600_000, -5_000, 5_000, 3_600_000)))
        case "store-jump":
            return Event(at_s, kind, amount=chance.choice((200, 2_000, 60_000)))
        case "cancel" | "kill" | "pause" | "resume":
            return Event(at_s, kind, chance.randrange(len(requests)))
        case _:
            return Event(at_s, kind)
