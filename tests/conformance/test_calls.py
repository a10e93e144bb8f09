"""Handlers that call handlers, and clients that do: order, results, idempotency, headers, bytes."""

from __future__ import annotations

import itertools

import orjson
import pytest

from perdure.schemas.errors import TerminalError
from perdure.schemas.ids import new_invocation_id
from perdure.worker.clock import system_random
from tests.waiting import PATIENCE, wait_until

from .catalogue import verifies
from .contract_objects import counter, list_object
from .contract_services import (
    ManyCallRequest,
    ProxyRequest,
    echo,
    echo_headers,
    proxy_call,
    proxy_many_calls,
    proxy_one_way_call,
    raw_echo,
    uppercase_echo,
)
from .core_cases import attaches, call_not_awaited
from .core_failures import delayed_adds
from .deployed import Deployed


@pytest.mark.parametrize("one_way", [*itertools.product((False, True), repeat=3)], ids=str)
@verifies("CallOrdering", "ordering")
async def test_calls_and_sends_to_one_object_keep_their_order(deployed: Deployed, one_way: tuple[bool, ...]) -> None:
    """Three calls or sends in a row, none awaited in between, reach the object in program order."""
    key = deployed.key()
    requests = [
        ManyCallRequest(ProxyRequest("ListObject", "append", f'"{number}"', key), sent, not sent)
        for number, sent in enumerate(one_way)
    ]
    await deployed.call(proxy_many_calls, requests)

    async def all_there() -> bool:
        return len(await deployed.call(list_object.get, key=key)) == 3

    await wait_until(all_there)
    assert await deployed.call(list_object.get, key=key) == ["0", "1", "2"]


@verifies("ServiceToServiceCommunication", "regularCall")
@verifies("calls", "resultsComeBack")
async def test_a_call_returns_what_the_callee_did(deployed: Deployed) -> None:
    """The callee's bytes are the caller's."""
    assert await deployed.call(proxy_call, ProxyRequest("Counter", "add", "3", deployed.key())) == (
        '{"old_value":0,"new_value":3}'
    )


@verifies("ServiceToServiceCommunication", "oneWayCall")
async def test_a_send_has_its_effect(deployed: Deployed) -> None:
    """What was sent runs, though nobody waits for it, and has the id that its sender was told."""
    key = deployed.key()
    invocation_id = await deployed.call(proxy_one_way_call, ProxyRequest("Counter", "add", "3", key))
    await deployed.outside.becomes(invocation_id, "completed")
    assert await deployed.call(counter.get, key=key) == 3


@verifies("ServiceToServiceCommunication", "oneWayCallWithIdempotencyKey")
async def test_sends_with_one_idempotency_key_have_their_effect_once(deployed: Deployed) -> None:
    """Repeated sends with one key are one invocation, of one id."""
    key = deployed.key()
    request = ProxyRequest("Counter", "add", "2", key, idempotency_key=f"once-{key}")
    ids = {await deployed.call(proxy_one_way_call, request) for _ in range(3)}
    assert len(ids) == 1
    await deployed.outside.becomes(ids.pop(), "completed")
    assert await deployed.call(counter.get, key=key) == 2


@verifies("ServiceToServiceCommunication", "callWithIdempotencyKey")
async def test_calls_with_one_idempotency_key_get_one_result(deployed: Deployed) -> None:
    """The first runs; all get its result."""
    key = deployed.key()
    request = ProxyRequest("Counter", "add", "2", key, idempotency_key=f"once-{key}")
    answers = [orjson.loads(await deployed.call(proxy_call, request)) for _ in range(3)]
    assert answers == [{"old_value": 0, "new_value": 2}] * 3
    assert await deployed.call(counter.get, key=key) == 2


@verifies("ServiceToServiceCommunication", "oneWayCallWithDelay")
async def test_delays_of_sends_to_one_object_pass_side_by_side(deployed: Deployed) -> None:
    """A delay passes before the object's queue: ten of them take as long as one, and the object is free meanwhile."""
    key = deployed.key()
    ids = await deployed.call(delayed_adds, key)
    for invocation_id in ids:
        await deployed.outside.becomes(invocation_id, "scheduled", "completed")
    await deployed.call(counter.reset, key=key)

    async def all_added() -> bool:
        return await deployed.call(counter.get, key=key) == 10

    # One after the other they would take 15 seconds.
    await wait_until(all_added, timeout_s=12, description="ten delayed additions were made")


@verifies("Ingress", "headersPassThrough")
async def test_headers_reach_the_handler(deployed: Deployed) -> None:
    """What a client sends along is in `ctx.request().headers`."""
    handle = await deployed.send(echo_headers, headers={"x-my-header": "a value"})
    assert (await handle.result(timeout=PATIENCE))["x-my-header"] == "a value"


@verifies("Ingress", "rawHandler")
async def test_bytes_go_through_as_they_are(deployed: Deployed) -> None:
    """A handler of bytes gets what was sent, and its callers what it returned."""
    text = '  [1,2 ,"\\u00e4"] '
    assert await deployed.call(proxy_call, ProxyRequest("TestUtilsService", "rawEcho", text)) == text
    assert await deployed.call(raw_echo, b'{"raw":1}') == b'{"raw":1}'


@verifies("input_output", "values")
async def test_arguments_and_results_are_values(deployed: Deployed) -> None:
    """What goes in comes out, whatever text it is."""
    for text in ("", "plain", 'quotes " and \\', "ümläut 🎈", "x" * 10_000):
        assert await deployed.call(echo, text) == text
    assert await deployed.call(uppercase_echo, "a") == "A"


@verifies("IngressTest", "idempotentInvokeVirtualObject", "idempotentInvokeService", "idempotentSend")
async def test_a_clients_idempotency_key_makes_one_invocation(deployed: Deployed) -> None:
    """Repeats with one key find the first invocation, of objects and of services."""
    key = deployed.key()
    handles = [await deployed.send(counter.add, 2, key=key, idempotency_key=f"mine-{key}") for _ in range(3)]
    assert len({handle.invocation_id for handle in handles}) == 1
    results = [await handle.result(timeout=PATIENCE) for handle in handles]
    assert {(update.old_value, update.new_value) for update in results} == {(0, 2)}
    assert await deployed.call(counter.get, key=key) == 2
    served = [await deployed.send(echo, text, idempotency_key=f"mine-{key}") for text in ("first", "second")]
    assert [await handle.result(timeout=PATIENCE) for handle in served] == ["first", "first"]


@verifies("IngressTest", "idempotentSendThenAttach")
async def test_an_invocation_can_be_attached_to(deployed: Deployed) -> None:
    """A handler gets the outcome of an invocation that a client made, while it runs and after."""
    key = deployed.key()
    handle = await deployed.send(echo, "attached", idempotency_key=f"attach-{key}")
    for _ in range(2):
        assert await deployed.call(attaches, handle.invocation_id, key=deployed.key()) == "attached"


@verifies("calls", "attachToNothing")
async def test_attaching_to_nothing(deployed: Deployed) -> None:
    """An invocation that is not known is a TerminalError 404."""
    nobody = new_invocation_id("TestUtilsService", None, system_random())
    with pytest.raises(TerminalError) as raised:
        await deployed.call(attaches, nobody, key=deployed.key())
    assert raised.value.status_code == 404


@verifies("async_result", "callNotAwaited")
async def test_a_call_that_is_not_awaited_is_made(deployed: Deployed) -> None:
    """The callee runs although its caller returned without waiting."""
    key = deployed.key()
    await deployed.call(call_not_awaited, key=key)

    async def appended() -> bool:
        return await deployed.call(list_object.get, key=key) == ["called"]

    await wait_until(appended)
