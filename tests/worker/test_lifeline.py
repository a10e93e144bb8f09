"""A child that notices its parent's end: `perdure.worker.lifeline`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perdure.worker.lifeline import follow_lifeline, lifeline

pytestmark = pytest.mark.process

CHILD = """
import sys, time
from perdure.worker.lifeline import follow_lifeline
follow_lifeline(int(sys.argv[1]), grace_s=float(sys.argv[2]))
print("following", flush=True)
{body}
"""

_SAY = "; print('ready', flush=True); time.sleep(600)"
ORDERLY = f"import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)){_SAY}"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN){_SAY}"


def child_of(body: str, *, grace_s: float) -> int:
    """Start a child, cut its lifeline once it is ready, and return its exit code."""
    with lifeline() as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(body=body), str(descriptor), str(grace_s)],
            pass_fds=[descriptor],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "following\n"
        assert child.stdout.readline() == "ready\n"
    with child:
        return child.wait(20)


def test_a_child_gets_sigterm_when_its_parent_is_gone() -> None:
    """It can end in order, as at any other SIGTERM."""
    assert child_of(ORDERLY, grace_s=60.0) == 7


def test_a_child_that_does_not_end_is_ended() -> None:
    """After its grace the process ends without more ado."""
    assert child_of(STUBBORN, grace_s=0.1) == 1


def test_a_wrong_descriptor_is_an_error() -> None:
    """A number that is no descriptor is noticed at once."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        follow_lifeline(10_000, grace_s=1.0)
