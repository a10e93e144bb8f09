"""A page of docs/ as a module: its Python blocks, in order, are one program, which its test runs.

Blocks with a title (`python shop.py`) are files of their own, and run by the test that knows them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

_FENCE = re.compile(r"^```(.*)$")


def program_of(page: Path) -> str:
    """The page's untitled Python blocks, each line at its place in the page, so that tracebacks name that."""
    kept: list[str] = []
    inside = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if fence:
            inside = "" if inside else fence[1].strip() or "text"
        kept.append(line if inside == "python" and not fence else "")
    return "\n".join(kept).rstrip() + "\n"


def run_page(page: Path) -> ModuleType:
    """Run the page's program, and return it as a module that nothing else has."""
    module = ModuleType(f"page_{page.stem}")
    module.__file__ = str(page)
    # Where types are looked up by name.
    sys.modules[module.__name__] = module
    exec(compile(program_of(page), str(page), "exec"), vars(module))
    return module
