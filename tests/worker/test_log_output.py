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


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_others_wrote_forges_no_line(form: Literal["text", "json"]) -> None:
    """Neither an escape sequence nor a second line that looks like one of ours comes out of a name or a message."""
    stream = logged(form)
    hostile = "x\n12:00:00.000 ERROR   perdure.worker  all is lost\x1b[2J\x9b2J\r\x00"
    logging.getLogger("perdure.x").warning("a key %s", hostile, extra={"key": hostile})
    text = stream.getvalue()
    assert not any(character in text for character in "\x1b\x9b\r\x00")
    assert [line for line in text.splitlines() if line.startswith("12:00:00.000")] == []
    assert "all is lost" in text


def test_half_a_character_is_logged_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """A text that no encoding takes does not cost the line."""
    stream = logged("json")
    logging.getLogger("perdure.x").warning("name %s", "caf\udcff", extra={"key": "\ud800", "attempt": 2})
    line = orjson.loads(stream.getvalue())
    assert line["message"] == "name caf\\udcff"
    assert (line["key"], line["attempt"]) == ("\\ud800", "2")
    assert "Logging error" not in capsys.readouterr().err
