"""What is installed is what is locked, and nothing else: `constraints.txt`, `pyproject.toml` and the environment agree.

No network is needed. Whether a locked version has a known vulnerability is a question for a database of advisories.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.!+]*)")

# Comes with Python itself, where it does: `make lock` leaves it out, too.
_NOT_LOCKED = frozenset({"setuptools"})


def pins_of(text: str) -> dict[str, str]:
    """The version of each name in a lock.

    Raises:
        ValueError: A line names no exact version, or a name that was named before.
    """
    pins: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _PIN.fullmatch(line)
        if found is None:
            raise ValueError(f"{line!r} is not name==version")
        name = canonicalize_name(found[1])
        if name in pins:
            raise ValueError(f"{name} is locked twice")
        pins[name] = found[2]
    return pins


def asked_for() -> list[Requirement]:
    """What `pyproject.toml` asks for: to run, for the embedded servers, to develop, to build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["embedded"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
        "pip",
    ]
    return [Requirement(text) for text in texts]


def applies(requirement: Requirement, extras: Iterable[str] = ("",)) -> bool:
    """Whether it is meant on this machine."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def asked_by(name: str, extras: Iterable[str]) -> Iterator[Requirement]:
    """What an installed distribution asks for."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if applies(requirement, ("", *extras)):
            yield requirement


def problems(pins: dict[str, str], roots: Iterable[Requirement]) -> list[str]:
    """What is not locked, not installed as locked, locked out of bounds, or locked and not asked for."""
    found: list[str] = []
    open_, seen = [each for each in roots if applies(each)], set[tuple[str, frozenset[str]]]()
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        if name not in pins:
            if name not in _NOT_LOCKED:
                found.append(f"{requirement} is asked for, and not locked")
            continue
        if not requirement.specifier.contains(pins[name], prereleases=True):
            found.append(f"{requirement} is asked for, and {pins[name]} is locked")
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(f"{name} is locked, and not installed")
            continue
        if installed != pins[name]:
            found.append(f"{name} {pins[name]} is locked, and {installed} is installed")
        open_ += asked_by(name, requirement.extras)
    known = {name for name, _ in seen}
    return found + [f"{name} is locked, and nothing asks for it" for name in sorted(pins.keys() - known)]


def test_the_lock_the_project_and_the_environment_agree() -> None:
    """Each version is exact, within what the project asks for, and the one installed; nothing else is locked."""
    assert problems(pins_of((ROOT / "constraints.txt").read_text()), asked_for()) == []


@pytest.mark.parametrize("line", ["orjson>=3", "orjson", "orjson==3.*", "-e .", "orjson @ https://example.com/x.whl"])
def test_a_lock_names_exact_versions(line: str) -> None:
    """A range, a link or an option locks nothing."""
    with pytest.raises(ValueError, match="is not name==version"):
        pins_of(f"redis==8.1.0\n{line}\n")
    with pytest.raises(ValueError, match="twice"):
        pins_of("typing-extensions==4.16.0\ntyping_extensions==4.16.0\n")


def test_what_does_not_agree_is_found() -> None:
    """Each kind of disagreement is told by name."""
    pins = pins_of((ROOT / "constraints.txt").read_text())
    missing = {name: version for name, version in pins.items() if name != "hiredis"}
    assert any("hiredis" in line and "not locked" in line for line in problems(missing, asked_for()))
    told = problems(pins | {"orjson": "2.0.0", "leftover": "1.0"}, asked_for())
    assert any("orjson 2.0.0 is locked, and" in line for line in told)
    assert any(line.startswith("orjson<4") and "2.0.0 is locked" in line for line in told)
    assert "leftover is locked, and nothing asks for it" in told
