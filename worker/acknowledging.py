"""Acknowledging what journals send: what reached where it had to in one turn of the loop goes together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from perdure.journal.store import Store
from perdure.schemas.ids import InvocationId


class Acknowledging:
    """The acknowledgements of one worker.

    Args:
        store: Where they are written.
        spawn: Runs something on the side; errors are logged there.
    """

    def __init__(self, store: Store, *, spawn: Callable[[Awaitable[object]], None]) -> None:
        self._store = store
        self._spawn = spawn
        self._sent: defaultdict[tuple[InvocationId, int | None], list[int]] = defaultdict(list)

    def put(self, origin: InvocationId, position: int, *, as_of: int | None) -> None:
        """Acknowledge the entry at that position, with all that come in this turn of the loop.

        Args:
            origin: Whose journal.
            position: Where the entry stands.
            as_of: As in `Store.acknowledge`.
        """
        if not self._sent:
            asyncio.get_running_loop().call_soon(self._acknowledge)
        self._sent[origin, as_of].append(position)

    def _acknowledge(self) -> None:
        sent, self._sent = self._sent, defaultdict(list)
        for (origin, as_of), positions in sent.items():
            self._spawn(self._store.acknowledge(origin, sent=positions, as_of=as_of))
