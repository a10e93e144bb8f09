"""Printing: tables for people on a terminal, stable tab-separated lines otherwise, JSON where asked for.

Law: what comes from users' data never reaches a terminal as it is: it could hold escape sequences.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
import typer

from perdure.worker.printable import printable_json

_CALENDAR_MS_MAX: Final = 253_402_300_799_999
"""The end of the year 9999, where Python's calendar ends."""


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value of JSON, indented, or on one line for a stream of values."""
    option = 0 if one_line else orjson.OPT_INDENT_2
    sys.stdout.write(printable_json(orjson.dumps(value, option=option, default=str).decode()) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print rows under their columns' names."""
    shown = [[clean(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [columns, *shown]:
            print_line(line)
        return
    # Imported here: rich takes as long to import as all the rest of the command.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in shown:
        # Text, because a string would be read as markup.
        table.add_row(*[Text(cell) for cell in row])
    Console().print(table)


def print_line(cells: Sequence[str]) -> None:
    """Print one tab-separated line."""
    sys.stdout.write("\t".join(cells) + "\n")
    sys.stdout.flush()


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one a line; those without a value are left out."""
    known = [(name, clean(value)) for name, value in fields if value not in (None, "")]
    width = max((len(name) for name, _ in known), default=0)
    separator: Callable[[str], str] = (lambda name: f"{name:<{width}}  ") if sys.stdout.isatty() else "{}\t".format
    for name, value in known:
        sys.stdout.write(f"{separator(name)}{value}\n")


def note(message: str) -> None:
    """Tell a person something on stderr, out of the way of what a program reads."""
    typer.echo(clean_lines(message), err=True)


def clean(cell: object) -> str:
    """Return the cell as one line of printable text; nothing for `None`."""
    if cell is None:
        return ""
    return "".join(character if character.isprintable() else "·" for character in str(cell))


def clean_lines(text: str) -> str:
    """Return a message that may quote somebody else's text: its lines stay, nothing else of it acts on a terminal."""
    return "\n".join(clean(line) for line in text.split("\n"))


def time_text(at_ms: int | None) -> str:
    """An instant for people and programs: ISO 8601 in UTC, to the millisecond; nothing for `None`.

    What no calendar has, which a producer may have written, is shown as the number that it is.
    """
    if at_ms is None:
        return ""
    if not 0 <= at_ms <= _CALENDAR_MS_MAX:
        return f"{at_ms} ms"
    # Not by a float, which rounds late milliseconds down.
    at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
