"""A library that logs in a loop is heard once a minute for each thing it says."""

from __future__ import annotations

import logging

import pytest

from perdure.worker.log_filter import REPEAT_INTERVAL_MS, without_repeats


class HandClock:
    """A clock that a test moves."""

    now = 0.0

    def now_ms(self) -> int:
        """Not asked for."""
        return int(self.now)

    def monotonic_ms(self) -> float:
        """What the test set."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Not asked for."""


def test_equal_texts_are_let_through_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever their arguments; other texts and other loggers pass; after the interval they are heard again."""
    clock, logger = HandClock(), logging.getLogger("chatty.client")
    other = logging.getLogger("chatty")
    with without_repeats("chatty", clock):
        for n in range(5):
            logger.error("no connection to %s", n)
        logger.error("something else")
        other.error("no connection to %s", 9)
        clock.now = REPEAT_INTERVAL_MS
        logger.error("no connection to %s", 7)
    assert [r.getMessage() for r in caplog.records] == [
        "no connection to 0",
        "something else",
        "no connection to 9",
        "no connection to 7",
    ]


def test_the_filter_goes_with_its_block(caplog: pytest.LogCaptureFixture) -> None:
    """Other users of the library log as they like before and after, and loggers with a like name always."""
    logger, namesake = logging.getLogger("chatty.client"), logging.getLogger("chattyness")
    with without_repeats("chatty", HandClock()):
        for _ in range(2):
            namesake.error("passes")
    for _ in range(2):
        logger.error("passes too")
    assert len(caplog.records) == 4
