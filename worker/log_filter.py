"""Keep a chatty library from filling the log with one line a second for as long as an outage lasts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from .clock import Clock

REPEAT_INTERVAL_MS = 60_000
"""Equal lines are let through once in so long: an operator who looks at the log still sees what is going on."""

_TEXTS_MAX = 500
"""More distinct texts than aiokafka has; a bound in case a library formats its own."""


class RepeatFilter(logging.Filter):
    """Lets a text of one logger through once per `REPEAT_INTERVAL_MS`, whatever its arguments."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._passed_at_ms: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is to be logged."""
        text = (record.name, str(record.msg))
        now_ms = self._clock.monotonic_ms()
        passed_at_ms = self._passed_at_ms.get(text)
        if passed_at_ms is not None and now_ms - passed_at_ms < REPEAT_INTERVAL_MS:
            return False
        if len(self._passed_at_ms) >= _TEXTS_MAX:
            self._passed_at_ms.clear()
        self._passed_at_ms[text] = now_ms
        return True


@contextlib.contextmanager
def without_repeats(library: str, clock: Clock) -> Iterator[None]:
    """Filter the loggers of `library` and below while the block runs; those of modules imported later are missed."""
    repeats = RepeatFilter(clock)
    names = [n for n in logging.root.manager.loggerDict if n == library or n.startswith(f"{library}.")]
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        # A logger's filter is not asked for what its children log, so that each one needs it.
        logger.addFilter(repeats)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(repeats)
