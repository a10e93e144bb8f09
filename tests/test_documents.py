"""Links of every page lead somewhere, and the commands in them are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from perdure.worker.cli import app
from perdure.worker.settings import PREFIX, unknown_variables
from tests.documents import PAGES, ROOT, blocks, commands, links

IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
# typer has a click of its own, or the installed one: by its attributes it is the same.
PERDURE: Any = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def command_named(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that the words name, and the words after it."""
    command = PERDURE
    while hasattr(command, "commands"):
        assert words, f"{command.name} needs a subcommand"
        name, *words = words
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file of the repository."""
    local = [link.split("#")[0] for link in links(page) if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path) -> None:
    """Each `perdure` command in a shell block has a command's name and its flags; each make target exists."""
    for line in commands(page):
        words = shlex.split(re.split(r" [|>] | && |; ", line)[0], comments=True)
        while words and "=" in words[0]:
            words.pop(0)
        if words[:1] == ["make"]:
            assert set(words[1:]) <= TARGETS, line
        elif words[:1] == ["perdure"]:
            command, rest = command_named(words[1:])
            flags = {option for parameter in command.params for option in parameter.opts}
            assert [word for word in rest if word.startswith("--") and word.split("=")[0] not in flags] == [], line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_in_sentences_exist(page: Path) -> None:
    """So do the commands in a page's text, of which some name a group only."""
    for span in re.findall(r"`perdure ([^`]+)`", page.read_text(encoding="utf-8")):
        command, words = PERDURE, shlex.split(span)
        while words and words[0] in getattr(command, "commands", ()):
            command = command.commands[words.pop(0)]
        assert not (words and hasattr(command, "commands")), f"there is no command {span!r}"
        flags = {option for parameter in command.params for option in parameter.opts}
        assert [word for word in words if word.startswith("--") and word.split("=")[0] not in flags] == [], span


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_variables_exist(page: Path) -> None:
    """Every PERDURE_ variable that a page names is a setting."""
    names = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
    assert unknown_variables(names) == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_programs_are_run(page: Path) -> None:
    """A page of docs/ with a program in it has a test that runs it; blocks with a title are their own test's affair."""
    programs = [block for block in blocks(page) if block.language == "python" and not block.title]
    if programs and page.parent == ROOT / "docs":
        assert (ROOT / "tests" / "pages" / f"test_{page.stem}.py").exists()
