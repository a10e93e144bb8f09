"""`examples/enrichment.py`: the records of an existing topic."""

from __future__ import annotations

import pytest

from examples.enrichment import application
from examples.ledger import Ledger
from perdure.testing import HarnessFactory
from perdure.worker.broker import Outgoing, Record
from perdure.worker.kafka_admin import create_topics, describe_cluster
from perdure.worker.sender import Sender
from tests.waiting import wait_until
from tests.worker.kafka_clients import broker_for, poll_until, quick_config, topic_plan

RECORDS = [
    (b"ada", b'{"item": "tea", "quantity": 2}'),
    (b"ada", b'{"item": "coffee", "quantity": 1}'),
    (b"ben", b'{"item": "socks", "quantity": 9}'),
    (None, b'{"item": "tea", "quantity": 1}'),
    (b"ben", b"{}"),
    (b"ben", b'{"item": "tea", "quantity": 3}'),
]


@pytest.mark.parametrize("always_replay", [False, True], ids=["at once", "replayed"])
async def test_orders_are_priced_once_and_in_order(
    perdure_harness: HarnessFactory, ledger: Ledger, always_replay: bool
) -> None:
    """Those that cannot be are dead letters, with the reason, and hold up nobody."""
    async with perdure_harness(application, always_replay=always_replay) as env:
        config = env.settings.kafka_config(client_id="another-team")
        # The topic is there already where another test, and with it another group, has read it.
        begun = (await create_topics(config, [topic_plan("orders")])).created

        async def known() -> bool:
            return "orders" in (await describe_cluster(config, ["orders"])).topics

        await wait_until(known, description="the brokers know the topic")
        async with Sender(config) as sender:
            for key, value in RECORDS:
                await sender.send(Outgoing("orders", key, value))
        times = 1 if begun else 2
        await wait_until(lambda: len(ledger.effects()) >= 3 * times, description="the orders are stored")

        def enough(letters: list[Record]) -> bool:
            return len({dict(letter.headers)["perdure-offset"] for letter in letters}) >= 3 * times

        dead = quick_config(env.settings.bootstrap_servers, f"{env.namespace}-reader")
        async with broker_for(dead, topic_plan(f"{env.namespace}.dead")) as broker:
            letters = await poll_until(broker, enough)
    names = [effect.name for effect in ledger.effects()]
    assert sorted(names) == sorted(["ada: tea for 8", "ada: coffee for 6", "ben: tea for 12"] * times)
    assert names.index("ada: tea for 8") < names.index("ada: coffee for 6")
    reasons = {dict(letter.headers)["perdure-reason"] for letter in letters}
    assert b"Nobody sells socks." in reasons
    assert b"An order needs its customer, as the key of its record." in reasons
    assert {letter.value for letter in letters} == {RECORDS[2][1], RECORDS[3][1], RECORDS[4][1]}
