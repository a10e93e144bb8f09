"""`examples/reminder.py`: delivered later, or cancelled before."""

from __future__ import annotations

from examples.ledger import Ledger
from examples.reminder import Reminder, application, forget, remind
from perdure import InvocationNotFoundError
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


@both_ways
async def test_it_is_delivered(running: Running, ledger: Ledger) -> None:
    """Once, when it is time."""
    async with running(application) as client:
        planned = await client.call(remind, Reminder(of="the soup", in_s=0.1), timeout=PATIENCE)
        # Not asked of the client: for a moment nobody knows of what was only just sent.
        await wait_until(lambda: bool(ledger.effects(planned)))
    assert [effect.name for effect in ledger.effects()] == ["remember the soup"]


@both_ways
async def test_one_that_is_cancelled_never_begins(running: Running, ledger: Ledger) -> None:
    """It was scheduled, and ends without having done anything."""
    async with running(application) as client:
        planned = await client.call(remind, Reminder(of="the soup", in_s=3_600), timeout=PATIENCE)

        async def is_in(status: str) -> bool:
            try:
                return (await client.status(planned)).status == status
            except InvocationNotFoundError:
                return False

        await wait_until(lambda: is_in("scheduled"))
        await client.call(forget, planned, timeout=PATIENCE)
        await wait_until(lambda: is_in("completed"))
    assert ledger.effects() == []
