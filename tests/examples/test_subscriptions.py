"""`examples/subscriptions.py`: what it answers, and how often its effects happen."""

from __future__ import annotations

from collections import Counter

import pytest

from examples.ledger import Ledger
from examples.subscriptions import AddRequest, add, application
from perdure import TerminalError
from tests.waiting import PATIENCE

from .conftest import Running, both_ways


@both_ways
async def test_every_effect_happens_once_and_failures_are_tried_again(running: Running, ledger: Ledger) -> None:
    """The card is charged once and each subscription added once, though one provider refuses twice."""
    request = AddRequest(
        user_id="u-1", credit_card="4111111111111111", subscriptions=["news", "music"], refusals={"news": 2}
    )
    async with running(application) as client:
        added = await client.call(add, request, timeout=PATIENCE)
    assert added.subscriptions == ["news", "music"]
    tries = Counter((effect.name, effect.done) for effect in ledger.effects())
    assert tries == {
        ("charge", True): 1,
        ("subscribe news", False): 2,
        ("subscribe news", True): 1,
        ("subscribe music", True): 1,
    }


@both_ways
async def test_a_declined_card_ends_it(running: Running, ledger: Ledger) -> None:
    """A TerminalError of the payment is the outcome, and nothing is subscribed to."""
    request = AddRequest(user_id="u-1", credit_card="4111111111110000", subscriptions=["news"])
    async with running(application) as client:
        with pytest.raises(TerminalError, match="declined") as refused:
            await client.call(add, request, timeout=PATIENCE)
    assert refused.value.status_code == 402
    assert ledger.effects() == []


@both_ways
async def test_a_retry_of_a_step_has_the_same_key(running: Running, ledger: Ledger) -> None:
    """Every try of one step shows the outside world one idempotency key, and each step its own."""
    request = AddRequest(
        user_id="u-1", credit_card="4111111111111111", subscriptions=["news", "music"], refusals={"news": 1}
    )
    async with running(application) as client:
        await client.call(add, request, timeout=PATIENCE)
    keys: dict[str, set[str]] = {}
    for effect in ledger.effects():
        keys.setdefault(effect.name, set()).add(effect.key)
    assert [len(found) for found in keys.values()] == [1, 1, 1]
    assert len(set.union(*keys.values())) == 3
