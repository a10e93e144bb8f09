"""`examples/saga.py`: bookings, and what undoes them."""

from __future__ import annotations

import pytest

from examples.ledger import Ledger
from examples.saga import Trip, application, book
from perdure import TerminalError
from tests.waiting import PATIENCE

from .conftest import Running, both_ways


@both_ways
async def test_a_trip_that_can_be_had_is_booked(running: Running, ledger: Ledger) -> None:
    """Three bookings, and nothing is cancelled."""
    async with running(application) as client:
        bookings = await client.call(book, Trip(destination="Oslo"), timeout=PATIENCE)
    assert len(set(bookings)) == 3
    assert [effect.name for effect in ledger.effects()] == ["book flight", "book car", "book hotel"]


@both_ways
async def test_what_was_booked_is_cancelled_newest_first(running: Running, ledger: Ledger) -> None:
    """Without a hotel everything is undone, and the caller hears why."""
    async with running(application) as client:
        with pytest.raises(TerminalError, match="No hotel to Oslo") as refused:
            await client.call(book, Trip(destination="Oslo", sold_out="hotel"), timeout=PATIENCE)
    assert refused.value.status_code == 409
    names = [effect.name for effect in ledger.effects()]
    assert names == ["book flight", "book car", "cancel hotel", "cancel car", "cancel flight"]


async def test_compensations_stand_in_the_journal(running: Running, ledger: Ledger) -> None:
    """Each compensation is a step with an entry of its own, so that no replay does it again."""
    async with running(application) as client:
        handle = await client.send(book, Trip(destination="Oslo", sold_out="flight"))
        with pytest.raises(TerminalError):
            await handle.result(timeout=PATIENCE)
        view = await handle.status()
    # The input, the step that failed, its compensation, the output.
    assert view.entries == 4
    assert [effect.name for effect in ledger.effects()] == ["cancel flight"]
