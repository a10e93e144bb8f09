"""ARCHITECTURE.md is complete: every module, script and status is in it, and all that it names exists."""

from __future__ import annotations

import re

import pytest

from perdure.journal.keys import STATUSES
from tests.documents import ROOT
from tests.tidy_rules import LAYERS

TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MODULES = {layer: sorted(path.name for path in (ROOT / layer).glob("*.py")) for layer in LAYERS}
NAMED = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|lua))`")


def section(title: str) -> str:
    """Return the text under a heading, up to the next one of its level or above."""
    level, rest = re.split(rf"^(#+) {re.escape(title)}.*$", TEXT, maxsplit=1, flags=re.MULTILINE)[1:]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_every_module_has_its_line(layer: str) -> None:
    """Whoever adds a module says what it is for."""
    named = NAMED.findall(section(f"{layer}:"))
    assert [name for name in MODULES[layer] if name != "__init__.py" and name not in named] == []


def test_every_module_of_the_command_is_named() -> None:
    """The parts of `worker/cli/` are in its paragraph."""
    paragraph = section("worker:").split("The command, in `worker/cli/`")[1]
    expected = sorted(path.name for path in (ROOT / "worker" / "cli").glob("*.py"))
    assert [name for name in expected if f"`{name}`" not in paragraph] == []


def test_every_script_is_named() -> None:
    """The scripts are in the paragraph of `journal`."""
    scripts = sorted(path.name for path in (ROOT / "journal" / "scripts").glob("*.lua"))
    assert scripts
    assert [name for name in scripts if f"`{name}`" not in section("journal:")] == []


def test_what_is_named_exists() -> None:
    """No line speaks of a file that is gone."""
    known = {path.name for pattern in ("*.py", "*.lua") for folder in LAYERS for path in (ROOT / folder).rglob(pattern)}
    for name in NAMED.findall(TEXT):
        places = [ROOT / name] if "/" in name else [ROOT / name, ROOT / "perdure" / name]
        assert any(place.exists() for place in places) or ("/" not in name and name in known), name


def test_every_guarantee_has_tests() -> None:
    """G1 to G9 each have a row, and all but what is not built name a test."""
    rows = re.findall(r"^\| (G\d) \|(.*)\|$", section("Guarantees"), re.MULTILINE)
    assert [number for number, _ in rows] == [f"G{n}" for n in range(1, 10)]
    assert [number for number, row in rows if "`tests/" not in row and "not built yet" not in row] == []


def test_every_status_is_explained() -> None:
    """The picture and its text hold all statuses."""
    assert [status for status in STATUSES if status not in section("Statuses")] == []


def test_it_stands_alone() -> None:
    """It refers to nothing outside of the repository."""
    assert "../" not in TEXT
