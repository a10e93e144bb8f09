"""How a child process notices that its parent is gone, however it went, and the parent that the child is frozen.

The parent holds one end of a pipe and never writes. The kernel closes that end when the parent ends, even by SIGKILL,
on Linux and macOS alike; the child reads the end of the pipe and ends itself. The other way round, the child's event
loop writes a byte to a second pipe whenever it turns: code that blocks it for ever, even inside of C and with the
interpreter's lock held, leaves that pipe silent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator


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


class Pulse:
    """What the parent hears of a child's event loop. Use as a context manager, around the child's life."""

    def __enter__(self) -> Pulse:
        self._heard_end, self.child_end = os.pipe()
        os.set_blocking(self._heard_end, False)
        # A child that nobody listens to must not wait for room.
        os.set_blocking(self.child_end, False)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._heard_end)
        os.close(self.child_end)

    def heard(self) -> bool:
        """Whether the child's loop has turned since this was asked the last time."""
        try:
            return bool(os.read(self._heard_end, _PULSES_MAX))
        except BlockingIOError:
            return False


_PULSES_MAX = 65_536
"""As many bytes as a pipe holds."""


def pulse_to(descriptor: int) -> Callable[[], None]:
    """What a child calls when its loop turns.

    Raises:
        OSError: There is no such descriptor.
    """
    os.set_inheritable(descriptor, False)

    def beat() -> None:
        # Full, or the parent is gone, which the lifeline tells.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, b".")

    return beat
