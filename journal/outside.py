"""What the outside tells a handler beside completions: signals and cancellations. PURE; a part of the machine."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Set

from perdure.schemas.entries import Outcome
from perdure.schemas.ids import InvocationId

from .moves import Interrupt


class Outside:
    """The signals that nobody has taken, the waits that have none, and the callees that a cancellation goes on to."""

    __slots__ = ("_children", "_signals", "_told", "_waits")

    def __init__(self) -> None:
        self._signals: defaultdict[str, deque[Outcome]] = defaultdict(deque)
        self._waits: defaultdict[str, deque[int]] = defaultdict(deque)
        self._children: dict[int, InvocationId] = {}
        self._told: set[tuple[int, InvocationId]] = set()

    def call(self, index: int, invocation_id: InvocationId) -> None:
        """The handler called that invocation."""
        self._children[index] = invocation_id

    def answered(self, index: int) -> None:
        """The call at that index has its result."""
        self._children.pop(index, None)

    def told(self, cause: int, invocation_id: InvocationId) -> None:
        """The journal says that the cancellation at `cause` went on to this callee."""
        self._told.add((cause, invocation_id))

    @property
    def told_of(self) -> Set[tuple[int, InvocationId]]:
        """Every cancellation that went on to a callee: where it stands, and to whom."""
        return self._told

    def wait(self, name: str, index: int) -> Outcome | None:
        """The handler waits for a signal: one that was kept for it, or `None` where it has to wait."""
        if signals := self._signals.get(name):
            return signals.popleft()
        self._waits[name].append(index)
        return None

    def signal(self, name: str, outcome: Outcome) -> int | None:
        """The command index of the wait that takes a signal; `None`: it is kept."""
        if waits := self._waits.get(name):
            return waits.popleft()
        self._signals[name].append(outcome)
        return None

    def interrupt(self, cause: int, dropped: tuple[int, ...]) -> Interrupt:
        """What the cancellation at `cause` does."""
        children = tuple(child for child in self._children.values() if (cause, child) not in self._told)
        self._told.update((cause, child) for child in children)
        return Interrupt(cause, dropped, children)
