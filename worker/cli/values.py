"""Reading what people type: durations, JSON, headers; and printing a value."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

import typer

from perdure.journal.inspection import preview
from perdure.schemas.errors import SerdeError, UsageError
from perdure.schemas.payloads import SEALED
from perdure.worker.printable import printable_json
from perdure.worker.serde import JSON

from .output import clean, note

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|min|s|m|h|d|w)")

_DURATION_LENGTH_MAX = 100
"""Longer is none, and would take the pattern a time that grows with the square."""


def read_duration(text: str, *, flag: str) -> timedelta:
    """Read `10s`, `1.5h`, `500ms`, `1h30m`; units are ms, s, m (or min), h, d, w.

    Raises:
        UsageError: It is not of that form, or longer than Python can count.
    """
    parts = list(_PART.finditer(text)) if len(text) <= _DURATION_LENGTH_MAX else []
    if not parts or "".join(part.group() for part in parts) != text:
        raise UsageError(f"{flag} {text!r:.100} is not a duration: write 500ms, 10s, 5m, 2h, 1d or 1h30m.")
    try:
        return timedelta(seconds=sum(float(part[1]) * _UNITS[part[2]] for part in parts))
    except OverflowError:
        raise UsageError(f"{flag} {text!r} is too long.") from None


def read_json(text: str) -> Any:
    """Read an argument.

    Raises:
        UsageError: It is not JSON; says how to write text.
    """
    try:
        return JSON.deserialize(text.encode()) if text.strip() else _no_json(text, "it is empty")
    except SerdeError as error:
        return _no_json(text, str(error))
    except UnicodeEncodeError:
        return _no_json(text, "it is not UTF-8.")


def read_value(text: str | None) -> Any:
    """Read a value: JSON, `-` for what stdin holds, nothing for null.

    Raises:
        UsageError: It is not JSON.
    """
    if text is None:
        return None
    return read_json(_standard_input() if text == "-" else text)


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"What stdin holds is not UTF-8: {error}.") from error


def print_value(value: Any) -> None:
    """Print a value as JSON, with all its digits; bytes that are none as text, with a note."""
    if isinstance(value, bytes) and value.startswith(SEALED):
        note("The value is sealed by its application's payload codec: give --app MODULE:APP to open it.")
        typer.echo(preview(value))
        return
    if isinstance(value, bytes):
        note(f"The value is not JSON but {len(value)} bytes; as text:")
        typer.echo(clean(value.decode("utf-8", "replace")))
        return
    typer.echo(printable_json(JSON.serialize(value).decode()))


def read_headers(texts: Sequence[str]) -> dict[str, str]:
    """Read `name=value` texts.

    Raises:
        UsageError: One has no `=`, or no name, or the same name as another.
    """
    headers: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--header {text!r} is not of the form name=value.")
        if name in headers:
            raise UsageError(f"--header {name} is given twice.")
        headers[name] = value
    return headers


def _no_json(text: str, why: str) -> NoReturn:
    hint = "" if text.lstrip()[:1] in ("{", "[", '"', "") else f""" A text is written '"{text}"', with both quotes."""
    raise UsageError(f"The argument is not JSON: {why}{hint}")
