"""Invocations that call each other, over the store in memory: the engine's part with a real dispatcher, without Kafka.

As on a `Stage`, deadlines are skipped once nothing runs any more.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextvars import Context
from typing import Any

import orjson

from perdure.journal.store import (
    CascadeDue,
    Claim,
    Claimed,
    Due,
    Follow,
    HintDue,
    OutgoingDue,
    ReplyDue,
    ResumeDue,
)
from perdure.schemas.entries import Entry
from perdure.schemas.ids import InvocationId, new_invocation_id
from perdure.schemas.limits import RECORD_BYTES_MAX
from perdure.worker.admissions import Invoke, admission_of, first_claim, handler_for
from perdure.worker.application import Application, app
from perdure.worker.attempt import Attempt
from perdure.worker.clock import system_random
from perdure.worker.conclusion import run_attempt
from perdure.worker.definitions import Definition
from perdure.worker.departures import AttemptEnd, Completed, Released
from perdure.worker.dispatch import Dispatcher
from perdure.worker.handler import Handler, HandlerMode, handler_of
from perdure.worker.outbox import Outbox
from tests.worker.attempt_stage import DAY_MS, LEASE_MS, Stage, Story
from tests.worker.scripted_broker import ScriptedBroker

TURNS_MAX = 2_000
"""Of skipping ahead to what falls due: more is something that gets nowhere."""


class Ensemble(Stage):
    """Plays invocations of an application, and all that they invoke.

    Args:
        always_replay: Whether each attempt leaves after each result.
    """

    def __init__(self, *, always_replay: bool = False) -> None:
        super().__init__(always_replay=always_replay)
        # What waits in memory for something that is far off leaves soon, so that the clock may be put forward.
        self.inactivity_ms = 30
        # Days are skipped, and their stories are told afterwards.
        self.retention_ms = 100 * DAY_MS
        self.broker = ScriptedBroker()
        self.outbox = Outbox(self.broker, clock=self.clock)
        self.ends: defaultdict[InvocationId, list[AttemptEnd]] = defaultdict(list)
        self.application: Application | None = None
        self.dispatcher: Dispatcher | None = None
        self._tokens = itertools.count(1)
        self._attempts: dict[InvocationId, Attempt] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    def cast(self, *definitions: Definition) -> None:
        """Say whose handlers are played."""
        self.application = app(definitions)
        self.mains = frozenset(
            (handler.service, handler.name) for handler in self.application if handler.mode is HandlerMode.MAIN
        )
        self.dispatcher = Dispatcher(
            self.application,
            namespace="ns",
            store=self.store,
            outbox=self.outbox,
            clock=self.clock,
            worker="stage",
            new_token=self._new_token,
            lease_ms=LEASE_MS,
            record_bytes_max=RECORD_BYTES_MAX,
            room=lambda: True,
            start=self.start,
            on_due=self.act,
            spawn=self.spawn,
        )

    def _new_token(self) -> str:
        return f"token {next(self._tokens)}"

    @property
    def _sends(self) -> Dispatcher:
        assert self.dispatcher is not None, "cast(...) comes first"
        return self.dispatcher

    def spawn(self, work: Awaitable[object]) -> None:
        """Do something on the side."""

        async def working() -> None:
            await work

        task = asyncio.get_running_loop().create_task(working(), context=Context())
        self._working.add(task)
        task.add_done_callback(self._worked)
        if inspect.iscoroutine(work):
            # One that was cancelled before it began was never awaited.
            task.add_done_callback(lambda _: work.close())

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    def start(self, claim: Claim) -> None:
        """Begin an attempt."""
        assert self.application is not None, "cast(...) comes first"
        attempt = self.new_attempt(handler_for(self.application, claim.service, claim.handler), claim)
        self._attempts[attempt.invocation_id] = attempt
        self.spawn(self._play(attempt))

    async def _play(self, attempt: Attempt) -> None:
        end = await run_attempt(attempt)
        if self._attempts.get(attempt.invocation_id) is attempt:
            del self._attempts[attempt.invocation_id]
        self.ends[attempt.invocation_id].append(end)
        match end:
            case Completed(outcome, topics, callers, following, claim):
                if topics or callers:
                    self.act([ReplyDue(attempt.invocation_id, topics, outcome, callers)])
                if claim is not None:
                    self.start(claim)
                elif following is not None:
                    self.act([following])
            case Released():
                self.act([ResumeDue(attempt.invocation_id, attempt.claim.lease.epoch, attempt.claim.service)])
            case _:
                pass

    def send(self, origin: InvocationId, position: int, entry: Entry, *, target: str) -> None:
        """See `Outward`."""
        super().send(origin, position, entry, target=target)
        self._sends.send(origin, position, entry, target=target)

    def act(self, due: Sequence[Due]) -> None:
        """See `Outward`: what the engine does."""
        for item in due:
            match item:
                case ResumeDue():
                    assert self._sends.resume(item), f"{item.service} is not cast"
                case ReplyDue():
                    self.spawn(self._tell(item))
                case OutgoingDue(invocation_id, position, entry):
                    self._sends.send(invocation_id, position, entry)
                case CascadeDue(invocation_id):
                    self.spawn(self._sends.kill_callees(invocation_id))
                case HintDue(_, invocation_id):
                    if (attempt := self._attempts.get(invocation_id)) is not None:
                        attempt.fetch()

    async def cancel_callees(self, origin: InvocationId, told: Collection[tuple[int, InvocationId]]) -> None:
        """See `Outward`."""
        await self._sends.cancel_callees(origin, told)

    def follow(self) -> Follow | None:
        """See `Outward`: who comes next is claimed with the outcome of the one before."""
        return Follow(self._new_token(), LEASE_MS, self.clock.now_ms())

    async def _tell(self, due: ReplyDue) -> None:
        if all([await self._sends.tell(caller, due.outcome) for caller in due.callers]):
            await self.memory.acknowledge(due.invocation_id, reply=True)

    def sweep(self) -> float | None:
        """Do what is due; returns when the next is, in ms."""
        swept = self.memory.sweep(0).result()
        self.act(swept.due)
        return swept.next_in_ms

    async def invoke(
        self,
        handler: Handler | Callable[..., Awaitable[Any]],
        argument: object = None,
        *,
        key: str | None = None,
        raw: bytes | None = None,
    ) -> Story:
        """Admit an invocation, and begin it where it need not wait."""
        handler = handler if isinstance(handler, Handler) else handler_of(handler)
        assert self.application is not None, "cast(...) comes first"
        wanted = Invoke(
            handler.service,
            handler.name,
            key,
            new_invocation_id(handler.service, key, system_random()),
            self.clock.now_ms(),
            self.headers,
            raw if raw is not None else orjson.dumps(argument),
        )
        admission = admission_of(self.application, wanted, token=self._new_token(), worker="stage")
        admitted = await self.memory.admit(admission, lease_ms=LEASE_MS)
        if isinstance(admitted, Claimed):
            self.start(first_claim(admission, admitted))
        return Story(admission.invocation_id, handler)

    async def rest(self) -> None:
        """Return when nothing runs and nothing falls due any more, at whatever time."""
        produced = asyncio.create_task(self.outbox.run())
        try:
            for _ in range(TURNS_MAX):
                while self._working:
                    await asyncio.wait(self._working)
                # Acknowledgements begin at the end of a turn.
                await asyncio.sleep(0)
                await self.outbox.emptied()
                if self._errors:
                    raise ExceptionGroup("what was done on the side failed", self._failed())
                if self._working:
                    continue
                next_in_ms = self.sweep()
                if self._working:
                    continue
                if next_in_ms is None:
                    return
                self.clock.skip(next_in_ms)
        finally:
            produced.cancel()
            await asyncio.wait([produced])
        raise AssertionError("it gets nowhere")

    def _failed(self) -> list[Exception]:
        return [error for error in self._errors if isinstance(error, Exception)]

    async def act_out(
        self,
        handler: Handler | Callable[..., Awaitable[Any]],
        argument: object = None,
        *,
        key: str | None = None,
        raw: bytes | None = None,
    ) -> Story:
        """Play an invocation and all that comes of it, until nothing is left to do."""
        story = await self.invoke(handler, argument, key=key, raw=raw)
        await self.rest()
        return await self.look(story)

    async def look(self, story: Story) -> Story:
        """See `Stage.look`."""
        story.ends = self.ends[story.invocation_id]
        return await super().look(story)

    async def stop(self) -> None:
        """End what still runs."""
        for task in list(self._working):
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)
