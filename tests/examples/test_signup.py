"""`examples/signup.py`: a workflow that waits for a click."""

from __future__ import annotations

from datetime import timedelta

import pytest

import examples.signup
from examples.ledger import Ledger
from examples.signup import application, click, run, status
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


async def secret_in(ledger: Ledger) -> str:
    """The secret that was mailed, as soon as it was."""
    await wait_until(lambda: bool(ledger.effects()), description="the mail is sent")
    return ledger.effects()[0].name.rpartition(" ")[2]


@both_ways
async def test_a_click_makes_a_member(running: Running, ledger: Ledger) -> None:
    """With the right secret only, however often it is clicked; mails are sent once, though one signs up twice."""
    async with running(application) as client:
        handle = await client.send(run, "ada@example.org", key="ada")
        again = await client.send(run, "ada@example.org", key="ada")
        assert again.invocation_id == handle.invocation_id
        secret = await secret_in(ledger)
        assert await client.call(status, key="ada", timeout=PATIENCE) == "waiting for the click"
        assert not await client.call(click, "guessed", key="ada", timeout=PATIENCE)
        for _ in range(2):
            assert await client.call(click, secret, key="ada", timeout=PATIENCE)
        assert await handle.result(timeout=PATIENCE)
        assert await client.call(status, key="ada", timeout=PATIENCE) == "member"
    assert [effect.name for effect in ledger.effects()] == [
        f"mail to ada@example.org: {secret}",
        "mail to ada@example.org: welcome",
    ]


@both_ways
async def test_nobody_waits_for_ever(running: Running, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a click it ends when it said it would."""
    monkeypatch.setattr(examples.signup, "PATIENCE", timedelta(milliseconds=100))
    async with running(application) as client:
        assert not await client.call(run, "ben@example.org", key="ben", timeout=PATIENCE)
        assert await client.call(status, key="ben", timeout=PATIENCE) == "gone"
    assert len(ledger.effects()) == 1
