"""One record from a producer to a worker's reader, by how long the broker may hold a fetch."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

from perdure.worker.broker import Outgoing
from perdure.worker.clock import SystemClock
from perdure.worker.kafka import Producer
from perdure.worker.kafka_broker import KafkaBroker
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.settings import Settings
from perdure.worker.topics import consumed_topics, is_resume_topic, plan_topics, service_topic

from .deployment import Servers
from .measuring import Measured, Moment, Plan, Window, percentile

WAITS_MS = (5, 10, 20, 50)
RECORDS = 60
"""In one window and for one wait."""

PAUSE_MS_MAX = 40
"""Before each record, at random: a record must not always find the fetch in the same state."""

UNITS = {f"p{share}_{wait_ms}": "ms" for wait_ms in (10, 5, 20, 50) for share in (50, 90)}


async def hop(servers: Servers, settings: Settings, plan: Plan) -> Measured:
    """Produce to one topic of two that are read, as a worker of one service reads them."""
    windows: list[Window] = []
    config = settings.kafka_config(client_id="bench-producer")
    topics = plan_topics(settings.namespace, ["Hop"], partitions=settings.topic_partitions, replication_factor=1)
    chance = random.Random(1)
    for _ in range(plan.windows):
        moment = Moment(servers.pids())
        values: dict[str, float] = {}
        for wait_ms in WAITS_MS:
            chosen = replace(config, fetch_max_wait_ms=wait_ms, assignment="manual")
            broker = KafkaBroker(
                chosen, topics=consumed_topics(settings.namespace, ["Hop"]), plan=topics, clock=SystemClock()
            )
            async with broker:
                taken_ms = await _hops_ms(broker, chosen, service_topic(settings.namespace, "Hop"), chance)
            values |= {f"p{share}_{wait_ms}": percentile(taken_ms, share / 100) for share in (50, 90)}
        windows.append(moment.until_now(RECORDS * len(WAITS_MS), values))
    return Measured(UNITS, "record", windows, 8, 1, {"pause_ms_max": PAUSE_MS_MAX})


async def _hops_ms(broker: KafkaBroker, config: KafkaConfig, topic: str, chance: random.Random) -> list[float]:
    producer = Producer(config)
    await producer.start()
    try:
        # The first one finds the reader still joining.
        await _one_ms(broker, producer, topic)
        taken_ms = []
        for _ in range(RECORDS):
            pause_s = chance.uniform(0, PAUSE_MS_MAX) / 1000
            resting = asyncio.create_task(asyncio.sleep(pause_s))
            # A worker polls all the time; aiokafka fetches only while it does not hold records.
            await broker.poll(first=is_resume_topic, records_max=500, wait_ms=1)
            await resting
            taken_ms.append(await _one_ms(broker, producer, topic))
        return taken_ms
    finally:
        await producer.close()


async def _one_ms(broker: KafkaBroker, producer: Producer, topic: str) -> float:
    began_s = time.perf_counter()
    value = b"%.6f" % began_s
    producing = asyncio.create_task(producer.produce([Outgoing(topic, None, value)]))
    while True:
        records = await broker.poll(first=is_resume_topic, records_max=500, wait_ms=250)
        taken_s = time.perf_counter() - began_s
        if any(record.value == value for record in records):
            await producing
            return taken_s * 1e3
