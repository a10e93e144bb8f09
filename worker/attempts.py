"""Every attempt that runs in this worker: how many there may be, how each one is begun, and what it is told."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any

from perdure.journal.store import Claim, Lease, Store
from perdure.journal.transitions import SUSPECT_AFTER
from perdure.schemas.errors import FencedError, PerdureError
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import JOURNAL_BYTES_MAX

from .actions import Actions
from .admissions import handler_for, retention_of
from .answered import SIDE_FAILED, when_answered
from .application import Application
from .attempt import Attempt
from .attempt_limits import AttemptLimits, Outward, TimerSink
from .clock import Clock
from .conclusion import run_attempt
from .departures import AttemptEnd, Completed, Left, Losing, Lost, Released, Releasing
from .handler import Handler, HandlerMode
from .sealing import Sealer
from .service_kinds import mains_in

logger = logging.getLogger(__name__)

DRAIN_LOOK_S = 0.05
"""Between two looks at what still runs while stopping."""

ROOM_LOOK_S = 0.05
"""After so long without room, attempts that only wait for the outside are suspended at once."""

TURN_LOOK_S = 0.05
"""Between two looks at whether another suspect still runs: suspects have waited for a second or more before."""

LIMITS_KEPT_MAX = 1_000
"""Handlers of which it is remembered what holds for them: more than any application has."""

ABANDON_MS = 2_000
"""After the grace, for handlers to end once they were cancelled."""


@dataclass(frozen=True, slots=True)
class AttemptSettings:
    """What holds for attempts where their handlers say nothing.

    Attributes:
        inactivity_ms: How long an attempt waits in memory before it is suspended.
        always_replay: Leave after every result, so that each await is replayed. For tests.
        journal_entries_max: A longer journal pauses the invocation.
        journal_bytes_max: So does one that holds more.
        payload_bytes_max: A longer result is refused.
        lease_ms: How long a lease holds.
        strict_arguments: A replayed command with other arguments than before pauses. For tests.
    """

    inactivity_ms: int
    always_replay: bool
    journal_entries_max: int
    payload_bytes_max: int
    lease_ms: int
    strict_arguments: bool = False
    journal_bytes_max: int = JOURNAL_BYTES_MAX


class Attempts:
    """The attempts of one worker.

    Args:
        application: Whose handlers run.
        settings: What holds where handlers say nothing.
        store: The invocations.
        clock: Time.
        threads: Where sync steps run.
        timers: Told of deadlines.
        concurrency: How many at once.
        on_end: Called with each attempt that ended by itself.
        outward: Told what has to reach something beside a journal.
    """

    def __init__(
        self,
        application: Application,
        settings: AttemptSettings,
        *,
        store: Store,
        clock: Clock,
        threads: Executor,
        timers: TimerSink,
        concurrency: int,
        on_end: Callable[[Attempt, AttemptEnd], None],
        outward: Outward,
    ) -> None:
        self._outward = outward
        self._application = application
        self._settings = settings
        self._store = store
        self._clock = clock
        self._threads = threads
        self._timers = timers
        self._concurrency = concurrency
        self._on_end = on_end
        self._actions = Actions()
        codec = application.payload_codec
        self._sealer = None if codec is None else Sealer(codec)
        self.mains = {(handler.service, handler.name) for handler in application if handler.mode is HandlerMode.MAIN}
        """Handlers that run once for each key, of whatever application: their runs have ids of their own."""
        self._running: dict[Lease, Attempt] = {}
        self._latest: dict[InvocationId, Attempt] = {}
        self._limits: dict[tuple[str, str, bool], AttemptLimits] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._suspect: Attempt | None = None
        self._changed = asyncio.Event()

    def learn(self, descriptions: Mapping[str, str]) -> None:
        """Take what others say of their services, which handlers here may call by name; see `service_kinds`."""
        # For those that run here the application knows better.
        self.mains.update(main for main in mains_in(descriptions) if main[0] not in self._application.services)

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """Run attempts in this group from here on."""
        self._tasks = tasks

    @property
    def full(self) -> bool:
        """Whether no more attempts may begin now."""
        return self.free < 1

    @property
    def free(self) -> int:
        """How many more attempts may begin now; below 0 where more have begun."""
        return self._concurrency - len(self._running)

    async def room(self) -> int:
        """How many more attempts may begin; waits until it is at least one."""
        while (room := self.free) < 1:
            self._changed.clear()
            try:
                async with asyncio.timeout(ROOM_LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                # Callers may wait for callees that find no room: those that only wait can do so outside of memory.
                for attempt in list(self._running.values()):
                    attempt.make_room()
        return room

    def leases(self) -> list[Lease]:
        """Every lease that is held now. May be called in any thread."""
        # One call into C makes the list: nothing can change the dict meanwhile.
        return list(self._running)

    def renewed(self, lease: Lease, length: int | None) -> None:
        """The store answered a renewal."""
        attempt = self._running.get(lease)
        if attempt is None:
            return
        if length is None:
            if attempt.writer.leaving:
                # It was suspended before the renewal came, or is told now that it was fenced: the answer is on its way.
                return
            attempt.depart(Losing(FencedError(f"The lease of {lease.invocation_id} was lost.")))
        else:
            attempt.poke(length)

    def poke(self, invocation_id: InvocationId) -> bool:
        """Something may have been appended to it by others. Whether it runs here."""
        attempt = self._latest.get(invocation_id)
        if attempt is not None:
            attempt.fetch()
        return attempt is not None

    def spawn(self, work: Awaitable[object]) -> None:
        """Do something small on the side, in the group of the attempts; nothing waits for an answer of the store."""
        if isinstance(work, asyncio.Future):
            when_answered(work, lambda _: None)
            return

        async def quietly() -> None:
            try:
                await work
            except Exception:
                # Whatever it was, it is in `due` and will be done again.
                logger.exception(SIDE_FAILED)

        # Where the worker has stopped another one does what is due.
        if not self._run_in_group(quietly()) and inspect.iscoroutine(work):
            work.close()

    def start(self, claim: Claim) -> None:
        """Begin an attempt."""
        handler = handler_for(self._application, claim.service, claim.handler)
        attempt = Attempt(
            claim,
            handler,
            store=self._store,
            clock=self._clock,
            threads=self._threads,
            timers=self._timers,
            limits=self._limits_of(handler, idempotent=bool(claim.idempotency_key)),
            actions=self._actions,
            outward=self._outward,
        )
        # A later attempt of the same invocation may begin here before an earlier one has noticed that it lost it: both
        # take room and both are renewed, which is how the earlier one learns it.
        self._running[claim.lease] = attempt
        self._latest[claim.lease.invocation_id] = attempt
        if not self._run_in_group(self._run(attempt)):
            # Admitted again while the worker leaves, when all else has ended: its lease ends, and another claims it.
            del self._running[claim.lease], self._latest[claim.lease.invocation_id]

    def _run_in_group(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run it beside the attempts; whether they still run: the group may have ended with the worker."""
        assert self._tasks is not None, "the engine runs"
        try:
            # A context of its own: handlers must not see what the engine, or each other, have set, and what is begun in
            # a handler's context would be taken for one of the handler's tasks.
            self._tasks.create_task(work, context=Context())
        except RuntimeError:
            work.close()
            return False
        return True

    async def drain(self, *, grace_ms: int, more: Callable[[], object] = bool) -> None:
        """Finish or hand over everything: what waits goes at once, what runs gets `grace_ms`.

        Args:
            grace_ms: For what runs.
            more: Whether more may begin yet, such as what the store was asked to admit.
        """
        deadline_ms = self._clock.monotonic_ms() + grace_ms
        while self._running or more():
            late = self._clock.monotonic_ms() >= deadline_ms
            for attempt in list(self._running.values()):
                if late or attempt.waiting:
                    attempt.depart(Releasing())
            self._changed.clear()
            try:
                async with asyncio.timeout(DRAIN_LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            if self._clock.monotonic_ms() >= deadline_ms + ABANDON_MS:
                if self._running:
                    logger.error("%d handlers do not end; their leases run out", len(self._running))
                return

    async def _run(self, attempt: Attempt) -> None:
        invocation_id = attempt.invocation_id
        try:
            if attempt.claim.lost >= SUSPECT_AFTER:
                await self._turn(attempt)
            end = await run_attempt(attempt)
        except Exception:
            # A bug of ours must cost one attempt, not the worker; its lease ends and another one tries.
            logger.exception("the attempt of %s ended in an internal error", invocation_id)
            return
        finally:
            self._let_next(attempt)
            del self._running[attempt.claim.lease]
            if self._latest.get(invocation_id) is attempt:
                del self._latest[invocation_id]
            self._changed.set()
        _log(attempt, end)
        self._on_end(attempt, end)

    async def _turn(self, attempt: Attempt) -> None:
        """Return when no other suspect runs here, or when it is to leave: what dies with it then is not its doing."""
        while self._suspect is not None and attempt.departure is None:
            await self._clock.sleep(TURN_LOOK_S)
        if attempt.departure is not None:
            return
        self._suspect = attempt
        attempt.writer.on_progress = lambda: self._let_next(attempt)
        try:
            await self._store.renew([attempt.claim.lease], lease_ms=self._settings.lease_ms, alone=True)
        except PerdureError as error:
            # It is not counted, then, if its worker dies.
            logger.warning("%s runs alone, which could not be written down: %s", attempt.invocation_id, error)

    def _let_next(self, attempt: Attempt) -> None:
        if self._suspect is attempt:
            self._suspect = None

    def _limits_of(self, handler: Handler, *, idempotent: bool) -> AttemptLimits:
        cached = self._limits.get((handler.service, handler.name, idempotent))
        if cached is None:
            limits = _limits(handler, self._settings, idempotent=idempotent)
            cached = replace(limits, sealer=self._sealer, mains=self.mains)
            if len(self._limits) >= LIMITS_KEPT_MAX:
                # Names of handlers come from records, too, also of handlers that there are not.
                self._limits.clear()
            self._limits[handler.service, handler.name, idempotent] = cached
        return cached


def _limits(handler: Handler, settings: AttemptSettings, *, idempotent: bool) -> AttemptLimits:
    options = handler.options
    inactivity_ms = options.inactivity_timeout_ms
    retention_ms, journal_retention_ms = retention_of(handler, idempotent=idempotent)
    return AttemptLimits(
        inactivity_ms=settings.inactivity_ms if inactivity_ms is None else inactivity_ms,
        retention_ms=retention_ms,
        journal_retention_ms=journal_retention_ms,
        retry=options.retry(),
        always_replay=settings.always_replay,
        journal_entries_max=settings.journal_entries_max,
        journal_bytes_max=settings.journal_bytes_max,
        payload_bytes_max=settings.payload_bytes_max,
        strict_arguments=settings.strict_arguments,
    )


def _log(attempt: Attempt, end: AttemptEnd) -> None:
    if isinstance(end, Completed) and not logger.isEnabledFor(logging.DEBUG):
        return
    fields = {
        "invocation_id": attempt.invocation_id,
        "handler": attempt.handler.target,
        "attempt": attempt.claim.lease.epoch,
    }
    match end:
        case Left("paused", reason):
            logger.warning("invocation %s is paused: %s", attempt.invocation_id, reason, extra=fields)
        case Left("backing-off", reason):
            logger.info("attempt of %s failed and is retried: %s", attempt.invocation_id, reason, extra=fields)
        case Lost(error):
            logger.info("attempt of %s ended without a say: %s", attempt.invocation_id, error, extra=fields)
        case Completed() | Left() | Released():
            logger.debug("attempt of %s ended: %s", attempt.invocation_id, type(end).__name__, extra=fields)
