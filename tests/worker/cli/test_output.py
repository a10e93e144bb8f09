"""What the command prints: `perdure.worker.cli.output`."""

from __future__ import annotations

import orjson
import pytest
import typer

from perdure.worker.cli.failures import end
from perdure.worker.cli.output import note, print_fields, print_json, print_table, time_text
from perdure.worker.cli.values import print_value

HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\rd\x7f\u202e"
ACTING = "\x1b\x07\x9b\r\x7f\u202e"


def assert_harmless(text: str) -> None:
    """Nothing of it acts on a terminal."""
    assert text
    assert not any(character in text for character in ACTING)


def test_nothing_that_others_wrote_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Not as a cell, a field, a note, JSON, a value or bytes that are no JSON."""
    print_table(("key",), [(HOSTILE,)])
    print_fields([("key", HOSTILE)])
    print_json({"key": HOSTILE})
    print_json({"key": HOSTILE}, one_line=True)
    print_value({HOSTILE: HOSTILE})
    print_value(HOSTILE.encode())
    note(HOSTILE)
    with pytest.raises(typer.Exit):
        end(f"The invocation failed: {HOSTILE}\n  reason: {HOSTILE}", code=1)
    shown = capsys.readouterr()
    assert_harmless(shown.out)
    assert_harmless(shown.err)
    # Ours keep their lines.
    assert shown.err.splitlines()[-1].startswith("  reason: a")


def test_json_is_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    """What reads the output gets what was written."""
    print_json({"key": HOSTILE})
    assert orjson.loads(capsys.readouterr().out) == {"key": HOSTILE}
    print_value([HOSTILE])
    assert orjson.loads(capsys.readouterr().out) == [HOSTILE]


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (None, ""),
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "253402300800000 ms"),
        (-1, "-1 ms"),
        (2**63 - 1, "9223372036854775807 ms"),
    ],
)
def test_instants_that_no_calendar_has_are_numbers(at_ms: int | None, text: str) -> None:
    """A producer may stamp its records with anything."""
    assert time_text(at_ms) == text
