"""`examples/approval.py`: a human who answers, or does not."""

from __future__ import annotations

import pytest

from examples.approval import Answer, Question, answer, application, ask
from examples.ledger import Ledger
from tests.waiting import PATIENCE, wait_until

from .conftest import Running, both_ways


async def id_in(ledger: Ledger) -> str:
    """The awakeable that the human was told, as soon as they were."""
    await wait_until(lambda: bool(ledger.effects()), description="the human is asked")
    return ledger.effects()[0].name.rpartition(" ")[2]


@both_ways
@pytest.mark.parametrize(("yes", "said"), [(True, "a chair: yes"), (False, "a chair: no")])
async def test_the_first_answer_counts(running: Running, ledger: Ledger, yes: bool, said: str) -> None:
    """By a handler; later ones change nothing, and the human is asked once."""
    async with running(application) as client:
        handle = await client.send(ask, Question(what="a chair"))
        awakeable_id = await id_in(ledger)
        await client.call(answer, Answer(awakeable_id=awakeable_id, yes=yes), timeout=PATIENCE)
        assert await handle.result(timeout=PATIENCE) == said
        await client.call(answer, Answer(awakeable_id=awakeable_id, yes=not yes), timeout=PATIENCE)
        assert await handle.result(timeout=PATIENCE) == said
    assert len(ledger.effects()) == 1


async def test_a_client_can_answer(running: Running, ledger: Ledger) -> None:
    """It is told whether its answer was the one that counts."""
    async with running(application) as client:
        handle = await client.send(ask, Question(what="a chair"))
        awakeable_id = await id_in(ledger)
        assert await client.resolve_awakeable(awakeable_id, True)
        assert await handle.result(timeout=PATIENCE) == "a chair: yes"
        assert not await client.resolve_awakeable(awakeable_id, False)


@both_ways
async def test_nobody_answers(running: Running, ledger: Ledger) -> None:
    """After its time the invocation goes on without an answer."""
    async with running(application) as client:
        assert await client.call(ask, Question(what="a chair", patience_s=0.1), timeout=PATIENCE) == (
            "a chair: nobody answered"
        )
