"""Contract services that are virtual objects: counters, lists, maps, awakeables that somebody else resolves.

Source: names and meaning of the contract are those of Restate's conformance suite; the code is our own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from perdure.schemas.errors import TerminalError
from perdure.worker.object_context import ObjectContext, ObjectSharedContext
from perdure.worker.virtual_object import VirtualObject

VALUE = "counter"
LIST = "list"
AWAKEABLE = "id"


@dataclass(frozen=True)
class CounterUpdate:
    """What an addition did."""

    old_value: int
    new_value: int


@dataclass(frozen=True)
class Entry:
    """One entry of a map."""

    key: str
    value: str


@dataclass(frozen=True)
class CounterContract:
    """A counter and its handlers, to call them by."""

    definition: VirtualObject
    add: Callable[[Any, int], Awaitable[CounterUpdate]]
    add_then_fail: Callable[[Any, int], Awaitable[None]]
    get: Callable[[Any], Awaitable[int]]
    reset: Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class ListContract:
    """A list of texts and its handlers."""

    definition: VirtualObject
    append: Callable[[Any, str], Awaitable[None]]
    get: Callable[[Any], Awaitable[list[str]]]
    clear: Callable[[Any], Awaitable[list[str]]]


@dataclass(frozen=True)
class MapContract:
    """A map of texts and its handlers."""

    definition: VirtualObject
    set: Callable[[Any, Entry], Awaitable[None]]
    get: Callable[[Any, str], Awaitable[str]]
    clear_all: Callable[[Any], Awaitable[list[Entry]]]


def counter_contract(name: str, *, state_preload: bool) -> CounterContract:
    """Make the Counter under some name, its state at hand when an attempt begins or read when it is asked for."""
    definition = VirtualObject(name, state_preload=state_preload)

    @definition.handler()
    async def add(ctx: ObjectContext, addend: int) -> CounterUpdate:
        old = await ctx.get(VALUE, type_hint=int) or 0
        ctx.set(VALUE, old + addend)
        return CounterUpdate(old, old + addend)

    @definition.handler("addThenFail")
    async def add_then_fail(ctx: ObjectContext, addend: int) -> None:
        old = await ctx.get(VALUE, type_hint=int) or 0
        ctx.set(VALUE, old + addend)
        raise TerminalError(ctx.key())

    @definition.handler(kind="shared")
    async def get(ctx: ObjectSharedContext) -> int:
        return await ctx.get(VALUE, type_hint=int) or 0

    @definition.handler()
    async def reset(ctx: ObjectContext) -> None:
        ctx.clear(VALUE)

    return CounterContract(definition, add, add_then_fail, get, reset)


def list_contract(name: str, *, state_preload: bool) -> ListContract:
    """Make the ListObject under some name."""
    definition = VirtualObject(name, state_preload=state_preload)

    @definition.handler()
    async def append(ctx: ObjectContext, value: str) -> None:
        ctx.set(LIST, [*(await ctx.get(LIST, type_hint=list[str]) or []), value])

    @definition.handler()
    async def get(ctx: ObjectContext) -> list[str]:
        return await ctx.get(LIST, type_hint=list[str]) or []

    @definition.handler()
    async def clear(ctx: ObjectContext) -> list[str]:
        held: list[str] = await ctx.get(LIST, type_hint=list[str]) or []
        ctx.clear(LIST)
        return held

    return ListContract(definition, append, get, clear)


def map_contract(name: str, *, state_preload: bool) -> MapContract:
    """Make the MapObject under some name."""
    definition = VirtualObject(name, state_preload=state_preload)

    @definition.handler()
    async def set(ctx: ObjectContext, entry: Entry) -> None:  # the contract's name
        ctx.set(entry.key, entry.value)

    @definition.handler()
    async def get(ctx: ObjectContext, key: str) -> str:
        return await ctx.get(key, type_hint=str) or ""

    @definition.handler("clearAll")
    async def clear_all(ctx: ObjectContext) -> list[Entry]:
        entries = [Entry(key, await ctx.get(key, type_hint=str) or "") for key in await ctx.state_keys()]
        ctx.clear_all()
        return entries

    return MapContract(definition, set, get, clear_all)


counter = counter_contract("Counter", state_preload=True)
lazy_counter = counter_contract("LazyCounter", state_preload=False)
list_object = list_contract("ListObject", state_preload=True)
lazy_list_object = list_contract("LazyListObject", state_preload=False)
map_object = map_contract("MapObject", state_preload=True)
lazy_map_object = map_contract("LazyMapObject", state_preload=False)

awakeable_holder = VirtualObject("AwakeableHolder")


@awakeable_holder.handler("hold")
async def hold(ctx: ObjectContext, awakeable: str) -> None:
    """Remember the id of an awakeable."""
    ctx.set(AWAKEABLE, awakeable)


@awakeable_holder.handler("hasAwakeable")
async def has_awakeable(ctx: ObjectContext) -> bool:
    """Whether there is one."""
    return await ctx.get(AWAKEABLE) is not None


@awakeable_holder.handler("unlock")
async def unlock(ctx: ObjectContext, payload: str) -> None:
    """Resolve it."""
    awakeable = await ctx.get(AWAKEABLE, type_hint=str)
    if awakeable is None:
        raise TerminalError("No awakeable is registered", 404)
    ctx.resolve_awakeable(awakeable, payload)
    ctx.clear(AWAKEABLE)


OBJECTS = (
    counter.definition,
    lazy_counter.definition,
    list_object.definition,
    lazy_list_object.definition,
    map_object.definition,
    lazy_map_object.definition,
    awakeable_holder,
)
