"""What the command logs: `perdure.worker.log_output`."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Literal

import orjson
import pytest

from perdure.worker.log_output import configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    root, aiokafka = logging.getLogger(), logging.getLogger("aiokafka")
    handlers, level, library = list(root.handlers), root.level, aiokafka.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    aiokafka.setLevel(library)


def logged(form: Literal["text", "json"], level: str = "INFO") -> io.StringIO:
    """Configure logging into a buffer."""
    stream = io.StringIO()
    configure_logging(level, form, stream=stream)
    return stream


def test_lines_for_people() -> None:
    """Time, level, logger, message, and the fields behind it."""
    stream = logged("text")
    logging.getLogger("perdure.x").warning("something of %s", "note", extra={"invocation_id": "inv_1", "attempt": 2})
    logging.getLogger("perdure.x").debug("too much")
    line = stream.getvalue()
    assert line[13:] == "WARNING perdure.x  something of note  invocation_id=inv_1  attempt=2\n"
    assert line[2] == line[5] == ":"


def test_json_for_machines() -> None:
    """One object a line, with fields and traceback."""
    stream = logged("json")
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("perdure.x").exception("failed", extra={"attempt": 2, "odd": object})
    line = orjson.loads(stream.getvalue())
    assert (line["level"], line["logger"], line["message"], line["attempt"]) == ("ERROR", "perdure.x", "failed", 2)
    assert "ValueError: no" in line["exception"]
    assert line["time"] > 1_700_000_000


def test_a_chatty_library_is_kept_down() -> None:
    """Aiokafka's INFO is left out at INFO, and shown at DEBUG."""
    stream = logged("text")
    logging.getLogger("aiokafka.consumer").info("chatter")
    logging.getLogger("aiokafka.consumer").warning("trouble")
    assert "chatter" not in stream.getvalue()
    assert "trouble" in stream.getvalue()
    stream = logged("text", "DEBUG")
    logging.getLogger("aiokafka.consumer").info("chatter")
    assert "chatter" in stream.getvalue()
