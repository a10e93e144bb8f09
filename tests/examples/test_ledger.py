"""`examples/ledger.py` counts what happened, under concurrency too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from examples.ledger import Effect, Ledger


def test_the_first_ones_are_refused(ledger: Ledger) -> None:
    """Of one key as many executions are refused as were asked to be; other keys are apart."""
    assert [ledger.record("inv", "charge", key="a", refusals=2).done for _ in range(4)] == [False, False, True, True]
    assert ledger.record("inv", "charge", key="b").done


def test_no_execution_is_forgotten(ledger: Ledger) -> None:
    """Writers in many threads lose nothing, and exactly the refusals are refused."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: ledger.record("inv", "charge", key="k", refusals=5), range(40)))
    assert [effect.done for effect in ledger.effects()] == [False] * 5 + [True] * 35


def test_effects_of_one_invocation(ledger: Ledger) -> None:
    """Others' effects are left out."""
    ledger.record("inv_a", "charge", key="a")
    mine = ledger.record("inv_b", "charge", key="b")
    assert ledger.effects("inv_b") == [mine]
    assert isinstance(mine, Effect)
