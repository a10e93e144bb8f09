"""Filters and places in listings: `perdure.journal.selection` and `perdure.journal.listing`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure.journal.inspection import view_of
from perdure.journal.keys import STATUSES
from perdure.journal.listing import InvocationPage, every_page, list_page
from perdure.journal.selection import Cursor, InvocationFilter
from perdure.journal.transitions import Place, Summary
from perdure.schemas.entries import Failure, Output
from perdure.schemas.errors import UsageError

from .store_contract import LEASE_MS, MINUTE_MS, Bench, admission, admitted, completed, new_id

MINUTE = timedelta(minutes=1)


async def ids_of(bench: Bench, **wanted: Any) -> set[str]:
    """Ids of those that fulfil a filter."""
    page = await list_page(bench.store, InvocationFilter(**wanted), now_ms=await bench.now_ms(), limit=50)
    assert page.cursor is None
    return {view.id for view in page.invocations}


async def test_each_condition_narrows(bench: Bench) -> None:
    """Status, service, handler, key and failure text; all of them together."""
    old = await admitted(bench)
    await bench.store.give_up(old, [], after=1, seq=1, failure="ValueError: Bad Luck")
    failed = await admitted(bench, handler="sell")
    await bench.store.complete(
        failed, [Output(1, Failure(500, "no luck"))], after=1, seq=1, retention_ms=9**9, journal_retention_ms=9**9
    )
    keyed = await admitted(bench, key="k", service="Bank")
    everything = {lease.invocation_id for lease in (old, failed, keyed)}
    assert await ids_of(bench) == everything
    assert await ids_of(bench, statuses=("paused", "completed")) == everything - {keyed.invocation_id}
    assert await ids_of(bench, service="Bank") == {keyed.invocation_id}
    assert await ids_of(bench, handler="sell") == {failed.invocation_id}
    assert await ids_of(bench, key="k") == {keyed.invocation_id}
    assert await ids_of(bench, failure="LUCK") == everything - {keyed.invocation_id}
    assert await ids_of(bench, failure="luck", statuses=("paused",)) == {old.invocation_id}


async def test_pages_hold_each_once(bench: Bench) -> None:
    """Over several statuses, whatever the size of a page; a cursor is text."""
    for number in range(7):
        lease = await admitted(bench)
        if number % 2:
            await completed(bench, lease)
        await bench.tick()
    everything = await ids_of(bench)
    for limit in (1, 2, 3, 7, 50):
        pages = [
            page async for page in every_page(bench.store, InvocationFilter(), now_ms=await bench.now_ms(), limit=limit)
        ]
        ids = [view.id for page in pages for view in page.invocations]
        assert sorted(ids) == sorted(everything)
        assert all(len(page.invocations) <= limit for page in pages)


async def test_one_that_moves_on_comes_once_on_a_page(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was last: it is found in one index after the other."""
    lease, other = await admitted(bench), await admitted(bench)
    look = bench.store.list_page

    async def moving(status: str, **how: Any) -> Any:
        if status == "backing-off":
            await bench.store.suspend(lease, [], after=1, seq=1, wake_in_ms=None)
        return await look(status, **how)

    monkeypatch.setattr(bench.store, "list_page", moving)
    page = await list_page(bench.store, InvocationFilter(), now_ms=await bench.now_ms(), limit=50)
    found = {view.id: view.status for view in page.invocations}
    assert found == {lease.invocation_id: "suspended", other.invocation_id: "running"}
    assert len(page.invocations) == 2


async def test_a_page_looks_at_so_much_and_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where few of many are meant it comes back without them, and says where to go on."""
    monkeypatch.setattr("perdure.journal.listing.LOOKED_AT_MAX", 3)
    for _ in range(5):
        await bench.store.admit(admission(), lease_ms=LEASE_MS)
    rare = InvocationFilter(handler="rare")
    first = await list_page(bench.store, rare, now_ms=0, limit=9)
    assert first.invocations == ()
    assert first.cursor is not None
    assert await list_page(bench.store, rare, now_ms=0, limit=9, cursor=first.cursor) == InvocationPage((), None)


def test_ages_are_counted_from_admission() -> None:
    """Older than, younger than, and between."""
    view = view_of(Summary(new_id(), {"status": "running", "admitted_at": "1000000"}))

    def matches(minutes: int, **wanted: Any) -> bool:
        return InvocationFilter(**wanted).matches(view, now_ms=1_000_000 + minutes * MINUTE_MS)

    assert [matches(age, older_than=MINUTE) for age in (0, 1, 2)] == [False, False, True]
    assert [matches(age, younger_than=2 * MINUTE) for age in (1, 2, 3)] == [True, False, False]
    assert [matches(age, older_than=MINUTE, younger_than=3 * MINUTE) for age in (1, 2, 3)] == [False, True, False]


def test_a_cursor_is_read_back() -> None:
    """And anything else is refused."""
    for cursor in (Cursor("paused", None), Cursor("completed", Place(2**53 - 1, new_id()))):
        assert Cursor.read(str(cursor)) == cursor
    for text in ("", "tired", "paused~x~y", f"paused~1~{new_id()}x", "~~"):
        with pytest.raises(UsageError, match="first page"):
            Cursor.read(text)


def test_a_status_that_does_not_exist_is_refused() -> None:
    """By name."""
    with pytest.raises(UsageError, match="'tired': they are scheduled"):
        InvocationFilter(statuses=("paused", "tired"))
    assert InvocationFilter().in_order() == STATUSES
