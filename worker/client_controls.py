"""The part of a client that operates invocations: cancel, kill, pause, resume, purge, restart; one or many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, get_args

from perdure.journal.inspection import InvocationView
from perdure.journal.listing import every_page
from perdure.journal.restarting import kept_entries
from perdure.journal.selection import InvocationFilter
from perdure.journal.store import Delivery, Restart
from perdure.journal.transitions import RETENTION_MS
from perdure.schemas.entries import Cancelled, Input, Output
from perdure.schemas.errors import ConflictError, PerdureError, UsageError
from perdure.schemas.ids import InvocationId, id_of_restart, place_of

from .client_connection import ClientConnection, unknown
from .envelope import checked_id
from .handler import HandlerMode
from .refusals import refusal

Action = Literal["cancel", "kill", "pause", "resume", "purge", "restart"]

AT_ONCE: Final = 100
"""Invocations that one request for many changes at the same time: they share round trips."""

BULK_MAX: Final = 10_000
"""Invocations that one request can mean: more is a mistake more often than not, and can be repeated."""

OPEN: Final = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused")
"""Statuses of what has no outcome yet."""

_MEANT: Final[dict[Action, tuple[str, ...]]] = {
    "cancel": OPEN,
    "kill": OPEN,
    "pause": ("ready", "running", "backing-off", "suspended"),
    "resume": ("paused",),
    "purge": ("completed",),
    "restart": ("completed",),
}
"""Which statuses a filter means that names none."""


class Control(NamedTuple):
    """What came of a request.

    Attributes:
        invocation_id: Of the invocation; of the new one after a restart.
        changed: Whether it changed anything.
        status: In which nothing was to be changed; empty where something was.
    """

    invocation_id: str
    changed: bool
    status: str = ""


@dataclass(frozen=True, slots=True)
class Bulk:
    """What came of a request for many.

    Attributes:
        chosen: Whom a filter meant.
        results: What came of each that was not refused, in that order; empty after a dry run.
        errors: Why it was refused, by id.
        more: Whether there are more than the bound; ask again.
    """

    chosen: tuple[InvocationView, ...]
    results: tuple[Control, ...]
    errors: dict[str, str]
    more: bool


class ClientControls(ClientConnection):
    """Operating invocations."""

    async def cancel(self, invocation_id: str, *, once: str | None = None) -> Control:
        """Ask an invocation to end: its handler sees a TerminalError 409 where it waits, and may compensate.

        Goes on to what it called and not to what it sent. Each cancellation counts: a second one interrupts
        compensations, too. One that has not begun ends at once.

        Args:
            invocation_id: Which.
            once: A name of your own: with the same one it is the same cancellation.

        Raises:
            InvocationNotFoundError: There is none of that id.
            ConflictError: It was cancelled too often already.
            UsageError: It is not an invocation id.
        """
        chosen = checked_id(invocation_id)
        entry = Cancelled(self._clock.now_ms())
        return await self._done(chosen, await self._store.deliver(chosen, entry, once=self._once("x", once)))

    async def kill(self, invocation_id: str) -> Control:
        """End an invocation with a failure 409 at once, whatever its handler does; nothing is compensated.

        Kills what it called, too, and lets go of its object.

        Raises:
            InvocationNotFoundError: There is none of that id.
            UsageError: It is not an invocation id.
        """
        chosen = checked_id(invocation_id)
        output = Output(self._clock.now_ms(), self._failure("killed", 409))
        return await self._done(chosen, await self._store.kill(chosen, output))

    async def pause(self, invocation_id: str) -> Control:
        """Have an invocation wait until it is resumed; one that runs finishes its running steps first.

        Raises:
            InvocationNotFoundError: There is none of that id.
            UsageError: It is not an invocation id.
        """
        chosen = checked_id(invocation_id)
        reason = "paused by an operator"
        return await self._done(chosen, await self._store.pause(chosen, at_ms=self._clock.now_ms(), reason=reason))

    async def resume(self, invocation_id: str) -> Control:
        """Let a paused invocation go on; its failures count from 0 again.

        Raises:
            InvocationNotFoundError: There is none of that id.
            UsageError: It is not an invocation id.
        """
        chosen = checked_id(invocation_id)
        return await self._done(chosen, await self._store.resume(chosen, at_ms=self._clock.now_ms()))

    async def purge(self, invocation_id: str) -> Control:
        """Forget a completed invocation and its journal; of a workflow's run its state and promises, too.

        Nothing happens while somebody has not been told its outcome.

        Raises:
            InvocationNotFoundError: There is none of that id.
            UsageError: It is not an invocation id.
        """
        chosen = checked_id(invocation_id)
        return await self._done(chosen, await self._store.purge(chosen))

    async def restart_as_new(self, invocation_id: str, *, keep: int = 0, new_id: str | None = None) -> Control:
        """Begin a new invocation with the input of a completed one.

        State that the old one wrote is as it is now, whatever is kept.

        Args:
            invocation_id: The completed one, which stays as it is.
            keep: How many of its commands are not done again: their recorded results are replayed.
            new_id: The new one's id, in the same place (`perdure.schemas.ids.id_of_restart`): repeating it is safe.

        Returns:
            The id of the new one; unchanged where there is one of that id.

        Raises:
            InvocationNotFoundError: There is none of that id.
            ConflictError: It is not completed, its journal is not kept any more, a command that is to be kept has no
                result, or the queue of its object is full.
            UsageError: It is a workflow's run, it has fewer commands, or an id is not of its form.
        """
        original = checked_id(invocation_id)
        fresh = id_of_restart(original, entropy=self._entropy) if new_id is None else checked_id(new_id)
        if place_of(fresh) != place_of(original):
            raise UsageError(f"{fresh} is not in the place of {original}: make it with id_of_restart, or leave it out.")
        delivery = await self._store.restart(await self._restart_of(original, fresh, keep))
        if delivery.result == "full":
            raise ConflictError(f"The queue of the object of {original} is full: try again when it is shorter.")
        await self._leave_to_workers(delivery.due)
        return Control(fresh, delivery.result == "delivered", "" if delivery.result == "delivered" else "known")

    async def _restart_of(self, original: InvocationId, fresh: InvocationId, keep: int) -> Restart:
        summary = await self._store.read_invocation(original)
        if summary is None:
            raise unknown(original)
        fields = summary.fields
        if fields.get("mode") == HandlerMode.MAIN:
            raise UsageError(f"{original} is the one run of its workflow key: purge it, and send it again.")
        if fields.get("status") != "completed":
            raise ConflictError(
                f"{original} is {fields.get('status')}: only what is completed is restarted. Cancel or kill it first."
            )
        entries = await self._store.read_journal(original)
        if not entries or not isinstance(entries[0].entry, Input):
            raise ConflictError(f"The journal of {original} is kept no longer, and its input with it: send it again.")
        return Restart(
            invocation_id=fresh,
            service=fields.get("service", ""),
            handler=fields.get("handler", ""),
            key=fields.get("key"),
            input=entries[0].entry,
            kept=kept_entries(entries, keep),
            mode=fields.get("mode", ""),
            source=f"restart of {original}",
            retention_ms=int(fields.get("retention", RETENTION_MS)),
            journal_retention_ms=int(fields.get("journal_retention", RETENTION_MS)),
        )

    async def _done(self, invocation_id: InvocationId, delivery: Delivery) -> Control:
        if delivery.result == "unknown":
            raise unknown(invocation_id)
        if refused := refusal(delivery, invocation_id):
            raise ConflictError(refused)
        await self._leave_to_workers(delivery.due)
        if delivery.result == "delivered":
            return Control(invocation_id, True)
        return Control(invocation_id, False, delivery.status or delivery.result)

    async def control(self, action: Action, invocation_id: str, *, keep: int = 0) -> Control:
        """Do one of these things, by its name; `keep` is for a restart.

        Raises:
            UsageError: There is no such action; else as the method of that name.
        """
        match action:
            case "cancel":
                return await self.cancel(invocation_id)
            case "kill":
                return await self.kill(invocation_id)
            case "pause":
                return await self.pause(invocation_id)
            case "resume":
                return await self.resume(invocation_id)
            case "purge":
                return await self.purge(invocation_id)
            case "restart":
                return await self.restart_as_new(invocation_id, keep=keep)
        raise UsageError(f"There is no action {action!r}: they are {', '.join(get_args(Action))}.")

    async def control_many(
        self, action: Action, chosen: InvocationFilter, *, limit: int = 1_000, dry_run: bool = False
    ) -> Bulk:
        """Do the same to all that a filter means.

        Not one transition: what changes meanwhile is met as it is then. Repeating it is safe, but for `cancel`, of
        which each counts, and `restart`.

        Args:
            action: Cancel, kill, pause, resume, purge or restart.
            chosen: Whom; without a status, all that are in one in which the action does something.
            limit: How many at most, up to 10,000.
            dry_run: Only say whom.

        Raises:
            UsageError: There is no such action, or the limit is out of its bounds.
        """
        if action not in _MEANT:
            raise UsageError(f"There is no action {action!r}: they are {', '.join(_MEANT)}.")
        if not 0 < limit <= BULK_MAX:
            raise UsageError(f"limit={limit} is not from 1 to {BULK_MAX}: ask several times for more.")
        meant = chosen if chosen.statuses else replace(chosen, statuses=_MEANT[action])
        # By id: one that moves on while we look may come twice.
        found: dict[str, InvocationView] = {}
        more = False
        async for page in every_page(self._store, meant, now_ms=self._clock.now_ms(), limit=limit):
            found |= {view.id: view for view in page.invocations}
            if len(found) >= limit:
                more = page.cursor is not None or len(found) > limit
                break
        views = tuple(found.values())[:limit]
        if dry_run:
            return Bulk(views, (), {}, more)
        return replace(await self.control_each(action, [view.id for view in views]), chosen=views, more=more)

    async def control_each(self, action: Action, invocation_ids: Sequence[str], *, keep: int = 0) -> Bulk:
        """Do the same to each of these; `keep` is for a restart.

        Raises:
            UsageError: There is no such action.
        """
        if action not in _MEANT:
            raise UsageError(f"There is no action {action!r}: they are {', '.join(_MEANT)}.")
        results: list[Control] = []
        errors: dict[str, str] = {}
        for start in range(0, len(invocation_ids), AT_ONCE):
            some = invocation_ids[start : start + AT_ONCE]
            answers = await asyncio.gather(
                *(self.control(action, each, keep=keep) for each in some), return_exceptions=True
            )
            for invocation_id, answer in zip(some, answers, strict=True):
                match answer:
                    case Control():
                        results.append(answer)
                    case PerdureError():
                        errors[invocation_id] = str(answer)
                    case _:
                        raise answer
        return Bulk((), tuple(results), errors, False)
