"""The scripts' texts: `perdure.journal.lua`."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.journal.lua import script

SCRIPTS = Path(__file__).parents[2] / "journal" / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.lua") if path.stem != "prelude")


@pytest.mark.parametrize("name", NAMES)
def test_the_prelude_goes_before_the_scripts_that_ask_for_it(name: str) -> None:
    """A script is its file, after the prelude where its first line says so and alone where not."""
    text = (SCRIPTS / f"{name}.lua").read_text()
    prelude = (SCRIPTS / "prelude.lua").read_text()
    assert script(name) == (prelude + text if text.splitlines()[0] == "-- prelude" else text)


def test_both_kinds_exist() -> None:
    """The scripts of the package are found, some with and some without the prelude."""
    asking = {name for name in NAMES if script(name).startswith("-- Put before")}
    assert asking
    assert asking < set(NAMES)


def test_a_script_that_is_not_there_is_named() -> None:
    """A wrong name is reported with the file that was looked for."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.lua"):
        script("nothing")
