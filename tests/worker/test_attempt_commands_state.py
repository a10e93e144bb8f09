"""What reads and writes of state ask of the store, and leave in the journal: `perdure.worker.attempt_commands`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.journal.memory_store import MemoryStore
from perdure.schemas.commands import (
    GET,
    STATE_KEYS,
    ClearAll,
    ClearState,
    Lookup,
    SetState,
)
from perdure.schemas.entries import Run, Success
from perdure.schemas.errors import StoreError
from perdure.worker.attempt_commands import ABSENT
from perdure.worker.object_context import ObjectContext
from perdure.worker.virtual_object import VirtualObject
from tests.worker.attempt_stage import Story
from tests.worker.ensemble import Ensemble

ONE = Success(b"1")


class Watched:
    """A store in memory that counts the reads of state, and asks `before_read` before each one.

    `after_run` is called when a step's result was appended.
    """

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self.asked: Counter[str] = Counter()
        self.before_read: Callable[[], Awaitable[object]] | None = None
        self.after_run: Callable[[], object] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def append(self, lease: Any, entries: Any, **rest: Any) -> Any:
        """See `Store.append`."""
        answer = self._memory.append(lease, entries, **rest)
        if self.after_run is not None and any(isinstance(entry, Run) for entry in entries):
            self.after_run()
        return answer

    async def _asked(self, what: str) -> None:
        self.asked[what] += 1
        if self.before_read is not None:
            await self.before_read()

    async def read_value(self, target: str, name: str) -> bytes | None:
        """See `Store.read_value`."""
        await self._asked(f"read_value {name}")
        return await self._memory.read_value(target, name)

    async def read_names(self, target: str) -> Any:
        """See `Store.read_names`."""
        await self._asked("read_names")
        return await self._memory.read_names(target)

    async def read_state(self, target: str) -> Any:
        """See `Store.read_state`."""
        await self._asked("read_state")
        return await self._memory.read_state(target)


async def play_object(
    ensemble: Ensemble, play: Any, *, before: dict[str, bytes] | None = None, **options: Any
) -> tuple[Story, Watched]:
    """Play an exclusive handler of the object `O/k`, with a state that was there before; what the store was asked."""
    store = Watched(ensemble.memory)
    ensemble.store = store
    return await play_on(ensemble, play, before=before, **options), store


async def play_on(ensemble: Ensemble, play: Any, *, before: dict[str, bytes] | None = None, **options: Any) -> Story:
    """As `play_object`, on the store that the ensemble has."""
    thing = VirtualObject("O", **options)
    handler = thing.handler("play")(play)
    ensemble.cast(thing)
    if before:
        await ensemble.memory.edit_state("O/k", list(before.items()))
    return await ensemble.act_out(handler, key="k")


def lookups(story: Story) -> list[tuple[int, str, str, bool, Any]]:
    """The recorded lookups: index, type, name, whether eager, outcome."""
    found = sorted((entry for entry in story.entries if isinstance(entry, Lookup)), key=lambda one: one.command_index)
    return [(entry.command_index, entry.type, entry.name, entry.eager, entry.outcome) for entry in found]


async def test_a_preloaded_state_is_never_asked_for(ensemble: Ensemble) -> None:
    """Its reads are recorded where they stand, with what they saw."""

    async def play(ctx: ObjectContext) -> None:
        await ctx.get("a")
        await ctx.get("absent")
        await ctx.state_keys()
        ctx.set("a", 2)
        await ctx.get("a")
        ctx.clear("a")
        ctx.clear_all()
        await ctx.run("step", lambda: None)

    story, store = await play_object(ensemble, play, before={"a": b"1"})
    assert store.asked == {}
    assert lookups(story) == [
        (0, GET, "a", True, ONE),
        (1, GET, "absent", True, ABSENT),
        (2, STATE_KEYS, "", True, Success(b'["a"]')),
        (4, GET, "a", True, Success(b"2")),
    ]
    writes = [entry for entry in story.entries if isinstance(entry, SetState | ClearState | ClearAll)]
    assert writes == [SetState(3, "a", b"2"), ClearState(5, "a"), ClearAll(6)]


LAZY: dict[str, dict[str, Any]] = {
    "asked for": {"state_preload": False},
    "by its old name": {"enable_lazy_state": True},
    "because the state is large": {"large": b'"' + b"x" * 70_000 + b'"'},
}


@pytest.mark.parametrize("why", LAZY)
async def test_a_lazy_state_is_asked_for_name_by_name(ensemble: Ensemble, why: str) -> None:
    """Each name once, unless the attempt knows it by its own writes; names are listed without their values."""
    options = dict(LAZY[why])
    large = options.pop("large", None)
    before = {"a": b"1"} | ({} if large is None else {"large": large})

    async def play(ctx: ObjectContext) -> list[Any]:
        seen = [await ctx.get("a"), await ctx.get("absent"), await ctx.state_keys()]
        ctx.set("new", 2)
        ctx.clear("a")
        return [*seen, await ctx.get("new"), await ctx.get("a"), await ctx.state_keys()]

    story, store = await play_object(ensemble, play, before=before, **options)
    others = [] if large is None else ["large"]
    assert story.result == [1, None, ["a", *others], 2, None, [*others, "new"]]
    assert store.asked == {"read_value a": 1, "read_value absent": 1, "read_names": 2}
    assert [(index, kind, eager) for index, kind, _, eager, _ in lookups(story)] == [
        (0, GET, False),
        (1, GET, False),
        (2, STATE_KEYS, False),
        (5, GET, True),
        (6, GET, True),
        (7, STATE_KEYS, False),
    ]


async def test_a_part_that_is_preloaded_is_not_asked_for(ensemble: Ensemble) -> None:
    """Names beyond it are, and so is the list of all."""

    async def play(ctx: ObjectContext) -> list[Any]:
        return [await ctx.get("a"), await ctx.get("absent"), await ctx.get("b"), await ctx.state_keys()]

    options = {"state_preload": ["a", "absent"]}
    story, store = await play_object(ensemble, play, before={"a": b"1", "b": b"2"}, **options)
    assert story.result == [1, None, 2, ["a", "b"]]
    assert store.asked == {"read_value b": 1, "read_names": 1}


async def test_after_clear_all_nothing_is_asked_for(ensemble: Ensemble) -> None:
    """The attempt knows that there is nothing but what it writes."""

    async def play(ctx: ObjectContext) -> list[Any]:
        ctx.clear_all()
        ctx.set("b", 2)
        return [await ctx.get("a"), await ctx.get("b"), await ctx.state_keys()]

    story, store = await play_object(ensemble, play, before={"a": b"1"}, state_preload=False)
    assert story.result == [None, 2, ["b"]]
    assert store.asked == {}


@pytest.mark.parametrize("preload", [True, False])
async def test_a_replay_reads_what_was_recorded(ensemble: Ensemble, preload: bool) -> None:
    """Whatever people have made of the state since."""
    attempts: list[list[Any]] = []

    async def play(ctx: ObjectContext) -> list[Any]:
        seen = [await ctx.get("a"), await ctx.get("absent"), await ctx.state_keys()]
        await ctx.run("step", lambda: None)
        attempts.append(seen)
        await ensemble.memory.edit_state("O/k", [("a", b"9"), ("absent", b"9")], force=True)
        if len(attempts) < 3:
            raise ValueError("so that there is a replay")
        return seen

    story, _ = await play_object(ensemble, play, before={"a": b"1"}, state_preload=preload)
    assert story.result == [1, None, ["a"]]
    assert attempts == [[1, None, ["a"]]] * len(attempts)
    assert len(attempts) >= 3


READS: dict[str, tuple[Any, Any]] = {
    "get": (lambda ctx: ctx.get("a"), 1),
    "state_keys": (lambda ctx: ctx.state_keys(), ["a"]),
}
CHANGES: dict[str, Callable[[Any], object]] = {
    "set": lambda ctx: [ctx.set(name, 2) for name in "ab"],
    "clear": lambda ctx: ctx.clear("a"),
    "clear_all": lambda ctx: ctx.clear_all(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", READS)
async def test_a_read_does_not_see_what_is_written_after_it(ensemble: Ensemble, read: str, change: str) -> None:
    """Although the store answers it only after the handler has written, and something else was recorded meanwhile."""
    store = Watched(ensemble.memory)
    recorded = asyncio.Event()
    store.before_read = recorded.wait
    store.after_run = recorded.set
    ensemble.store = store
    use, expected = READS[read]

    async def play(ctx: ObjectContext) -> Any:
        reading = use(ctx)
        CHANGES[change](ctx)
        await ctx.run("step", lambda: None)
        return await reading

    story = await play_on(ensemble, play, before={"a": b"1"}, state_preload=False)
    assert story.result == expected
    state = {"set": {"a": b"2", "b": b"2"}, "clear": {}, "clear_all": {}}
    assert await ensemble.memory.read_state("O/k") == state[change]


@pytest.mark.parametrize("read", READS)
async def test_a_read_that_a_crash_cut_off_sees_no_later_write(ensemble: Ensemble, read: str) -> None:
    """The attempt that comes after the crash asks again, and nothing that followed the read was written before."""
    store = Watched(ensemble.memory)
    recorded, answers = asyncio.Event(), asyncio.Event()
    store.before_read = answers.wait
    store.after_run = recorded.set
    ensemble.store = store
    use, expected = READS[read]

    async def play(ctx: ObjectContext) -> Any:
        reading = use(ctx)
        ctx.set("a", 2)
        ctx.set("b", 2)
        await ctx.run("step", lambda: None)
        return await reading

    thing = VirtualObject("O", state_preload=False)
    handler = thing.handler("play")(play)
    ensemble.cast(thing)
    await ensemble.memory.edit_state("O/k", [("a", b"1")])
    story = await ensemble.invoke(handler, key="k")
    await recorded.wait()
    await ensemble.stop()
    assert await ensemble.memory.read_state("O/k") == {"a": b"1"}
    answers.set()
    await ensemble.rest()
    assert (await ensemble.look(story)).result == expected
    assert await ensemble.memory.read_state("O/k") == {"a": b"2", "b": b"2"}


@pytest.mark.parametrize("read", READS)
async def test_a_store_that_refuses_to_read_fails_the_attempt(ensemble: Ensemble, read: str) -> None:
    """The next one asks again; what was written behind the read waits for that."""
    store = Watched(ensemble.memory)
    ensemble.store = store
    use, expected = READS[read]

    async def refuse() -> None:
        if store.asked.total() < 3:
            raise StoreError("WRONGTYPE")

    store.before_read = refuse

    async def play(ctx: ObjectContext) -> Any:
        reading = use(ctx)
        ctx.set("b", 2)
        return await reading

    story = await play_on(ensemble, play, before={"a": b"1"}, state_preload=False)
    assert story.result == expected
    assert [text.partition(":")[0] for text in story.failures] == ["StoreError"] * 2
    assert await ensemble.memory.read_value("O/k", "b") == b"2"
