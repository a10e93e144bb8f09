"""The handler's commands in program order, held against those that the journal has. PURE; a part of the machine."""

from __future__ import annotations

from perdure.schemas.entries import Identity
from perdure.schemas.errors import JournalMismatchError


class Program:
    """Which commands were recorded, and which ones the handler has come to."""

    __slots__ = ("_identities", "_issued", "_last_recorded", "_recorded")

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}
        self._recorded: dict[int, Identity] = {}
        self._issued = 0
        self._last_recorded = -1

    @property
    def next_index(self) -> int:
        """The command index that the next command will have."""
        return self._issued

    def _run_identity(self, name: str) -> Identity:
        # Most handlers use few names; building an identity costs more than finding it.
        identity = self._identities.get(name)
        if identity is None:
            identity = self._identities[name] = Identity("run", name)
        return identity

    def _record(self, index: int, identity: Identity) -> None:
        self._recorded.setdefault(index, identity)
        if index > self._last_recorded:
            self._last_recorded = index

    def _next(self, identity: Identity) -> int:
        index = self._issued
        recorded = self._recorded.get(index)
        if recorded is not None and recorded != identity:
            raise JournalMismatchError(index=index, recorded=str(recorded), issued=str(identity))
        self._issued = index + 1
        return index

    def finish(self) -> None:
        """To be called when the handler returned or raised.

        Raises:
            JournalMismatchError: The journal has commands that the handler never came to.
        """
        if self._issued <= self._last_recorded:
            raise self._skipped("ended")

    def _skipped(self, what: str) -> JournalMismatchError:
        index = next(i for i in range(self._issued, self._last_recorded + 1) if i in self._recorded)
        return JournalMismatchError(index=index, recorded=str(self._recorded[index]), issued=f"the handler {what}")
