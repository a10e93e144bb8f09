"""What the command logs to stderr: lines for people, or JSON, one object a line, for machines."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from .printable import printable, printable_json

# What every record has; the rest came with `extra=` and is shown.
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(level: str, form: Literal["text", "json"], *, stream: TextIO | None = None) -> None:
    """Send everything of `level` and above to `stream` (stderr), in place of what was configured before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # aiokafka tells at INFO what is DEBUG to everybody else.
    logging.getLogger("aiokafka").setLevel(logging.WARNING if level == "INFO" else level)


class TextFormatter(logging.Formatter):
    """`12:31:07.123 WARNING perdure.worker.engine  message  name=value`, the time in UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line; a message or a traceback of several lines goes on in indented ones."""
        return printable(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 # logging's name
        """The time of day in UTC, to the millisecond."""
        return datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # logging's name
        """The line, with the fields behind it."""
        fields = "".join(f"  {name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + fields


class JsonFormatter(logging.Formatter):
    """One JSON object: `time` (seconds since the epoch), `level`, `logger`, `message`, the fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _json(line)
        except orjson.JSONEncodeError:
            # Half a surrogate pair somewhere in a text: shown as it would be written in Python.
            return _json(
                {name: printable(value) if isinstance(value, str) else ascii(value) for name, value in line.items()}
            )


def _json(line: dict[str, Any]) -> str:
    return printable_json(orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _ORDINARY}
