"""Listing invocations page by page, newest of each status first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from .inspection import InvocationView, view_of
from .selection import Cursor, InvocationFilter
from .store import Store
from .transitions import Listed

ROWS_MAX: Final = 500
"""Rows that are read at once: each is a hash to fetch."""

LOOKED_AT_MAX: Final = 10_000
"""Rows that are looked at for one page: a filter that few fulfil comes back with what it has, and where to go on."""


class InvocationPage(NamedTuple):
    """A part of a listing. `cursor` names where the next one begins; `None`: this was the last one."""

    invocations: tuple[InvocationView, ...]
    cursor: str | None


async def list_page(
    store: Store, chosen: InvocationFilter, *, now_ms: int, limit: int, cursor: str | None = None
) -> InvocationPage:
    """Return one page.

    One that changes its status meanwhile comes as it was last. It may come again on the next page or, where it went
    back, not at all.

    Args:
        store: Whose invocations.
        chosen: Which of them.
        now_ms: Until when ages count.
        limit: How many at most; fewer, even none, may come where few of many fulfil the filter.
        cursor: Of the page before.

    Raises:
        UsageError: The cursor is none.
    """
    statuses = chosen.in_order()
    place = Cursor(statuses[0], None) if cursor is None else Cursor.read(cursor)
    found: dict[str, InvocationView] = {}
    looked_at = 0
    for status in statuses[statuses.index(place.status) :] if place.status in statuses else ():
        after = place.after if status == place.status else None
        while True:
            rows_max = min(ROWS_MAX, LOOKED_AT_MAX - looked_at)
            if rows_max == 0 or len(found) == limit:
                return InvocationPage(tuple(found.values()), str(Cursor(status, after)))
            rows = await store.list_page(status, rows_max=rows_max, after=after)
            looked_at += len(rows)
            for row in rows:
                after = row.place
                view = _matching(row, chosen, now_ms)
                if view is not None:
                    found[view.id] = view
                    if len(found) == limit:
                        break
            else:
                if len(rows) < rows_max:
                    break
    return InvocationPage(tuple(found.values()), None)


def _matching(row: Listed, chosen: InvocationFilter, now_ms: int) -> InvocationView | None:
    view = None if row.summary is None else view_of(row.summary)
    return view if view is not None and chosen.matches(view, now_ms=now_ms) else None


async def every_page(
    store: Store, chosen: InvocationFilter, *, now_ms: int, limit: int
) -> AsyncIterator[InvocationPage]:
    """All pages, one after the other."""
    cursor = None
    while True:
        page = await list_page(store, chosen, now_ms=now_ms, limit=limit, cursor=cursor)
        yield page
        if page.cursor is None:
            return
        cursor = page.cursor
