"""PURE. What one attempt knows of its object's state: what came with the claim, under what it has written since."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.journal.store import State


class StateView:
    """The state as the handler sees it.

    Args:
        preloaded: The whole state, or, with `names`, a part of it; `None` where nothing is known.
        names: What the part covers; `None`: all of it.
    """

    def __init__(self, preloaded: State | None, *, names: Iterable[str] | None = None) -> None:
        self._preloaded = preloaded
        self._names = None if names is None else frozenset(names)
        self._written: dict[str, bytes | None] = {}
        self._cleared = False

    def knows(self, name: str) -> bool:
        """Whether `value` can be asked without asking the store."""
        if name in self._written or self._cleared:
            return True
        return self._preloaded is not None and (self._names is None or name in self._names)

    def value(self, name: str) -> bytes | None:
        """A value that is known; `None` where there is none."""
        if name in self._written:
            return self._written[name]
        if self._cleared or self._preloaded is None:
            return None
        return self._preloaded.get(name)

    def keys(self) -> list[str] | None:
        """All names, sorted; `None` where the store has to be asked."""
        if self._cleared:
            return self.merged(())
        if self._preloaded is None or self._names is not None:
            return None
        return self.merged(self._preloaded)

    def merged(self, stored: Iterable[str]) -> list[str]:
        """The names that are in the store, with what this attempt has written and may not have told it yet."""
        names = set() if self._cleared else set(stored)
        for name, value in self._written.items():
            if value is None:
                names.discard(name)
            else:
                names.add(name)
        return sorted(names)

    def snapshot(self) -> StateView:
        """The view as it is now: what is written from here on is not seen through it."""
        same = StateView(self._preloaded, names=self._names)
        same._written, same._cleared = dict(self._written), self._cleared
        return same

    def set(self, name: str, value: bytes) -> None:
        """The handler writes a value."""
        self._written[name] = value

    def clear(self, name: str) -> None:
        """The handler removes a value."""
        self._written[name] = None

    def clear_all(self) -> None:
        """The handler removes everything."""
        self._written.clear()
        self._cleared = True
