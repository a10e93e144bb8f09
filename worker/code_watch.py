"""Noticing that an application's code changed, by the files' times. Imports nothing of it: broken code is fine."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

WATCH_INTERVAL_S = 0.4
"""Between two looks: soon enough after a save; a look at a thousand files takes some milliseconds of a thread."""

FILES_MAX = 5_000
"""Files that are looked at; more is a directory that holds something else than one application."""

# What is below a project without being its code. Hidden directories, .venv among them, are left out anyway.
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist"})

Snapshot = Mapping[Path, int]


def code_root(module: str, directory: Path) -> Path:
    """Return the directory whose code an application consists of.

    Args:
        module: Dotted, such as `shop.services`.
        directory: Where the command was started: the first place in which the module is looked for.

    Returns:
        The directory of the outermost package, or `directory` where the module is a file or cannot be found.
    """
    top = module.partition(".")[0]
    if (directory / top).is_dir():
        return directory / top
    if (directory / f"{top}.py").is_file():
        return directory
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return directory
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    return Path(places[0]) if places else directory


def snapshot(root: Path) -> Snapshot:
    """Return the time of change (ns) of each Python file below `root`, at most FILES_MAX."""
    found: dict[Path, int] = {}
    for directory, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in _LEFT_OUT and not n.startswith("."))
        for name in sorted(files):
            if name.endswith(".py"):
                path = Path(directory, name)
                try:
                    found[path] = path.stat().st_mtime_ns
                except OSError:
                    continue
            if len(found) >= FILES_MAX:
                return found
    return found


def changed_files(before: Snapshot, after: Snapshot) -> list[Path]:
    """Return what was added, removed or written between two snapshots, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


async def wait_for_change(root: Path, before: Snapshot, *, interval_s: float = WATCH_INTERVAL_S) -> list[Path]:
    """Return the files that differ from `before`, as soon as there are any."""
    while True:
        changed = changed_files(before, await asyncio.to_thread(snapshot, root))
        if changed:
            return changed
        await asyncio.sleep(interval_s)
