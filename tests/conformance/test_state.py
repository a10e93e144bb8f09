"""State of objects: read, write, clear; at hand or read lazily; edited by people."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.schemas.errors import TerminalError
from tests.waiting import PATIENCE, wait_until

from .catalogue import verifies
from .contract_objects import (
    CounterContract,
    CounterUpdate,
    Entry,
    ListContract,
    MapContract,
    counter,
    lazy_counter,
    lazy_list_object,
    lazy_map_object,
    list_object,
    map_object,
)
from .contract_services import ManyCallRequest, ProxyRequest, proxy_many_calls
from .core_cases import waits_for_ever
from .core_state import (
    fill_state,
    read_state,
    walk_through_lazy_state,
    walk_through_partial_state,
    walk_through_state,
    writes_shared,
)
from .deployed import Deployed

COUNTERS = [pytest.param(counter, id="eager"), pytest.param(lazy_counter, id="lazy")]
LISTS = [pytest.param(list_object, id="eager"), pytest.param(lazy_list_object, id="lazy")]
MAPS = [pytest.param(map_object, id="eager"), pytest.param(lazy_map_object, id="lazy")]


@pytest.mark.parametrize("contract", COUNTERS)
@verifies("State", "add")
async def test_read_modify_write(deployed: Deployed, contract: CounterContract) -> None:
    """Each addition sees what the one before wrote, also when many come at once."""
    key = deployed.key()
    assert await deployed.call(contract.add, 1, key=key) == CounterUpdate(0, 1)
    assert await deployed.call(contract.add, 2, key=key) == CounterUpdate(1, 3)
    await asyncio.gather(*(deployed.call(contract.add, 1, key=key) for _ in range(20)))
    assert await deployed.call(contract.get, key=key) == 23
    await deployed.call(contract.reset, key=key)
    assert await deployed.call(contract.get, key=key) == 0


@pytest.mark.parametrize("contract", COUNTERS)
@verifies("State", "proxyOneWayAdd")
async def test_many_sends_to_one_object(deployed: Deployed, contract: CounterContract) -> None:
    """Every one of them is counted."""
    key, service = deployed.key(), contract.definition.name
    requests = [ManyCallRequest(ProxyRequest(service, "add", "1", key), one_way=True) for _ in range(30)]
    await deployed.call(proxy_many_calls, requests)

    async def all_counted() -> bool:
        return await deployed.call(contract.get, key=key) == 30

    await wait_until(all_counted)


@pytest.mark.parametrize("contract", MAPS)
@verifies("State", "listStateAndClearAll")
async def test_clearing_everything_is_for_one_key(deployed: Deployed, contract: MapContract) -> None:
    """All entries of one object are listed and cleared; another object keeps its own."""
    mine, other = deployed.key(), deployed.key()
    entries = [Entry(f"name{number}", f"value{number}") for number in range(3)]
    for entry in entries:
        await deployed.call(contract.set, entry, key=mine)
        await deployed.call(contract.set, entry, key=other)
    assert await deployed.call(contract.clear_all, key=mine) == entries
    assert await deployed.call(contract.get, "name0", key=mine) == ""
    assert await deployed.call(contract.get, "name0", key=other) == "value0"


@pytest.mark.parametrize("contract", LISTS)
@verifies("State", "clear")
async def test_one_value_is_cleared(deployed: Deployed, contract: ListContract) -> None:
    """What a handler clears is gone for the next one."""
    key = deployed.key()
    for value in ("a", "b"):
        await deployed.call(contract.append, value, key=key)
    assert await deployed.call(contract.clear, key=key) == ["a", "b"]
    assert await deployed.call(contract.get, key=key) == []


@verifies("UserErrors", "setStateThenFailShouldPersistState")
async def test_state_outlives_a_failure(deployed: Deployed) -> None:
    """What was written before a TerminalError stays."""
    key = deployed.key()
    with pytest.raises(TerminalError, match=key):
        await deployed.call(counter.add_then_fail, 5, key=key)
    assert await deployed.call(counter.get, key=key) == 5


STATE: dict[str, Any] = {"a": "old", "b": [1, 2]}
WALK = [
    *("old", None, ["a", "b"]),
    *("new", None, ["a"]),
    *("new", None, None, ["a", "c"]),
    *(None, []),
    *({"nested": [1, 2.5, "three"]}, ["d"]),
]


@pytest.mark.parametrize("walk", [walk_through_state, walk_through_lazy_state, walk_through_partial_state])
@verifies("state", "eager", "lazy", "partial", "clearAll")
async def test_a_walk_through_state(deployed: Deployed, walk: Any) -> None:
    """Reading sees what was written and cleared before, whatever was at hand when the attempt began."""
    key = deployed.key()
    await deployed.call(fill_state, STATE, key=key)
    assert await deployed.call(walk, key=key) == WALK
    assert await deployed.call(read_state, key=key) == {"d": {"nested": [1, 2.5, "three"]}}


@verifies("state", "large")
async def test_large_state_is_read_when_asked_for(deployed: Deployed) -> None:
    """More than comes with a claim, by bytes and by names."""
    key = deployed.key()
    values: dict[str, Any] = {"a": "old", "b": "x" * 100_000} | {f"n{number}": number for number in range(201)}
    await deployed.call(fill_state, values, key=key)
    walked = await deployed.call(walk_through_state, key=key)
    assert walked[:2] == ["old", None]
    assert walked[2] == sorted(values)
    assert walked[-3:] == [[], {"nested": [1, 2.5, "three"]}, ["d"]]


@verifies("state", "sharedHandlersDoNotWrite")
async def test_a_shared_handler_may_not_write(deployed: Deployed) -> None:
    """The write raises at the call, and nothing is written."""
    key = deployed.key()
    assert await deployed.call(writes_shared, key=key) == "UsageError"
    assert await deployed.call(read_state, key=key) == {}


@verifies("StatePatchingTest", "mutateState")
async def test_people_edit_state(deployed: Deployed) -> None:
    """A handler sees what was edited; while an exclusive one runs, editing is refused."""
    key = deployed.key()
    await deployed.call(fill_state, STATE, key=key)
    assert await deployed.outside.edit_state(f"CoreCases/{key}", {"a": None, "c": {"by": "hand"}}) is None
    assert await deployed.call(read_state, key=key) == {"b": [1, 2], "c": {"by": "hand"}}
    handle = await deployed.send(waits_for_ever, None, key=key)
    await deployed.held(key)
    assert await deployed.outside.edit_state(f"CoreCases/{key}", {"a": 1}) == handle.invocation_id
    assert await deployed.call(read_state, key=key) == {"b": [1, 2], "c": {"by": "hand"}}
    await deployed.outside.kill(handle.invocation_id)
    with pytest.raises(TerminalError):
        await handle.result(timeout=PATIENCE)
