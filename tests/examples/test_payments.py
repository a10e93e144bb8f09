"""`examples/payments.py`: each bill is paid once."""

from __future__ import annotations

import asyncio

import pytest

from examples.ledger import Ledger
from examples.payments import Bill, application, paid_cents, pay
from perdure import TerminalError
from tests.waiting import PATIENCE

from .conftest import Running, both_ways

BILL = Bill(bill="2026-11", cents=990)


@both_ways
async def test_a_bill_is_paid_once(running: Running, ledger: Ledger) -> None:
    """All who ask get the same receipt, also at the same time."""
    async with running(application) as client:
        receipts = await asyncio.gather(*(client.call(pay, BILL, key="ada", timeout=PATIENCE) for _ in range(3)))
        await client.call(pay, Bill(bill="2026-12", cents=10), key="ada", timeout=PATIENCE)
        assert await client.call(paid_cents, key="ada", timeout=PATIENCE) == 1_000
    assert len({receipt.reference for receipt in receipts}) == 1
    assert [effect.name for effect in ledger.effects()] == ["transfer 990 cents", "transfer 10 cents"]


@both_ways
async def test_another_amount_is_refused(running: Running, ledger: Ledger) -> None:
    """The same bill with other cents is a mistake, and no second payment."""
    async with running(application) as client:
        await client.call(pay, BILL, key="ada", timeout=PATIENCE)
        with pytest.raises(TerminalError, match="another amount"):
            await client.call(pay, Bill(bill="2026-11", cents=1), key="ada", timeout=PATIENCE)
    assert len(ledger.effects()) == 1
