"""Text that somebody else wrote, on its way to a terminal or into a log. PURE.

Law: no character of it moves the cursor, begins an escape sequence, turns the direction of writing around, or begins a
line that could be taken for one of ours.
"""

from __future__ import annotations

import re
from typing import Final

# Controls but the line feed: those below 32, delete, and those of C1, of which 0x9b begins an escape sequence by
# itself; what turns the direction of text around; halves of surrogate pairs, which no encoding takes.
_OBEYED: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_INDENT: Final = "\n    "


def printable(text: str) -> str:
    """Return `text` with what a terminal obeys spelled out, and each line after the first one indented."""
    escaped = _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
    return escaped.replace("\n", _INDENT) if "\n" in escaped else escaped


def printable_json(text: str) -> str:
    """Return the same JSON, with escapes for what a terminal obeys: JSON itself demands them below 32 only."""
    return _JSON_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# Line feeds and tabs stand between the values of JSON for people, and are escaped within.
_JSON_OBEYED: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
