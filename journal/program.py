"""The handler's commands in program order, held against those that the journal has. PURE; a part of the machine."""

from __future__ import annotations

from perdure.schemas.commands import Call, Resolve, Send, SetState
from perdure.schemas.entries import Identity, Waiting, Written
from perdure.schemas.errors import JournalMismatchError


class Program:
    """Which commands were recorded, and which ones the handler has come to."""

    __slots__ = ("_arguments", "_identities", "_issued", "_last_recorded", "_recorded")

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}
        self._recorded: dict[int, Identity] = {}
        self._arguments: dict[int, Waiting | Written] = {}
        self._issued = 0
        self._last_recorded = -1

    @property
    def next_index(self) -> int:
        """The command index that the next command will have."""
        return self._issued

    @property
    def behind(self) -> bool:
        """Whether the journal has commands that the handler has not come to yet."""
        return self._issued <= self._last_recorded

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

    def _record_command(self, command: Waiting | Written) -> None:
        index = command.command_index
        self._record(index, command.identity)
        if index >= self._issued and isinstance(command, Call | Send | SetState | Resolve):
            self._arguments[index] = command

    def recorded(self, index: int) -> Waiting | Written | None:
        """What the journal has in place of a command with arguments that is about to be issued again."""
        return self._arguments.get(index)

    def replayed(self, index: int) -> Waiting | Written | None:
        """What the journal has in place of a command with arguments that is issued again; told once."""
        return self._arguments.pop(index, None)

    def _next(self, identity: Identity) -> int:
        index = self._issued
        recorded = self._recorded.get(index)
        if recorded is not None and recorded != identity:
            likely = _likely(recorded, identity, self._recorded.get(index + 1))
            raise JournalMismatchError(index=index, recorded=str(recorded), issued=str(identity), likely=likely)
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
        return JournalMismatchError(
            index=index,
            recorded=str(self._recorded[index]),
            issued=f"the handler {what}",
            likely="A command that was made before is not made any more, or not yet.",
        )


def _likely(recorded: Identity, issued: Identity, following: Identity | None) -> str:
    if following == issued:
        return f"It looks as if {recorded} had been taken out."
    if (recorded.type, recorded.name) == (issued.type, issued.name):
        return "It is the same command for another target: whom it goes to depends on something that changed."
    if recorded.type == issued.type:
        return "It looks like another name, or like another branch of the handler."
    return "It looks as if a command had been put in, or like another branch of the handler."
