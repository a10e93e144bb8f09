"""What the parts of the store in memory share: its slots, its clock, its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId, slot_of

from .keys import Keys
from .memory_slot import Record, Slot

_T = TypeVar("_T")


class Clock(Protocol):
    """The store's time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""


def _to_nobody(channel: str, message: bytes) -> None:
    pass


class MemoryNamespace:
    """A namespace in this process's memory.

    Args:
        clock: The store's time; deadlines fall due by it.
        slots: How many slots the namespace has.
        namespace: Begins the names of channels.
        publish: Told each message to a channel: hints and outcomes.
        one_node: Whether a transition may touch several slots, as on one server; on a cluster none does.
    """

    def __init__(
        self,
        clock: Clock,
        slots: int = 64,
        *,
        namespace: str = "memory",
        publish: Callable[[str, bytes], None] | None = None,
        one_node: bool = True,
    ) -> None:
        self._one_node = one_node
        self._clock = clock
        self._keys = Keys(namespace, slots=slots)
        self._slots = [Slot(publish or _to_nobody) for _ in range(slots)]
        self._workers: dict[str, int] = {}
        self._services: dict[str, str] = {}

    @property
    def slots(self) -> int:
        """How many slots the namespace has."""
        return len(self._slots)

    @property
    def losses(self) -> int:
        """See `Store.losses`: nothing is ever lost here."""
        return 0

    def _at(self, invocation_id: InvocationId) -> tuple[Slot, int]:
        return self._now(slot_of(invocation_id, len(self._slots)))

    def _of(self, target: str) -> tuple[Slot, int]:
        return self._now(self._keys.slot_of_target(target))

    def _now(self, slot: int) -> tuple[Slot, int]:
        now_ms = self._clock.now_ms()
        self._slots[slot].forget(now_ms)
        return self._slots[slot], now_ms

    def _record(self, invocation_id: InvocationId) -> Record | None:
        return self._at(invocation_id)[0].records.get(invocation_id)


def settled(act: Callable[[], _T]) -> asyncio.Future[_T]:
    """A future that holds already what `act` returned or raised."""
    future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    try:
        future.set_result(act())
    except PerdureError as error:
        future.set_exception(error)
    return future
