"""`examples/step_retries.py`: one test for each way in which a step is retried."""

from __future__ import annotations

from examples.ledger import Ledger
from examples.step_retries import Question, application, patiently, plainly, politely, with_a_fallback
from tests.waiting import PATIENCE

from .conftest import Running


async def test_without_a_policy_the_attempt_is_retried(running: Running, ledger: Ledger) -> None:
    """Two failures of the step are two failed attempts, and the third one succeeds."""
    async with running(application) as client:
        handle = await client.send(plainly, Question(place="Oslo", failures=2))
        assert await handle.result(timeout=PATIENCE) == "Oslo: sunny"
        assert (await handle.status()).attempts == 3
    assert [effect.done for effect in ledger.effects()] == [False, False, True]


async def test_with_a_policy_the_attempt_goes_on(running: Running, ledger: Ledger) -> None:
    """The same failures stay inside the first attempt."""
    async with running(application) as client:
        handle = await client.send(patiently, Question(place="Oslo", failures=2))
        assert await handle.result(timeout=PATIENCE) == "Oslo: sunny"
        assert (await handle.status()).attempts == 1
    assert [effect.done for effect in ledger.effects()] == [False, False, True]


async def test_an_exhausted_step_can_be_handled(running: Running, ledger: Ledger) -> None:
    """After its three executions the step raises a TerminalError, and the handler takes the other way."""
    async with running(application) as client:
        answer = await client.call(with_a_fallback, Question(place="Oslo", failures=99), timeout=PATIENCE)
    assert answer == "Oslo: it is dark"
    assert len(ledger.effects()) == 3


async def test_a_step_may_name_its_own_delay(running: Running, ledger: Ledger) -> None:
    """RetryableError is retried like any failure, after the delay that it names."""
    async with running(application) as client:
        answer = await client.call(politely, Question(place="Oslo", failures=1), timeout=PATIENCE)
    assert answer == "Oslo: sunny"
    assert [effect.done for effect in ledger.effects()] == [False, True]
