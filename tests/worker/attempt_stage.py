"""One invocation over the store in memory, with the engine's part played here: claim, attempt, sweep, claim ...

Deadlines between attempts are not waited for: the clock that the stage and its store share skips them. Inside an
attempt time is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import orjson

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Admission, Claim, Claimed, Due, Follow, HintDue, Store
from perdure.schemas.entries import (
    AttemptFailed,
    Cancelled,
    Completion,
    Entry,
    Failure,
    Headers,
    Input,
    Output,
    Positioned,
    Run,
    Signalled,
    Success,
)
from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import InvocationId, id_of_workflow, new_invocation_id
from perdure.worker.actions import Actions
from perdure.worker.attempt import Attempt
from perdure.worker.attempt_limits import AttemptLimits
from perdure.worker.clock import SystemClock, system_random
from perdure.worker.conclusion import run_attempt
from perdure.worker.departures import AttemptEnd, Left
from perdure.worker.handler import Handler, HandlerMode, handler_of
from perdure.worker.options import InvocationRetryPolicy
from perdure.worker.sealing import Sealer
from perdure.worker.service import Service

LEASE_MS = 10_000
DAY_MS = 86_400_000

ATTEMPTS_MAX = 200
"""Of one invocation on a stage: more is a handler that gets nowhere."""


class SkippingClock(SystemClock):
    """The machine's clock, put forward at will."""

    def __init__(self) -> None:
        self._ahead_ms = 0.0

    def skip(self, duration_ms: float) -> None:
        """Put the clock forward."""
        self._ahead_ms += duration_ms

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return super().now_ms() + int(self._ahead_ms)

    def monotonic_ms(self) -> float:
        """See `Clock.monotonic_ms`."""
        return super().monotonic_ms() + self._ahead_ms


@dataclass
class Story:
    """What became of one invocation."""

    invocation_id: InvocationId
    handler: Handler
    ends: list[AttemptEnd] = field(default_factory=list)
    status: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    journal: list[Positioned] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        """The journal without positions."""
        return [row.entry for row in self.journal]

    @property
    def steps(self) -> list[str]:
        """Names of the recorded steps, in journal order."""
        return [entry.name for entry in self.entries if isinstance(entry, Run)]

    @property
    def failures(self) -> list[str]:
        """What failed attempts said."""
        return [entry.error for entry in self.entries if isinstance(entry, AttemptFailed)]

    @property
    def raw(self) -> bytes:
        """The result's bytes; raises the failure."""
        outputs = [entry for entry in self.entries if isinstance(entry, Output)]
        assert len(outputs) == 1, f"{self.status} {self.fields.get('last_failure')}: {self.ends}"
        match outputs[0].outcome:
            case Success(value):
                return value
            case Failure() as failure:
                raise failure.to_error()

    @property
    def result(self) -> Any:
        """The result as JSON's value; raises the failure."""
        return orjson.loads(self.raw)

    @property
    def failure(self) -> TerminalError:
        """The terminal failure."""
        try:
            value = self.raw
        except TerminalError as error:
            return error
        raise AssertionError(f"it succeeded with {value!r}")


def handler_from(fn: Callable[..., Awaitable[Any]], **options: Any) -> Handler:
    """Define `fn` as a handler of a service of its own."""
    return handler_of(Service("Stage").handler("play", **options)(fn))


class Stage:
    """Plays invocations to their end. The attributes may be changed before `play`.

    Args:
        always_replay: Whether each attempt leaves after each result.
    """

    def __init__(self, *, always_replay: bool = False) -> None:
        self.always_replay = always_replay
        self.inactivity_ms = 5_000
        self.retention_ms = DAY_MS
        self.payload_bytes_max = 1_000_000
        self.sealer: Sealer | None = None
        self.journal_entries_max = 50_000
        self.journal_bytes_max = 64_000_000
        self.headers: Headers = ()
        self.idempotency_key = ""
        self.key: str | None = None
        self.mains: frozenset[tuple[str, str]] = frozenset()
        self.strict_arguments = False
        self.invocation_id: InvocationId | None = None
        self.clock = SkippingClock()
        self.memory = MemoryStore(self.clock, slots=1)
        self.store: Store = self.memory
        self.threads = ThreadPoolExecutor(8, thread_name_prefix="stage")
        self.attempt: Attempt | None = None
        self.expected_ms: list[float] = []
        self.sent: list[tuple[int, Entry]] = []
        self._random = system_random()
        self._timers: list[asyncio.TimerHandle] = []
        self._brought = 0
        self.visitors: list[Callable[[], None]] = []
        """What happens outside when the invocation waits and nothing else would wake it, one after the other."""

    def rows(self) -> list[Positioned]:
        """What stands in the journals now."""
        return [row for slot in self.memory._slots for journal in slot.journals.values() for row in journal]

    def close(self) -> None:
        """End the threads."""
        for timer in self._timers:
            timer.cancel()
        self.threads.shutdown(wait=True, cancel_futures=True)

    def send(self, origin: InvocationId, position: int, entry: Entry, *, target: str) -> None:
        """See `Outward`: on a stage nothing leaves the journal."""
        self.sent.append((position, entry))

    async def cancel_callees(self, origin: InvocationId, told: Collection[tuple[int, InvocationId]]) -> None:
        """See `Outward`: on a stage nothing leaves the journal."""

    def follow(self) -> Follow | None:
        """See `Outward`: nothing follows here."""
        return None

    def act(self, due: Sequence[Due]) -> None:
        """See `Outward`."""

    def expect(self, invocation_id: InvocationId, *, in_ms: float) -> None:
        """See `TimerSink.expect`."""
        self.expected_ms.append(in_ms)
        loop = asyncio.get_running_loop()
        # As in the engine, whose timers are no part of what a handler set.
        self._timers.append(loop.call_later(max(0.0, in_ms) / 1000 + 0.002, self.sweep, context=Context()))

    def bring(self, entry: Completion | Signalled | Cancelled) -> None:
        """Somebody outside writes into the journal of the invocation that was begun last."""
        assert self.invocation_id is not None, "nothing was begun"
        self._brought += 1
        self.memory.deliver(self.invocation_id, entry, once=f"stage:{self._brought}").result()
        if self.attempt is not None:
            self.attempt.fetch()

    def cancel(self) -> None:
        """Somebody cancels the invocation that was begun last."""
        self.bring(Cancelled(self.clock.now_ms()))

    def sweep(self) -> float | None:
        """Do what is due; returns when the next is, in ms."""
        swept = self.memory.sweep(0).result()
        for due in swept.due:
            if isinstance(due, HintDue) and self.attempt is not None:
                self.attempt.fetch()
        return swept.next_in_ms

    def begin(
        self, handler: Handler | Callable[..., Awaitable[Any]], argument: object = None, *, raw: bytes | None = None
    ) -> tuple[Story, Claim]:
        """Admit an invocation."""
        handler = handler if isinstance(handler, Handler) else handler_from(handler)
        invocation_id = self.invocation_id = new_invocation_id(handler.service, self.key, self._random)
        if handler.mode == HandlerMode.MAIN and self.key is not None:
            invocation_id = self.invocation_id = id_of_workflow(handler.service, self.key)
        value = raw if raw is not None else orjson.dumps(argument)
        first = Input(self.clock.now_ms(), "stage", self.headers, value)
        admission = Admission(
            invocation_id,
            handler.service,
            handler.name,
            self.key,
            first,
            "token",
            "stage",
            idempotency_key=self.idempotency_key,
            mode=handler.mode if handler.mode in (HandlerMode.EXCLUSIVE, HandlerMode.MAIN) else "",
        )
        admitted = self.memory.admit(admission, lease_ms=LEASE_MS).result()
        assert isinstance(admitted, Claimed)
        claim = Claim(
            admitted.lease,
            handler.service,
            handler.name,
            self.key,
            self.idempotency_key,
            0,
            first.at_ms,
            [Positioned(1, 1, first)],
            state=admitted.state,
        )
        return Story(invocation_id, handler), claim

    def new_attempt(self, handler: Handler, claim: Claim) -> Attempt:
        """Make the attempt, without running it."""
        limits = AttemptLimits(
            inactivity_ms=self.inactivity_ms,
            retention_ms=self.retention_ms,
            journal_retention_ms=self.retention_ms,
            retry=(handler.options.invocation_retry_policy or InvocationRetryPolicy()).resolve(),
            always_replay=self.always_replay,
            journal_entries_max=self.journal_entries_max,
            journal_bytes_max=self.journal_bytes_max,
            payload_bytes_max=self.payload_bytes_max,
            strict_arguments=self.strict_arguments,
            sealer=self.sealer,
            mains=self.mains,
        )
        return Attempt(
            claim,
            handler,
            store=self.store,
            clock=self.clock,
            threads=self.threads,
            timers=self,
            limits=limits,
            actions=Actions(),
            outward=self,
        )

    async def run(self, handler: Handler, claim: Claim) -> AttemptEnd:
        """Run one attempt in a task of its own, as the engine does."""
        self.attempt = self.new_attempt(handler, claim)
        try:
            task = asyncio.get_running_loop().create_task(run_attempt(self.attempt), context=Context())
            return await task
        finally:
            self.attempt = None

    async def next_claim(self, story: Story) -> Claim | None:
        """Skip to the next deadline that makes the invocation ready, and claim it; `None` where there is none."""
        while True:
            next_in_ms = self.sweep()
            summary = await self.memory.read_invocation(story.invocation_id)
            assert summary is not None
            if summary.fields["status"] == "ready":
                return await self.memory.claim(
                    story.invocation_id,
                    int(summary.fields["epoch"]),
                    token=f"token-{summary.fields['epoch']}",
                    worker="stage",
                    lease_ms=LEASE_MS,
                    at_ms=self.clock.now_ms(),
                )
            if summary.fields["status"] == "suspended" and self.visitors:
                self.visitors.pop(0)()
                continue
            if next_in_ms is None or summary.fields["status"] in ("completed", "paused"):
                return None
            self.clock.skip(next_in_ms)

    async def go_on(self, story: Story, claim: Claim | None) -> Story:
        """Play from a claim to the end, or until it is paused."""
        while claim is not None:
            assert len(story.ends) < ATTEMPTS_MAX, f"it gets nowhere: {story.ends[-3:]}"
            story.ends.append(await self.run(story.handler, claim))
            claim = await self.next_claim(story)
        return await self.look(story)

    async def play(
        self, handler: Handler | Callable[..., Awaitable[Any]], argument: object = None, *, raw: bytes | None = None
    ) -> Story:
        """Admit an invocation and play it to its end, or until it is paused."""
        story, claim = self.begin(handler, argument, raw=raw)
        return await self.go_on(story, claim)

    async def look(self, story: Story) -> Story:
        """Read what the store holds now, and check what always holds."""
        summary = await self.memory.read_invocation(story.invocation_id)
        assert summary is not None
        story.fields = summary.fields
        story.status = summary.fields["status"]
        story.journal = await self.memory.read_journal(story.invocation_id)
        recorded = [entry.command_index for entry in story.entries if isinstance(entry, Run)]
        assert len(recorded) == len(set(recorded)), "a completed step was recorded twice"
        assert [row.position for row in story.journal] == list(range(1, len(story.journal) + 1))
        if story.status == "completed":
            assert isinstance(story.entries[-1], Output), "the outcome is the last word"
        return story


def paused_reason(story: Story) -> str:
    """Why a story is paused."""
    end = story.ends[-1]
    assert isinstance(end, Left), end
    assert end.status == "paused", end
    assert story.status == "paused"
    return end.reason
