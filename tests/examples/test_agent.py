"""`examples/agent.py`: an agent whose thoughts and tools are steps."""

from __future__ import annotations

from collections import Counter

import pytest

from examples.agent import Move, ToolCall, application, ask
from examples.ledger import Ledger
from perdure import TerminalError
from tests.waiting import PATIENCE

from .conftest import Running, both_ways


@both_ways
async def test_the_model_is_asked_once_a_round(running: Running, ledger: Ledger) -> None:
    """Tools that fail are tried again, and nothing that succeeded is done a second time, not by any replay."""
    async with running(application) as client:
        answer = await client.call(ask, "How warm is Oslo, and Rome?", timeout=PATIENCE)
    assert answer == "Oslo: 4 degrees; Rome: 17 degrees"
    tries = Counter((effect.name, effect.done) for effect in ledger.effects())
    assert tries[("think", True)] == 2
    for city in ("Oslo", "Rome"):
        assert tries[(f"look at the thermometer of {city}", False)] == 1
        assert tries[(f"look at the thermometer of {city}", True)] == 1


@both_ways
async def test_it_does_not_go_in_circles(running: Running, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never answers is stopped."""

    def never_content(conversation: list[str]) -> Move:
        return Move(tools=[ToolCall(tool="thermometer", argument="Oslo")])

    monkeypatch.setattr("examples.agent.think", never_content)
    monkeypatch.setattr("examples.agent.ROUNDS_MAX", 2)
    async with running(application) as client:
        with pytest.raises(TerminalError, match="No answer in 2 rounds"):
            await client.call(ask, "How warm is Oslo?", timeout=PATIENCE)
