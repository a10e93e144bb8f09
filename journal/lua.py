"""The text of the Lua scripts that ship with the package. PURE, apart from reading package data."""

from __future__ import annotations

import re
from importlib import resources

# A line by which a script asks for the text of another file at this place.
_INCLUDE = re.compile(r"^ *-- include (\w+)\n", re.MULTILINE)


def script(name: str) -> str:
    """Return the script `journal/scripts/<name>.lua`, ready for SCRIPT LOAD.

    A line `-- include <other>` stands for the text of `journal/scripts/<other>.lua`.

    Args:
        name: The file's name without `.lua`.

    Raises:
        FileNotFoundError: There is no such script in the package.
    """
    return _INCLUDE.sub(lambda found: script(found[1]), _read(name))


def _read(name: str) -> str:
    return resources.files("perdure.journal").joinpath("scripts", f"{name}.lua").read_text(encoding="utf-8")
