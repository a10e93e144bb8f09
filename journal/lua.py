"""The text of the Lua scripts that ship with the package. PURE, apart from reading package data."""

from __future__ import annotations

from importlib import resources

# The line by which a script asks for the functions of `prelude.lua`.
_ASKS_FOR_PRELUDE = "-- prelude\n"


def script(name: str) -> str:
    """Return the script `journal/scripts/<name>.lua`, ready for SCRIPT LOAD: the prelude goes before it if it asks so.

    Args:
        name: The file's name without `.lua`.

    Raises:
        FileNotFoundError: There is no such script in the package.
    """
    text = _read(name)
    return _read("prelude") + text if text.startswith(_ASKS_FOR_PRELUDE) else text


def _read(name: str) -> str:
    return resources.files("perdure.journal").joinpath("scripts", f"{name}.lua").read_text(encoding="utf-8")
