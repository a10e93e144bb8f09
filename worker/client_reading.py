"""The part of a client that looks: one invocation, listings, journals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from perdure.journal.inspection import InvocationView, view_of
from perdure.journal.listing import InvocationPage, list_page
from perdure.journal.selection import InvocationFilter
from perdure.schemas.entries import Positioned
from perdure.schemas.errors import UsageError
from perdure.schemas.ids import InvocationId

from .client_connection import ClientConnection, unknown
from .envelope import checked_id

FOLLOW_INTERVAL_S: Final = 0.3
"""Between two looks at a journal that grows: quick for an eye, nothing for Redis."""

ENTRIES_MAX: Final = 1_000
"""Entries of a journal that are read at once."""

LIMIT_MAX: Final = 10_000
"""Invocations of one page: each one is a hash to fetch."""


class ClientReading(ClientConnection):
    """Looking at invocations."""

    async def status(self, invocation_id: str) -> InvocationView:
        """Return what is known of an invocation.

        Raises:
            InvocationNotFoundError: There is none of that id, not yet or not any more.
            UsageError: It is not an invocation id.
        """
        summary = await self._store.read_invocation(checked_id(invocation_id))
        if summary is None:
            raise unknown(invocation_id)
        return view_of(summary)

    async def list_invocations(
        self, chosen: InvocationFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> InvocationPage:
        """Return a page of invocations, status by status, the newest of each first.

        Args:
            chosen: Which; all without it.
            limit: How many at most, up to 10,000. A page may have fewer, even none, where few of many are meant.
            cursor: Of the page before; without it the first one.

        Raises:
            UsageError: The cursor is none, or the limit is out of its bounds.
        """
        if not 0 < limit <= LIMIT_MAX:
            raise UsageError(f"limit={limit} is not from 1 to {LIMIT_MAX}.")
        now_ms = self._clock.now_ms()
        return await list_page(self._store, chosen or InvocationFilter(), now_ms=now_ms, limit=limit, cursor=cursor)

    async def journal(self, invocation_id: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[Positioned]:
        """The entries of a journal past a position, oldest first.

        Args:
            invocation_id: Whose.
            after: The position of the last entry that is known already.
            follow: Go on until the invocation is completed.

        Raises:
            InvocationNotFoundError: There is none of that id, or not any more.
            UsageError: It is not an invocation id.
        """
        chosen = checked_id(invocation_id)
        while True:
            # Looked at before its journal: what was completed then has nothing to come.
            completed = (await self.status(chosen)).status == "completed"
            async for row in self._entries(chosen, after):
                after = row.position
                yield row
            if completed or not follow:
                return
            await self._clock.sleep(FOLLOW_INTERVAL_S)

    async def _entries(self, invocation_id: InvocationId, after: int) -> AsyncIterator[Positioned]:
        while True:
            rows = await self._store.read_journal(invocation_id, after=after, entries_max=ENTRIES_MAX)
            for row in rows:
                yield row
            if len(rows) < ENTRIES_MAX:
                return
            after = rows[-1].position
