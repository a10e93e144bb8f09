"""The scripts' texts: `perdure.journal.lua`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perdure.journal.lua import script

SCRIPTS = Path(__file__).parents[2] / "journal" / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.lua"))
PARTS = {"prelude", "objects", "finish", "effects", "state", "take"}


@pytest.mark.parametrize("name", NAMES)
def test_a_script_includes_what_it_asks_for(name: str) -> None:
    """The text of each part that a script names stands in it, and no line that asks for one is left."""
    text = (SCRIPTS / f"{name}.lua").read_text()
    asked = re.findall(r"-- include (\w+)\n", text)
    assert "-- include" not in script(name).replace("(`-- include prelude`)", "")
    for part in asked:
        assert script(part) in script(name)


def test_every_part_is_included_somewhere() -> None:
    """A part that no script asks for would be dead text."""
    texts = [(SCRIPTS / f"{name}.lua").read_text() for name in NAMES]
    assert {part for part in PARTS if any(f"-- include {part}\n" in text for text in texts)} == PARTS


def test_a_script_that_is_not_there_is_named() -> None:
    """A wrong name is reported with the file that was looked for."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.lua"):
        script("nothing")
