"""Logging from handlers: silent while a replay repeats what was logged before, and with the invocation's names."""

from __future__ import annotations

import logging
from typing import Any

from .scope import SCOPE, StepInfo


class HandlerLogFilter(logging.Filter):
    """Lets through what handlers log when they do something for the first time, and adds whose line it is.

    Lines of a handler get `service`, `handler`, `key` (where there is one), `invocation_id` and `attempt`; lines of a
    step get `invocation_id` and `step`. Lines from elsewhere pass unchanged. Put it on loggers of your own with
    `get_logger`, or on a logging handler, where it covers every logger.

    What was logged after the last recorded result is logged again by the next attempt: nothing says how far it came.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is to be logged; adds its fields."""
        scope = SCOPE.get()
        if scope is None:
            return True
        if isinstance(scope, StepInfo):
            _add(record, {"invocation_id": scope.invocation_id, "step": scope.name})
            return True
        if scope.replaying:
            return False
        _add(record, scope.log_fields())
        return True


def _add(record: logging.LogRecord, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        # What the line's own `extra` says goes first.
        record.__dict__.setdefault(name, value)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of that name, with a `HandlerLogFilter` on it.

    Filters of a logger are not asked for lines of its children: get each one that handlers use.
    """
    logger = logging.getLogger(name)
    if not any(isinstance(known, HandlerLogFilter) for known in logger.filters):
        logger.addFilter(HandlerLogFilter())
    return logger
