"""Noticing changed code: `perdure.worker.code_watch`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from perdure.worker import code_watch
from perdure.worker.code_watch import changed_files, code_root, snapshot, wait_for_change


def test_the_root_is_the_outermost_package_or_the_directory(tmp_path: Path) -> None:
    """A package is watched as a whole; beside a single module everything in its directory is."""
    (tmp_path / "shop" / "inner").mkdir(parents=True)
    (tmp_path / "single.py").touch()
    assert code_root("shop.inner.services", tmp_path) == tmp_path / "shop"
    assert code_root("single", tmp_path) == tmp_path
    assert code_root("nowhere.at.all", tmp_path) == tmp_path
    assert (code_root("pytest", tmp_path) / "__init__.py").is_file()


def test_only_code_is_watched(tmp_path: Path) -> None:
    """Python files below the root, without environments, caches and hidden directories."""
    for name in (
        "a.py",
        "sub/b.py",
        "notes.txt",
        ".venv/c.py",
        "venv/d.py",
        "sub/__pycache__/e.py",
        "node_modules/f.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in snapshot(tmp_path)) == ["a.py", "sub/b.py"]


def test_a_huge_tree_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at the wrong directory costs no more than the bound."""
    monkeypatch.setattr(code_watch, "FILES_MAX", 3)
    for number in range(9):
        (tmp_path / f"{number}.py").touch()
    assert len(snapshot(tmp_path)) == 3


def test_writing_adding_and_removing_are_changes(tmp_path: Path) -> None:
    """Each way to change code is noticed, by name."""
    kept, written, removed = (tmp_path / name for name in ("kept.py", "written.py", "removed.py"))
    for path in (kept, written, removed):
        path.touch()
    before = snapshot(tmp_path)
    os.utime(written, ns=(0, before[written] + 1))
    removed.unlink()
    added = tmp_path / "added.py"
    added.touch()
    assert changed_files(before, snapshot(tmp_path)) == [added, removed, written]
    assert changed_files(before, before) == []


async def test_a_change_is_waited_for(tmp_path: Path) -> None:
    """The wait ends with the first change, also with one that came before it."""
    before = snapshot(tmp_path)
    waiting = asyncio.create_task(wait_for_change(tmp_path, before, interval_s=0.01))
    added = tmp_path / "added.py"
    added.touch()
    assert await waiting == [added]
    assert await wait_for_change(tmp_path, before, interval_s=0.01) == [added]
