"""`docs/subscriptions.md`."""

from __future__ import annotations

from types import ModuleType

from perdure import InvocationFilter
from perdure.testing import HarnessFactory
from perdure.worker.broker import Outgoing
from perdure.worker.kafka_admin import create_topics
from perdure.worker.sender import Sender
from tests.waiting import wait_until
from tests.worker.kafka_clients import topic_plan


async def test_a_record_invokes_the_handler(perdure_harness: HarnessFactory, page: ModuleType) -> None:
    """As it is, without an envelope."""
    async with perdure_harness(page.application) as env:
        config = env.settings.kafka_config(client_id="another-team")
        await create_topics(config, [topic_plan("shop-orders")])
        async with Sender(config) as sender:
            await sender.send(Outgoing("shop-orders", None, b'{"number": 4711}'))

        async def shipped() -> bool:
            done = InvocationFilter(service="Shop", handler="order_placed", statuses=("completed",))
            found = await env.client.list_invocations(done)
            journals = [[entry.entry async for entry in env.client.journal(view.id)] for view in found.invocations]
            return any("4711, which stands at shop-orders" in str(journal) for journal in journals)

        await wait_until(shipped)
