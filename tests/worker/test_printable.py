"""What others wrote, in logs and on terminals: `perdure.worker.printable`."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.worker.printable import printable, printable_json

texts = st.text(st.characters(codec=None) | st.sampled_from("\x1b\x9b\r\n\x07\x7f\u202e\ud800\u2028\t"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é☃𝄞 {x}:y", "plain é☃𝄞 {x}:y"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\x07\x7f", "a\\rb\\x07\\x7f"),
        ("up\n12:00:00 ERROR forged", "up\n    12:00:00 ERROR forged"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_what_a_terminal_obeys_is_spelled_out(text: str, shown: str) -> None:
    """Escape sequences, carriage returns, turned text, forged lines; everything else stays."""
    assert printable(text) == shown


@given(texts)
def test_nothing_that_acts_is_left(text: str) -> None:
    """Of the control characters only line feeds are left, each before an indentation; it can be encoded."""
    shown = printable(text)
    shown.encode()
    assert all(unicodedata.category(character) not in ("Cc", "Cs") for character in shown.replace("\n    ", ""))
    assert "\u202e" not in shown
    assert shown.count("\n") == text.count("\n")


@given(st.dictionaries(texts, texts | st.integers()))
def test_json_stays_the_same_value(value: dict[str, str | int]) -> None:
    """What is escaped reads as before, and no character of it acts on a terminal."""
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
