"""Producing from outside the worker: to topics that exist, with a producer that is made anew when it died."""

from __future__ import annotations

import asyncio
from types import TracebackType

from perdure.schemas.errors import BrokerError, SettingsError

from .broker import Outgoing
from .clock import SystemClock
from .gathering import Gathering
from .kafka import Producer
from .kafka_admin import describe_cluster
from .kafka_closing import retrieve
from .kafka_config import KafkaConfig

LOOKS_S = (0.0, 0.1, 0.3, 0.6)
"""Pauses before looks for a topic: one that was made a moment ago may not be known yet to the broker that is asked."""


class Sender:
    """One producer for any number of senders. Use as an async context manager; connects with the first record."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._producer: Producer | None = None
        self._topics: set[str] = set()
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._starting = asyncio.Lock()
        self._left = False
        self._gathering = Gathering(SystemClock())

    async def __aenter__(self) -> Sender:
        self._left = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        if self._looks:
            # Not cancelled: aiokafka leaves a connection open that is being made then. Their time is bounded.
            await asyncio.wait(set(self._looks.values()))
        # One that is being started has to be closed, too.
        async with self._starting:
            producer, self._producer = self._producer, None
            if producer is not None:
                await producer.close()

    async def send(self, outgoing: Outgoing) -> None:
        """Return once the record is acknowledged by all in-sync replicas.

        Raises:
            SettingsError: There is no such topic; sending must not make one with the brokers' defaults.
            RecordTooLargeError: It is over a limit.
            BrokerError: It was not acknowledged in time; it may still arrive.
        """
        if outgoing.topic not in self._topics and not self._left:
            await self._find(outgoing.topic)
        await self._gathering.pass_()
        producer = self._producer
        if producer is None or producer.ended():
            producer = await self._start()
        await producer.produce([outgoing])

    async def _find(self, topic: str) -> None:
        """Have all that wait for one topic share one look: each look is connections of its own."""
        look = self._looks.get(topic)
        if look is None:
            look = self._looks[topic] = asyncio.create_task(self._look(topic), name=f"perdure-look-{topic}")
            look.add_done_callback(lambda ended: self._looked(topic, ended))
        # Not `await look`: who is cancelled must not end what others wait for.
        await asyncio.wait({look})
        look.result()

    def _looked(self, topic: str, look: asyncio.Task[None]) -> None:
        del self._looks[topic]
        # All that waited may have been cancelled; asyncio would report the error as never retrieved.
        retrieve(look)

    async def _look(self, topic: str) -> None:
        for pause_s in LOOKS_S:
            await asyncio.sleep(pause_s)
            view = await describe_cluster(self._config, [topic])
            if topic in view.topics:
                self._topics.add(topic)
                return
        raise SettingsError(
            f"Kafka ({self._config.bootstrap_servers}) has no topic {topic}: check the service's name and "
            "PERDURE_NAMESPACE, or make it with `perdure topics create MODULE:APP` or by starting a worker."
        )

    async def _start(self) -> Producer:
        async with self._starting:
            if self._left:
                raise BrokerError("The record was not sent: the client was closed meanwhile.")
            old = self._producer
            if old is not None and not old.ended():
                return old
            if old is not None:
                await old.close()
            self._producer = None
            producer = Producer(self._config)
            try:
                await producer.start()
            except BaseException:
                await producer.close()
                raise
            self._producer = producer
            return producer
