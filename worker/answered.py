"""What is done with an answer of the store when it comes, without a task that waits for it.

Thousands of side jobs a second ask the store one thing and do one thing with the answer; a task for each costs more
than what it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

SIDE_FAILED = "a side task failed; it is done again when due"

T = TypeVar("T")


def when_answered(reply: asyncio.Future[T], then: Callable[[T], object]) -> None:
    """Call `then` with the answer, in a callback of the loop; a failure of either is logged, and done again when due.

    Nothing is called where the reply is cancelled: the store was closed.
    """

    def answered(reply: asyncio.Future[T]) -> None:
        if reply.cancelled():
            return
        try:
            then(reply.result())
        except Exception:
            # Whatever it was, it is in `due` and will be done again.
            logger.exception(SIDE_FAILED)

    reply.add_done_callback(answered)
