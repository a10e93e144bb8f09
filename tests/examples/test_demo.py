"""`make demo` tells its story, and does not tell it where it is not so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Six seconds where nothing else runs.
DEADLINE_S = 240


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as `make demo` does."""
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


@pytest.mark.process
@pytest.mark.timeout(DEADLINE_S + 10)
def test_the_demo_succeeds_and_shows_what_happened() -> None:
    """A worker is killed, another one finishes, and the screen holds attempts, journal and commands."""
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("SIGKILL for demo-", "(killed)", "attempt_failed", "recurring payment", "redis-cli -p "):
        assert expected in done.stdout
    assert "NOT SO" not in done.stdout


@pytest.mark.process
@pytest.mark.timeout(DEADLINE_S + 10)
def test_a_planted_second_charge_fails_the_demo() -> None:
    """Exit code 1, and the reason, where the ledger counts two charges."""
    done = demo("--application", "tests.examples.charging_twice:application")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT SO: The card was charged 2 times" in done.stdout


@pytest.mark.process
def test_workers_that_do_not_start_end_the_demo() -> None:
    """It breaks off with their log instead of waiting."""
    done = demo("--application", "examples.subscriptions:nothing")
    assert done.returncode == 1
    assert "no attribute 'nothing'" in done.stdout
