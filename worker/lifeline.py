"""How a child process notices that its parent is gone, however it went.

The parent holds one end of a pipe and never writes. The kernel closes that end when the parent ends, even by SIGKILL,
on Linux and macOS alike; the child reads the end of the pipe and ends itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator


@contextlib.contextmanager
def lifeline() -> Iterator[int]:
    """Make a lifeline that lasts as long as the block, or this process.

    Yields:
        The descriptor for the children: start them with `pass_fds=[it]`, and tell them its number.
    """
    child_end, our_end = os.pipe()
    try:
        yield child_end
    finally:
        os.close(child_end)
        os.close(our_end)


def follow_lifeline(descriptor: int, *, grace_s: float) -> None:
    """End this process when the parent does: SIGTERM to itself, and without more ado after `grace_s`.

    Watches from a daemon thread, so that a blocked event loop does not matter.

    Raises:
        OSError: There is no such descriptor.
    """
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_follow, args=(descriptor, grace_s), name="perdure-lifeline", daemon=True).start()


def _follow(descriptor: int, grace_s: float) -> None:
    # Nothing is ever written, so that any return of this read is the end.
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(1)
