"""What commands beyond steps and state leave in the journal: `perdure.worker.attempt_commands`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.journal.promised import ALREADY, COMPLETED
from perdure.journal.store import Lease, Store
from perdure.schemas.commands import (
    COMPLETE_PROMISE,
    PEEK,
    Attach,
    Awakeable,
    Call,
    CancelOther,
    Lookup,
    PromiseWait,
    Resolve,
    Send,
    SignalWait,
)
from perdure.schemas.entries import Completion, Failure, Success
from perdure.schemas.errors import GapError, TerminalError
from perdure.schemas.ids import InvocationId, awakeable_id, id_of_call, id_of_workflow
from perdure.worker.attempt_commands import ABSENT
from perdure.worker.context import Context
from perdure.worker.departures import Completed, Released
from perdure.worker.object_context import WorkflowContext, WorkflowSharedContext
from perdure.worker.sealing import Sealer
from perdure.worker.service import Service
from perdure.worker.workflow import Workflow
from tests.worker.attempt_stage import Story
from tests.worker.ensemble import Ensemble
from tests.worker.troupe import DAY, Troupe, perform

ID = InvocationId("inv_" + "0" * 27)
ONE = Success(b"1")


def lookups(story: Story) -> list[tuple[int, str, str, bool, Any]]:
    """The recorded lookups: index, type, name, whether eager, outcome."""
    found = sorted((entry for entry in story.entries if isinstance(entry, Lookup)), key=lambda one: one.command_index)
    return [(entry.command_index, entry.type, entry.name, entry.eager, entry.outcome) for entry in found]


async def test_what_a_call_leaves(ensemble: Ensemble, troupe: Troupe) -> None:
    """One command, and its completion with the outcome; the id is that of the place."""

    async def play(ctx: Context) -> None:
        await ctx.service_call(troupe.say, None, "key", {"h": "1"})
        await ctx.object_call(troupe.add, "k", 1)
        await ctx.workflow_call(troupe.give, "k", 1)
        await ctx.generic_call("W", "main", b"1", "k")

    story = await perform(ensemble, troupe, play)
    calls = [entry for entry in story.entries if isinstance(entry, Call)]
    assert [(call.command_index, call.service, call.handler, call.key) for call in calls] == [
        (0, "S", "say", None),
        (1, "O", "add", "k"),
        (2, "W", "give", "k"),
        (3, "W", "main", "k"),
    ]
    assert (calls[0].idempotency_key, calls[0].headers, calls[0].value) == ("key", (("h", b"1"),), b"")
    assert [call.invocation_id for call in calls[1:]] == [
        id_of_call("O", "k", parent=story.invocation_id, command_index=1),
        id_of_call("W", "k", parent=story.invocation_id, command_index=2),
        id_of_workflow("W", "k"),
    ]
    completions = [entry for entry in story.entries if isinstance(entry, Completion)]
    assert [(entry.command_index, entry.outcome) for entry in completions] == [
        (0, Success(b'"said"')),
        (1, ONE),
        (2, Success(b"null")),
        (3, Success(b"2")),
    ]


async def test_what_other_commands_leave(ensemble: Ensemble, troupe: Troupe) -> None:
    """Each is one entry at its place, with what it needs to be done again."""

    async def play(ctx: Context) -> None:
        own = ctx.request().id
        ctx.generic_send("S", "say", b"", send_delay=timedelta(seconds=1))
        ctx.cancel_invocation(ID)
        name, completed = ctx.awakeable()
        assert name == awakeable_id(InvocationId(own), 2)
        ctx.resolve_awakeable(name, 1)
        ctx.reject_awakeable(awakeable_id(ID, 5), "no", 418)
        signal = ctx.signal("s")
        ctx.resolve_signal(own, "s", 1)
        ctx.reject_signal(ID, "t", "no", 418)
        attached = ctx.attach_invocation(ID)
        with pytest.raises(TerminalError):
            await attached
        assert [await completed, await signal] == [1, 1]

    story = await perform(ensemble, troupe, play)
    entries = {
        type(entry).__name__ + str(entry.command_index): entry
        for entry in story.entries
        if isinstance(entry, Send | CancelOther | Awakeable | Resolve | SignalWait | Attach)
    }
    at_ms = {name: entry.at_ms for name, entry in entries.items()}
    own = story.invocation_id
    sent = entries["Send0"]
    assert isinstance(sent, Send)
    assert (sent.not_before_ms, sent.value) == (sent.at_ms + 1_000, b"")
    assert [entry for name, entry in entries.items() if name != "Send0"] == [
        CancelOther(1, at_ms["CancelOther1"], ID),
        Awakeable(2, at_ms["Awakeable2"]),
        Resolve(3, at_ms["Resolve3"], own, 2, "", ONE),
        Resolve(4, at_ms["Resolve4"], ID, 5, "", Failure(418, "no")),
        SignalWait(5, at_ms["SignalWait5"], "s"),
        Resolve(6, at_ms["Resolve6"], own, -1, "s", ONE),
        Resolve(7, at_ms["Resolve7"], ID, -1, "t", Failure(418, "no")),
        Attach(8, at_ms["Attach8"], ID),
    ]


async def test_what_promises_leave(ensemble: Ensemble) -> None:
    """A wait is a command with a completion; looking and completing are recorded with what came of them."""
    flow = Workflow("W")

    @flow.main()
    async def main(ctx: WorkflowContext) -> None:
        promise = ctx.promise("p")
        await promise.peek()
        await promise.resolve(1)
        await promise
        await promise.peek()
        with pytest.raises(TerminalError):
            await promise.reject("no")

    ensemble.cast(flow)
    story = await ensemble.act_out(main, key="k")
    assert story.status == "completed"
    assert lookups(story) == [
        (0, PEEK, "p", False, ABSENT),
        (1, COMPLETE_PROMISE, "p", False, Success(b"null")),
        (3, PEEK, "p", False, ONE),
        (4, COMPLETE_PROMISE, "p", False, ALREADY),
    ]
    waits = [(entry.command_index, entry.name) for entry in story.entries if isinstance(entry, PromiseWait)]
    assert waits == [(2, "p")]
    answers = [entry.outcome for entry in story.entries if isinstance(entry, Completion)]
    assert answers == [ONE]
    kept = await ensemble.memory.peek_promise("W/k", "p")
    assert kept is not None
    assert kept.by == f"{story.invocation_id}:1"


class Forgetting:
    """The store in memory, which loses the first completion of a promise to a failover, behind its answer."""

    def __init__(self, memory: MemoryStore, *, loses: bool) -> None:
        self._memory = memory
        self._loses = loses
        self._gap = not loses
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    async def complete_promise(self, target: str, name: str, outcome: Any, *, by: str) -> Any:
        """See `Store.complete_promise`."""
        self.asked.append(by)
        if self._loses and len(self.asked) == 1:
            return True, []
        return await self._memory.complete_promise(target, name, outcome, by=by)

    def append(self, lease: Lease, entries: Sequence[Any], **about: Any) -> Any:
        """See `Store.append`; where nothing else is lost, the write that says what came of it is."""
        if self._gap and any(isinstance(entry, Lookup) for entry in entries):
            self._gap = False
            refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            refused.set_exception(GapError("lost"))
            return refused
        return self._memory.append(lease, entries, **about)


@pytest.mark.parametrize("loses", [True, False])
@pytest.mark.parametrize("awaited", [True, False])
async def test_a_completion_that_a_failover_lost_is_made_again(ensemble: Ensemble, loses: bool, awaited: bool) -> None:
    """The handler's next attempt asks again under the same name, and is not told that it came late by its own."""
    flow = Workflow("W")

    @flow.main()
    async def main(ctx: WorkflowContext) -> int:
        return await ctx.promise("p", type_hint=int)

    @flow.handler()
    async def give(ctx: WorkflowSharedContext) -> None:
        given = ctx.promise("p").resolve(1)
        if awaited:
            await given

    store = Forgetting(ensemble.memory, loses=loses)
    ensemble.store = cast("Store", store)
    ensemble.cast(flow)
    waits = await ensemble.invoke(main, key="k")
    gives = await ensemble.act_out(give, key="k")
    waits = await ensemble.look(waits)
    assert waits.result == 1
    assert [type(end) for end in gives.ends] == [Released, Completed]
    assert store.asked == [f"{gives.invocation_id}:0"] * 2
    assert lookups(gives) == [(0, COMPLETE_PROMISE, "p", False, COMPLETED)]


class Reversing:
    """A payload codec."""

    applies_to_failures = True

    def encode(self, payload: bytes) -> bytes:
        """Back to front."""
        return payload[::-1]

    def decode(self, payload: bytes) -> bytes:
        """Front to back."""
        return payload[::-1]


SECRET = "a secret"


async def test_a_codec_seals_all_that_leaves(ensemble: Ensemble) -> None:
    """Arguments, results, state, promises, awakeables and signals, and failures of all of them."""
    ensemble.sealer = Sealer(Reversing())
    flow, service = Workflow("W", state_preload=False), Service("S")

    @service.handler()
    async def echo(ctx: Context, text: str) -> str:
        if text == "fail":
            raise TerminalError(SECRET)
        return text

    @flow.main()
    async def main(ctx: WorkflowContext) -> list[Any]:
        absent = [await ctx.get("absent"), await ctx.promise("open").peek()]
        ctx.set("a", SECRET)
        name, awakened = ctx.awakeable()
        ctx.resolve_awakeable(name, SECRET)
        ctx.resolve_signal(ctx.request().id, "s", SECRET)
        ctx.service_send(echo, SECRET)
        await ctx.promise("p").resolve(SECRET)
        await ctx.promise("q").reject(SECRET)
        seen = [await ctx.get("a"), await awakened, await ctx.signal("s"), await ctx.promise("p")]
        seen += [await ctx.promise("p").peek(), await ctx.service_call(echo, SECRET), await ctx.state_keys()]
        for failing in (ctx.service_call(echo, "fail"), ctx.promise("q"), ctx.promise("q").peek()):
            with pytest.raises(TerminalError) as caught:
                await failing
            seen.append(caught.value.message)
        return absent + seen

    ensemble.cast(flow, service)
    sealer = ensemble.sealer
    story = await ensemble.invoke(main, key="k")
    await ensemble.rest()
    await ensemble.look(story)
    assert sealer.open(story.raw) == b'[null,null,%s,["a"],%s]' % (
        b",".join([b'"a secret"'] * 6),
        b",".join([b'"a secret"'] * 3),
    )
    for row in story.journal:
        assert SECRET not in repr(row.entry)
    assert SECRET.encode() not in (await ensemble.memory.read_value("W/k", "a") or b"")
    for name in "pq":
        promise = await ensemble.memory.peek_promise("W/k", name)
        assert promise is not None
        assert SECRET not in repr(promise.outcome)


async def test_a_callee_that_is_called_again_after_a_crash_is_the_same(ensemble: Ensemble, troupe: Troupe) -> None:
    """A worker that dies while its handler waits loses no call and makes none twice."""
    begun = asyncio.Event()

    async def play(ctx: Context) -> str:
        call = ctx.service_call(troupe.linger, "text")
        await ctx.run("step", begun.set)
        return await call

    caller = Service("Caller")
    handler = caller.handler("play")(play)
    ensemble.cast(*troupe.definitions, caller)
    story = await ensemble.invoke(handler)
    await begun.wait()
    await ensemble.stop()
    before_ms = ensemble.clock.now_ms()
    await ensemble.rest()
    assert (await ensemble.look(story)).result == "text"
    assert troupe.ran["lingered"] == 1
    assert ensemble.clock.now_ms() - before_ms >= DAY / timedelta(milliseconds=1)
    assert len([entry for entry in story.entries if isinstance(entry, Call)]) == 1
