"""Topics that somebody else writes to: each record invokes its handler once, by key, in order, with its headers."""

from __future__ import annotations

import asyncio

from tests.waiting import PATIENCE, wait_until

from .catalogue import verifies
from .contract_objects import counter, list_object
from .contract_services import block_and_wait, get_state, proxy_one_way_call, unblock
from .core_records import keep, kept
from .deployed import Deployed


@verifies("KafkaTest", "callObjectHandler")
async def test_records_invoke_an_object(deployed: Deployed) -> None:
    """A record's key is the object's; each is counted once."""
    key, other = deployed.key(), deployed.key()
    for addend in (1, 2, 3):
        await deployed.feed(counter.add, addend, key=key)
        await deployed.feed(counter.add, 10 * addend, key=other)
    await _counts(deployed, key, 6)
    await _counts(deployed, other, 60)


@verifies("KafkaTest", "callServiceHandler")
async def test_records_without_a_key_invoke_a_service(deployed: Deployed) -> None:
    """A service needs no key; what its handler sends for each record takes effect once."""
    key = deployed.key()
    for addend in ("1", "2", "3"):
        request = {"service": "Counter", "handler": "add", "message": addend, "key": key}
        await deployed.feed(proxy_one_way_call, request)
    await _counts(deployed, key, 6)


@verifies("KafkaTest", "callWorkflowHandler")
async def test_a_record_submits_a_workflow(deployed: Deployed) -> None:
    """A record's key is the workflow's, whose run is one: a second record finds it and changes nothing."""
    key = deployed.key()
    await deployed.feed(block_and_wait, "Till", key=key)
    await _began(deployed, key, "Till")
    await deployed.feed(block_and_wait, "Another", key=key)
    await deployed.call(unblock, "done", key=key)
    assert await deployed.client.workflow_run(block_and_wait, key).result(timeout=PATIENCE) == "done"
    assert await deployed.call(get_state, key=key) == "Till"


@verifies("KafkaTest", "callSharedWorkflowHandler")
async def test_a_record_reaches_a_running_workflow(deployed: Deployed) -> None:
    """A shared handler is invoked beside the run, and resolves with the record's value what that waits for."""
    key = deployed.key()
    submitted = await deployed.submit(block_and_wait, "Francesco", key=key)
    await _began(deployed, key, "Francesco")
    await deployed.feed(unblock, "Till", key=key)
    assert await deployed.result(submitted) == "Till"


@verifies("subscriptions", "orderOfKeys")
async def test_records_of_a_key_are_in_order(deployed: Deployed) -> None:
    """However the records of many keys are mixed, each object takes its own in the order in which they were written."""
    keys = [deployed.key() for _ in range(5)]
    values = [f"value{number}" for number in range(10)]
    for value in values:
        await asyncio.gather(*(deployed.feed(list_object.append, value, key=key) for key in keys))

    async def all_there(key: str) -> bool:
        return len(await deployed.call(list_object.get, key=key)) == len(values)

    for key in keys:
        await wait_until(lambda key=key: all_there(key), description=f"{key} has its records")
        assert await deployed.call(list_object.get, key=key) == values


@verifies("subscriptions", "headersAndSource")
async def test_records_come_with_headers_topic_and_key(deployed: Deployed) -> None:
    """The handler reads the record's headers, and of which topic and key it was."""
    key, topic = deployed.key(), deployed.topics[keep]
    await deployed.feed(keep, {"total": 1.5}, key=key, headers={"trace": "a-1", "tenant": "blå"})
    await deployed.feed(keep, None, key=key)
    await wait_until(lambda: _kept(deployed, key, 2), description="both records are kept")
    assert await deployed.call(kept, key=key) == [
        [{"total": 1.5}, {"trace": "a-1", "tenant": "blå"}, topic, key],
        [None, {}, topic, key],
    ]


async def _counts(deployed: Deployed, key: str, number: int) -> None:
    """Wait until a counter says so; one that said more would never say so again."""

    async def counted() -> bool:
        return await deployed.call(counter.get, key=key) == number

    await wait_until(counted, description=f"Counter/{key} is {number}")


async def _began(deployed: Deployed, key: str, submitted: str) -> None:
    async def began() -> bool:
        return await deployed.call(get_state, key=key) == submitted

    await wait_until(began, description=f"BlockAndWaitWorkflow/{key} runs")


async def _kept(deployed: Deployed, key: str, number: int) -> bool:
    return len(await deployed.call(kept, key=key)) == number
